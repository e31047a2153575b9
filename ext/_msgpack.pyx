# cython: language_level=3, boundscheck=False, wraparound=False, autotestdict=False
"""Serialised lists (MessagePack), taken apart without decoding their elements.

`lgkv/codec/arrays.py` has the same function in Python.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t


def split_array(bytes data not None) -> list:
    """Return the elements of a serialised MessagePack array, each as its own bytes.

    ValueError if *data* is not one whole array. Reads each byte once, whatever it says.
    """
    cdef const unsigned char* raw = <const unsigned char*>PyBytes_AS_STRING(data)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data), at, end
    cdef uint64_t count
    cdef list parts = []
    if size < 1:
        raise ValueError("an empty value is no list")
    if raw[0] & 0xF0 == 0x90:
        count, at = raw[0] & 0x0F, 1
    elif raw[0] == 0xDC and size >= 3:
        count, at = _big_endian(raw + 1, 2), 3
    elif raw[0] == 0xDD and size >= 5:
        count, at = _big_endian(raw + 1, 4), 5
    else:
        raise ValueError("the value is not a list")
    if count > <uint64_t>(size - at):
        raise ValueError("the list is cut short")
    while count:
        end = _skip(raw, at, size)
        parts.append(data[at:end])
        at = end
        count -= 1
    if at != size:
        raise ValueError("there are bytes behind the list")
    return parts


cdef uint64_t _big_endian(const unsigned char* raw, int size) noexcept:
    cdef uint64_t number = 0
    cdef int at
    for at in range(size):
        number = number << 8 | raw[at]
    return number


cdef Py_ssize_t _skip(const unsigned char* raw, Py_ssize_t at, Py_ssize_t size) except -1:
    """Return where the object at *at* ends. Counts what is still to come instead of recursing."""
    cdef uint64_t remaining = 1, inside, length
    cdef unsigned char tag
    cdef int width
    while remaining:
        remaining -= 1
        if at >= size:
            raise ValueError("the value is cut short")
        tag = raw[at]
        at += 1
        width, length, inside = 0, 0, 0
        if tag <= 0x7F or tag >= 0xE0 or tag == 0xC0 or tag == 0xC2 or tag == 0xC3:
            continue
        if tag <= 0x8F:
            inside = 2 * (tag & 0x0F)
        elif tag <= 0x9F:
            inside = tag & 0x0F
        elif tag <= 0xBF:
            length = tag & 0x1F
        elif tag == 0xC1:
            raise ValueError("the value has an unknown type")
        elif tag == 0xCA or tag == 0xCB:
            length = 4 << (tag - 0xCA)
        elif 0xCC <= tag <= 0xD3:
            length = 1 << (tag & 0x03)
        elif 0xD4 <= tag <= 0xD8:
            length = 1 + (1 << (tag - 0xD4))
        else:
            width = _count_width(tag)
            if size - at < width:
                raise ValueError("the value is cut short")
            length = _big_endian(raw + at, width)
            at += width
            if tag >= 0xDC:
                inside = length if tag <= 0xDD else 2 * length
                length = 0
            elif 0xC7 <= tag <= 0xC9:
                length += 1
        if length > <uint64_t>(size - at):
            raise ValueError("the value is cut short")
        at += <Py_ssize_t>length
        remaining += inside
        if remaining > <uint64_t>(size - at):
            raise ValueError("the value is cut short")
    return at


cdef int _count_width(unsigned char tag) noexcept:
    """Return how many bytes give the length or count behind *tag*."""
    if tag >= 0xDC:
        return 2 << (tag & 0x01)
    if tag >= 0xD9:
        return 1 << (tag - 0xD9)
    if tag >= 0xC7:
        return 1 << (tag - 0xC7)
    return 1 << (tag - 0xC4)
