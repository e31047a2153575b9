"""Reading CBOR (RFC 8949) without making objects of it: heads, ends, fields of maps."""

cdef enum:
    UINT = 0
    NEGATIVE = 1
    BYTES = 2
    TEXT = 3
    ARRAY = 4
    MAP = 5
    TAG = 6
    SIMPLE = 7

cdef enum:
    FALSE = 20
    TRUE = 21
    NULL_VALUE = 22
    FLOAT16 = 25
    FLOAT32 = 26
    FLOAT64 = 27

cdef enum:
    MAX_DEPTH = 1000


cdef inline uint64_t _big(const unsigned char* data, int size) noexcept nogil:
    cdef uint64_t number = 0
    cdef int at
    for at in range(size):
        number = number << 8 | data[at]
    return number


cdef Py_ssize_t _damaged() except -1:
    raise ValueError("damaged CBOR in a value")


cdef inline Py_ssize_t _head(
    const unsigned char* data, Py_ssize_t at, Py_ssize_t end,
    int* major, int* info, uint64_t* number,
) except -1:
    """Read the head of the value at *at*; return where it ends."""
    cdef int size
    if at >= end:
        return _damaged()
    major[0] = data[at] >> 5
    info[0] = data[at] & 0x1F
    at += 1
    if info[0] < 24:
        number[0] = info[0]
        return at
    if info[0] > 27:
        return _damaged()
    size = 1 << (info[0] - 24)
    if end - at < size:
        return _damaged()
    number[0] = _big(data + at, size)
    return at + size


cdef Py_ssize_t _skip(
    const unsigned char* data, Py_ssize_t at, Py_ssize_t end, int depth
) except -1:
    """Return where the value at *at* ends."""
    cdef int major = 0
    cdef int info = 0
    cdef uint64_t number = 0
    if depth > MAX_DEPTH:
        return _damaged()
    at = _head(data, at, end, &major, &info, &number)
    if major == BYTES or major == TEXT:
        if number > <uint64_t>(end - at):
            return _damaged()
        return at + <Py_ssize_t>number
    if major == TAG:
        return _skip(data, at, end, depth + 1)
    if major == ARRAY or major == MAP:
        if number > <uint64_t>(end - at):
            return _damaged()
        if major == MAP:
            number *= 2
        while number:
            at = _skip(data, at, end, depth + 1)
            number -= 1
    return at


cdef Py_ssize_t _find_field(
    const unsigned char* data, Py_ssize_t at, Py_ssize_t end, bytes name, int depth
) except -2:
    """Return where the value of a field of the map at *at* stands, -1 if it is not there."""
    cdef int major = 0
    cdef int info = 0
    cdef uint64_t number = 0
    cdef uint64_t pairs = 0
    cdef Py_ssize_t found = -1
    cdef Py_ssize_t size = PyBytes_GET_SIZE(name)
    cdef const char* wanted = PyBytes_AS_STRING(name)
    at = _head(data, at, end, &major, &info, &pairs)
    if major != MAP:
        return _damaged()
    while pairs:
        pairs -= 1
        if at < end and data[at] >> 5 == TEXT:
            at = _head(data, at, end, &major, &info, &number)
            if number > <uint64_t>(end - at):
                return _damaged()
            if <Py_ssize_t>number == size and memcmp(data + at, wanted, size) == 0:
                found = at + size
            at += <Py_ssize_t>number
        else:
            at = _skip(data, at, end, depth)
        at = _skip(data, at, end, depth)
    return found


def find_value(bytes encoded not None, tuple path not None):
    """Return the bytes of the value at a path of field names, None if there is none."""
    cdef const unsigned char* data = <const unsigned char*>PyBytes_AS_STRING(encoded)
    cdef Py_ssize_t end = PyBytes_GET_SIZE(encoded)
    cdef Py_ssize_t at = 0
    for name in path:
        if at >= end or data[at] >> 5 != MAP:
            return None
        at = _find_field(data, at, end, name, 0)
        if at < 0:
            return None
    return encoded[at:_skip(data, at, end, 0)]
