"""Plain values to and from CBOR (RFC 8949): what is most common of them, and nothing else."""


from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.dict cimport PyDict_Next
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    double PyFloat_AS_DOUBLE(object number)
    long long PyLong_AsLongLongAndOverflow(object number, int* overflow) except? -1

cdef enum:
    UINT = 0
    NEGATIVE = 1
    BYTES = 2
    TEXT = 3
    ARRAY = 4
    MAP = 5
    SIMPLE = 7

cdef enum:
    FALSE = 20
    TRUE = 21
    NULL_VALUE = 22
    FLOAT64 = 27

cdef enum:
    MAX_NESTING = 200

# --- Encoding ---------------------------------------------------------------------------------

cdef struct Out:
    unsigned char* data
    Py_ssize_t size
    Py_ssize_t room


cdef unsigned char* _room(Out* out, Py_ssize_t size) except NULL:
    """Return where *size* bytes may be written; they count as written."""
    cdef unsigned char* data
    if out.size + size > out.room:
        out.room = max(2 * out.room, out.size + size, 512)
        data = <unsigned char*>PyMem_Realloc(out.data, out.room)
        if data == NULL:
            raise MemoryError
        out.data = data
    out.size += size
    return out.data + out.size - size


cdef int _write_head(Out* out, int major, uint64_t number) except -1:
    cdef int info = 27
    cdef int size = 8
    cdef int at
    cdef unsigned char* data
    if number < 24:
        _room(out, 1)[0] = <unsigned char>(major << 5 | <int>number)
        return 0
    while size > 1 and number >> (4 * size) == 0:
        size >>= 1
        info -= 1
    data = _room(out, 1 + size)
    data[0] = <unsigned char>(major << 5 | info)
    for at in range(size):
        data[size - at] = <unsigned char>(number & 0xFF)
        number >>= 8
    return 0


cdef int _write_text(Out* out, object text) except -1:
    """Write a str; 0 if it cannot be UTF-8."""
    cdef Py_ssize_t size = 0
    cdef const char* raw
    try:
        raw = PyUnicode_AsUTF8AndSize(text, &size)
    except UnicodeEncodeError:
        return 0
    _write_head(out, TEXT, size)
    memcpy(_room(out, size), raw, size)
    return 1


cdef int _write_integer(Out* out, object number) except -1:
    """Write an int; 0 if it has more than 64 bits."""
    cdef int overflow = 0
    cdef long long value = PyLong_AsLongLongAndOverflow(number, &overflow)
    if overflow:
        return 0
    if value < 0:
        _write_head(out, NEGATIVE, <uint64_t>(-1 - value))
    else:
        _write_head(out, UINT, <uint64_t>value)
    return 1


cdef int _write_float(Out* out, double number) except -1:
    """Write a float; 0 if it is not finite, which has a form of its own."""
    cdef uint64_t bits = 0
    cdef unsigned char* data
    cdef int at
    if number - number != 0:
        return 0
    memcpy(&bits, &number, 8)
    data = _room(out, 9)
    data[0] = SIMPLE << 5 | FLOAT64
    for at in range(8):
        data[8 - at] = <unsigned char>(bits & 0xFF)
        bits >>= 8
    return 1


cdef int _write(Out* out, object value, int depth) except -1:
    """Write a value; 0 if it needs another encoder."""
    kind = type(value)
    if kind is str:
        return _write_text(out, value)
    if kind is dict:
        return _write_map(out, <dict>value, depth)
    if kind is int:
        return _write_integer(out, value)
    if kind is float:
        return _write_float(out, PyFloat_AS_DOUBLE(value))
    if value is None:
        _room(out, 1)[0] = SIMPLE << 5 | NULL_VALUE
    elif kind is bool:
        _room(out, 1)[0] = SIMPLE << 5 | (TRUE if value else FALSE)
    elif kind is bytes:
        _write_head(out, BYTES, PyBytes_GET_SIZE(value))
        memcpy(
            _room(out, PyBytes_GET_SIZE(value)), PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value)
        )
    elif (kind is list or kind is tuple) and depth:
        _write_head(out, ARRAY, len(value))
        for element in value:
            if not _write(out, element, depth - 1):
                return 0
    else:
        return 0
    return 1


cdef int _write_map(Out* out, dict value, int depth) except -1:
    cdef Py_ssize_t at = 0
    cdef PyObject* name = NULL
    cdef PyObject* held = NULL
    if not depth:
        return 0
    _write_head(out, MAP, len(value))
    while PyDict_Next(value, &at, &name, &held):
        if type(<object>name) is not str or not _write_text(out, <object>name):
            return 0
        if not _write(out, <object>held, depth - 1):
            return 0
    return 1


# --- Decoding ---------------------------------------------------------------------------------

cdef struct In:
    const unsigned char* data
    Py_ssize_t at
    Py_ssize_t size


cdef object _OTHER = object()


cdef object _read(In* source, int depth):
    """Return the value that begins here, or `_OTHER` for what is left to another decoder."""
    cdef int major, info, size
    cdef uint64_t number = 0
    if source.at >= source.size:
        return _OTHER
    major, info = source.data[source.at] >> 5, source.data[source.at] & 0x1F
    source.at += 1
    if info < 24:
        number = info
    elif info < 28:
        size = 1 << (info - 24)
        if source.size - source.at < size:
            return _OTHER
        while size:
            size -= 1
            number = number << 8 | source.data[source.at]
            source.at += 1
    else:
        return _OTHER
    if major == UINT:
        return number
    if major == NEGATIVE:
        return -1 - <object>number
    if major == SIMPLE:
        return _simple(info, number)
    if major > MAP or number > <uint64_t>(source.size - source.at):
        return _OTHER
    if major == TEXT:
        return _read_text(source, <Py_ssize_t>number)
    if major == BYTES:
        source.at += <Py_ssize_t>number
        return PyBytes_FromStringAndSize(
            <const char*>source.data + source.at - <Py_ssize_t>number, <Py_ssize_t>number
        )
    if not depth:
        return _OTHER
    if major == ARRAY:
        return _read_array(source, number, depth)
    return _read_map(source, number, depth)


cdef object _simple(int info, uint64_t number):
    cdef double real = 0
    if info == NULL_VALUE:
        return None
    if info == TRUE or info == FALSE:
        return info == TRUE
    if info != FLOAT64:
        return _OTHER
    memcpy(&real, &number, 8)
    return real


cdef object _read_text(In* source, Py_ssize_t size):
    source.at += size
    try:
        return PyUnicode_DecodeUTF8(<const char*>source.data + source.at - size, size, NULL)
    except UnicodeDecodeError:
        return _OTHER


cdef object _read_array(In* source, uint64_t count, int depth):
    cdef list values = []
    while count:
        count -= 1
        value = _read(source, depth - 1)
        if value is _OTHER:
            return _OTHER
        values.append(value)
    return values


cdef object _read_map(In* source, uint64_t count, int depth):
    cdef dict values = {}
    while count:
        count -= 1
        name = _read(source, 0)
        if type(name) is not str:
            return _OTHER
        value = _read(source, depth - 1)
        if value is _OTHER:
            return _OTHER
        values[name] = value
    return values
