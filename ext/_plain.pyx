# cython: language_level=3, boundscheck=False, wraparound=False, autotestdict=False
"""Plain values to and from CBOR (RFC 8949), as `lgkv.layout` does it with cbor2.

Only what is most common is done here; of anything else nothing is said, and cbor2 is to do it.
A test demands identical bytes and values. Nothing here keeps state or does I/O.
"""

include "plain.pxi"


def encode(value):
    """Return a value as CBOR, or None unless it is made of exact None, bool, int of 64 bits,
    float, str, bytes, list, tuple and dict with str for keys, at most 200 levels deep.
    """
    cdef Out out
    out.data, out.size, out.room = NULL, 0, 0
    try:
        if not _write(&out, value, MAX_NESTING):
            return None
        return PyBytes_FromStringAndSize(<const char*>out.data, out.size)
    finally:
        PyMem_Free(out.data)


def encode_mapping(value):
    """Return a dict as `encode` does, None for anything else."""
    return encode(value) if type(value) is dict else None


def decode(bytes encoded not None, other):
    """Return the value that CBOR stands for, or *other* unless it is one that `encode` makes.

    It is made anew by every call.
    """
    cdef In source
    source.data = <const unsigned char*>PyBytes_AS_STRING(encoded)
    source.at, source.size = 0, PyBytes_GET_SIZE(encoded)
    value = _read(&source, MAX_NESTING)
    if value is _OTHER or source.at != source.size:
        return other
    return value


def decode_mapping(bytes encoded not None):
    """Return the dict that CBOR stands for as `decode` does, None for anything else."""
    value = decode(encoded, None)
    return value if type(value) is dict else None
