# cython: language_level=3, boundscheck=False, wraparound=False, autotestdict=False
"""Serialised values (MessagePack), checked, and lists taken apart, without decoding anything.

`lgkv/codec/arrays.py` has the same functions in Python.
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


cdef enum:
    # What LangGraph's serialiser has of its own: what stands in each is MessagePack again.
    LAST_EXTENSION = 7
    MAX_DEPTH = 1000


def check_value(bytes data not None) -> None:
    """Raise ValueError unless *data* is one whole value, and each count in it one that can be.

    What stands in LangGraph's extension types is looked at likewise. ormsgpack before 1.13.1
    makes room for as many elements as a list says, and ends the process if there is none.
    """
    _check(<const unsigned char*>PyBytes_AS_STRING(data), 0, PyBytes_GET_SIZE(data), 0)


cdef int _check(
    const unsigned char* raw, Py_ssize_t at, Py_ssize_t size, int depth
) except -1:
    """Check the value that goes from *at* to *size*."""
    cdef uint64_t remaining = 1
    cdef Object found
    if depth > MAX_DEPTH:
        raise ValueError("the value is nested too deeply")
    while remaining:
        remaining -= 1
        _measure(raw, at, size, &found)
        if found.is_extension and raw[found.body - 1] <= LAST_EXTENSION:
            _check(raw, found.body, found.end, depth + 1)
        at = found.end
        remaining += found.inside
        if remaining > <uint64_t>(size - at):
            raise ValueError("the value is cut short")
    if at != size:
        raise ValueError("there are bytes behind the value")
    return 0


cdef struct Object:
    Py_ssize_t body  # where what it says of itself is over
    Py_ssize_t end
    uint64_t inside  # as many objects follow that are parts of it
    bint is_extension


cdef uint64_t _big_endian(const unsigned char* raw, int size) noexcept:
    cdef uint64_t number = 0
    cdef int at
    for at in range(size):
        number = number << 8 | raw[at]
    return number


cdef Py_ssize_t _skip(const unsigned char* raw, Py_ssize_t at, Py_ssize_t size) except -1:
    """Return where the object at *at* ends. Counts what is still to come instead of recursing."""
    cdef uint64_t remaining = 1
    cdef Object found
    while remaining:
        remaining -= 1
        _measure(raw, at, size, &found)
        at = found.end
        remaining += found.inside
        if remaining > <uint64_t>(size - at):
            raise ValueError("the value is cut short")
    return at


cdef inline int _measure(
    const unsigned char* raw, Py_ssize_t at, Py_ssize_t size, Object* found
) except -1:
    """Find how far the object at *at* goes, without the objects that it holds."""
    cdef uint64_t length = 0
    cdef unsigned char tag
    cdef int width
    if at >= size:
        raise ValueError("the value is cut short")
    tag = raw[at]
    at += 1
    found.inside, found.is_extension = 0, False
    if tag <= 0x7F or tag >= 0xE0 or tag == 0xC0 or tag == 0xC2 or tag == 0xC3:
        pass
    elif tag <= 0x8F:
        found.inside = 2 * (tag & 0x0F)
    elif tag <= 0x9F:
        found.inside = tag & 0x0F
    elif tag <= 0xBF:
        length = tag & 0x1F
    elif tag == 0xC1:
        raise ValueError("the value has an unknown type")
    elif tag == 0xCA or tag == 0xCB:
        length = 4 << (tag - 0xCA)
    elif 0xCC <= tag <= 0xD3:
        length = 1 << (tag & 0x03)
    elif 0xD4 <= tag <= 0xD8:
        length, found.is_extension = 1 + (1 << (tag - 0xD4)), True
    else:
        width = _count_width(tag)
        if size - at < width:
            raise ValueError("the value is cut short")
        length = _big_endian(raw + at, width)
        at += width
        if tag >= 0xDC:
            found.inside = length if tag <= 0xDD else 2 * length
            length = 0
        elif 0xC7 <= tag <= 0xC9:
            length, found.is_extension = length + 1, True
    if length > <uint64_t>(size - at):
        raise ValueError("the value is cut short")
    found.body = at + 1 if found.is_extension else at
    found.end = at + <Py_ssize_t>length
    return 0


cdef int _count_width(unsigned char tag) noexcept:
    """Return how many bytes give the length or count behind *tag*."""
    if tag >= 0xDC:
        return 2 << (tag & 0x01)
    if tag >= 0xD9:
        return 1 << (tag - 0xD9)
    if tag >= 0xC7:
        return 1 << (tag - 0xC7)
    return 1 << (tag - 0xC4)
