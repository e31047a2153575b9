# cython: language_level=3, boundscheck=False, wraparound=False
"""The hot loops of the key codec and of the record envelope."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from xxhash import xxh3_64_intdigest

cdef Py_ssize_t CHECKSUM_BYTES = 8


def seal(unsigned int table, bytes key not None, unsigned char flags, bytes body not None) -> bytes:
    """Return *body* in its envelope: flags, body, checksum bound to table, key and flags."""
    cdef Py_ssize_t size = len(body)
    cdef bytes record = PyBytes_FromStringAndSize(NULL, 1 + size + CHECKSUM_BYTES)
    cdef unsigned char* out = <unsigned char*>PyBytes_AS_STRING(record)
    cdef uint64_t checksum = xxh3_64_intdigest(body, xxh3_64_intdigest(key, table << 8 | flags))
    cdef int shift
    out[0] = flags
    memcpy(out + 1, PyBytes_AS_STRING(body), size)
    out += 1 + size
    for shift in range(CHECKSUM_BYTES):
        out[shift] = <unsigned char>(checksum >> (8 * shift))
    return record
