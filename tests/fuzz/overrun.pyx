# cython: language_level=3, boundscheck=False, wraparound=False
"""What the sanitisers must notice, done on purpose: built by `tests.fuzz.sanitized` alone."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE


def read_behind(bytes data not None) -> int:
    """Read what stands behind *data* and the zero at its end."""
    return <unsigned char>PyBytes_AS_STRING(data)[PyBytes_GET_SIZE(data) + 1]


def overflow(int number) -> int:
    """Add to the largest number that there is."""
    return number + 0x7FFFFFFF
