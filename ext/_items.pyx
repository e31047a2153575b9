# cython: language_level=3, boundscheck=False, wraparound=False, autotestdict=False
"""The hot loops of the store: packs of items, and filters on values as they are encoded.

A *pack* holds the entries of several items, one behind the other. `lgkv/memory/items.py` has
the same functions in Python, with an underscore before their names. A `Test` says of a value
in CBOR what the predicate of `lgkv.filters` says of the value itself, and makes no objects of
it. Nothing here keeps state or does I/O.
"""

cimport cython
from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.dict cimport PyDict_Next
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject
from libc.math cimport INFINITY, NAN, ldexp
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    double PyFloat_AS_DOUBLE(object number)
    long long PyLong_AsLongLongAndOverflow(object number, int* overflow) except? -1

# On disk: DO NOT RENUMBER.
cdef enum:
    AT_UPDATED = 4
    AT_SEQUENCE = 12
    AT_CREATED = 20
    AT_TTL = 28
    AT_DEADLINE = 36
    AT_KEY_BYTES = 44
    HEADER_BYTES = 48

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
    MAX_NESTING = 200


# --- Numbers as they are stored ---------------------------------------------------------------


cdef inline uint64_t _little(const unsigned char* data, int size) noexcept nogil:
    cdef uint64_t number = 0
    while size:
        size -= 1
        number = number << 8 | data[size]
    return number


cdef inline void _set_little(unsigned char* data, uint64_t number, int size) noexcept nogil:
    cdef int at
    for at in range(size):
        data[at] = <unsigned char>(number & 0xFF)
        number >>= 8


cdef inline uint64_t _big(const unsigned char* data, int size) noexcept nogil:
    cdef uint64_t number = 0
    cdef int at
    for at in range(size):
        number = number << 8 | data[at]
    return number


# --- Packs ------------------------------------------------------------------------------------


def pack_entry(
    uint64_t updated, uint64_t sequence, uint64_t created, uint64_t ttl, uint64_t deadline,
    bytes key not None, bytes value not None,
) -> bytes:
    """Return an item as an entry of a pack."""
    cdef Py_ssize_t key_size = PyBytes_GET_SIZE(key)
    cdef Py_ssize_t size = HEADER_BYTES + key_size + PyBytes_GET_SIZE(value)
    if size > 0xFFFFFFFF:
        raise ValueError(f"an item of {size} bytes does not fit into a pack")
    cdef bytes entry = PyBytes_FromStringAndSize(NULL, size)
    cdef unsigned char* out = <unsigned char*>PyBytes_AS_STRING(entry)
    _set_little(out, size, 4)
    _set_little(out + AT_UPDATED, updated, 8)
    _set_little(out + AT_SEQUENCE, sequence, 8)
    _set_little(out + AT_CREATED, created, 8)
    _set_little(out + AT_TTL, ttl, 8)
    _set_little(out + AT_DEADLINE, deadline, 8)
    _set_little(out + AT_KEY_BYTES, key_size, 4)
    memcpy(out + HEADER_BYTES, PyBytes_AS_STRING(key), key_size)
    memcpy(out + HEADER_BYTES + key_size, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
    return entry


cdef inline Py_ssize_t _entry_end(
    const unsigned char* data, Py_ssize_t at, Py_ssize_t size
) except -1:
    """Return where the entry at *at* ends; ValueError if it does not fit."""
    cdef Py_ssize_t length
    if at < 0 or size - at < HEADER_BYTES:
        raise ValueError("an entry is shorter than its header")
    length = _little(data + at, 4)
    if length > size - at or length < HEADER_BYTES or (
        <Py_ssize_t>_little(data + at + AT_KEY_BYTES, 4) > length - HEADER_BYTES
    ):
        raise ValueError("an entry does not have its size")
    return at + length


def unpack_entry(bytes pack not None, Py_ssize_t at) -> tuple[int, int, int, int, int, bytes, bytes]:
    """Return the times, the sequence, the key and the value of the entry at *at*."""
    cdef const unsigned char* data = <const unsigned char*>PyBytes_AS_STRING(pack)
    cdef Py_ssize_t end = _entry_end(data, at, PyBytes_GET_SIZE(pack))
    cdef const unsigned char* entry = data + at
    cdef Py_ssize_t key_size = _little(entry + AT_KEY_BYTES, 4)
    cdef Py_ssize_t start = HEADER_BYTES + key_size
    return (
        _little(entry + AT_UPDATED, 8), _little(entry + AT_SEQUENCE, 8),
        _little(entry + AT_CREATED, 8), _little(entry + AT_TTL, 8),
        _little(entry + AT_DEADLINE, 8),
        PyBytes_FromStringAndSize(<const char*>entry + HEADER_BYTES, key_size),
        PyBytes_FromStringAndSize(<const char*>entry + start, end - at - start),
    )


def entry_place(bytes pack not None, Py_ssize_t at) -> tuple[int, int]:
    """Return when the entry at *at* was updated, and its sequence."""
    cdef const unsigned char* data = <const unsigned char*>PyBytes_AS_STRING(pack)
    _entry_end(data, at, PyBytes_GET_SIZE(pack))
    return _little(data + at + AT_UPDATED, 8), _little(data + at + AT_SEQUENCE, 8)


def find_entry(bytes pack not None, uint64_t sequence) -> int:
    """Return where the entry with this sequence stands, -1 if it is not there."""
    cdef const unsigned char* data = <const unsigned char*>PyBytes_AS_STRING(pack)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(pack)
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t end
    while at < size:
        end = _entry_end(data, at, size)
        if _little(data + at + AT_SEQUENCE, 8) == sequence:
            return at
        at = end
    return -1


def without_entries(bytes pack not None, set sequences not None) -> bytes:
    """Return the pack without the entries that have these sequences."""
    cdef const unsigned char* data = <const unsigned char*>PyBytes_AS_STRING(pack)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(pack)
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t end
    cdef bytes rest = PyBytes_FromStringAndSize(NULL, size)
    cdef unsigned char* out = <unsigned char*>PyBytes_AS_STRING(rest)
    cdef Py_ssize_t length = 0
    while at < size:
        end = _entry_end(data, at, size)
        if _little(data + at + AT_SEQUENCE, 8) not in sequences:
            memcpy(out + length, data + at, end - at)
            length += end - at
        at = end
    return rest[:length]


def scan_pack(bytes pack not None, Test test, uint64_t now) -> list[int]:
    """Return where the entries stand that *test* keeps and that have not ended by *now*.

    With 0 for *now* none has ended; without a test all are kept.
    """
    cdef const unsigned char* data = <const unsigned char*>PyBytes_AS_STRING(pack)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(pack)
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t end, start
    cdef uint64_t deadline
    cdef list found = []
    while at < size:
        end = _entry_end(data, at, size)
        deadline = _little(data + at + AT_DEADLINE, 8)
        if not (now and deadline and deadline <= now):
            start = at + HEADER_BYTES + <Py_ssize_t>_little(data + at + AT_KEY_BYTES, 4)
            if test is None or _holds(test, data, start, end, 0):
                found.append(at)
        at = end
    return found


# --- Values as CBOR: reading ------------------------------------------------------------------


cdef Py_ssize_t _damaged() except -1:
    raise ValueError("damaged CBOR in a value")


cdef inline Py_ssize_t _head(
    const unsigned char* data, Py_ssize_t at, Py_ssize_t end, int* major, int* info, uint64_t* number
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


# --- Tests ------------------------------------------------------------------------------------

cdef enum:
    ALL = 0
    ANY = 1
    NOT = 2
    FIELD = 3
    MAPPING = 4
    ELEMENTS = 5
    EXISTS = 6
    DECODED = 7
    COMPARE = 8

cdef enum:
    OF_NULL = 0
    OF_TEXT = 1
    OF_BYTES = 2
    OF_INTEGER = 3
    OF_FLOAT = 4

cdef enum:
    LESS = 1
    EQUAL = 2
    GREATER = 4
    UNORDERED = 8
    UNDECIDED = 16

cdef int64_t EXACT = 1 << 53


@cython.final
@cython.auto_pickle(False)
cdef class Test:
    """What an encoded value is tested for."""

    cdef int kind
    cdef int operand
    cdef int wanted
    cdef tuple parts
    cdef bytes name
    cdef int64_t integer
    cdef double real
    cdef object decoded

    def holds(self, bytes encoded not None) -> bool:
        """Whether the test holds of a value; ValueError if that is not CBOR."""
        cdef const unsigned char* data = <const unsigned char*>PyBytes_AS_STRING(encoded)
        return bool(_holds(self, data, 0, PyBytes_GET_SIZE(encoded), 0))


cdef Test _test(int kind, tuple parts):
    cdef Test test = Test.__new__(Test)
    test.kind = kind
    test.parts = parts
    return test


def all_of(parts) -> Test:
    """Return the test that holds if all of *parts* do."""
    return _test(ALL, tuple(parts))


def any_of(parts) -> Test:
    """Return the test that holds if one of *parts* does."""
    return _test(ANY, tuple(parts))


def not_(Test part not None) -> Test:
    """Return the test that holds if *part* does not."""
    return _test(NOT, (part,))


def field(bytes name not None, Test part not None) -> Test:
    """Return the test that holds of a map if *part* holds of a field, which may be missing."""
    cdef Test test = _test(FIELD, (part,))
    test.name = name
    return test


def mapping(Test part not None) -> Test:
    """Return the test that holds of a map of which *part* holds."""
    return _test(MAPPING, (part,))


def elements(parts) -> Test:
    """Return the test that holds of an array of so many elements if each part holds of its own."""
    return _test(ELEMENTS, tuple(parts))


def exists(bint wanted) -> Test:
    """Return the test that holds of what is there, or of what is missing."""
    cdef Test test = _test(EXISTS, ())
    test.wanted = wanted
    return test


def decoded(predicate) -> Test:
    """Return the test that *predicate* makes of a value's bytes, of None if it is missing."""
    cdef Test test = _test(DECODED, ())
    test.decoded = predicate
    return test


def compare(operand, bint less, bint equal, bint greater, predicate) -> Test:
    """Return the test that compares a value with *operand*, and says yes as the three flags do.

    *operand* is None, or exactly a bool, an int, a float, a str or bytes. What is not of its
    kind is neither less, equal nor greater. Of a value that only decoding can compare,
    *predicate* decides by its bytes.
    """
    cdef Test test = decoded(predicate)
    cdef int overflow = 0
    kind = type(operand)
    if operand is None:
        test.operand = OF_NULL
    elif kind is str:
        test.operand, test.name = OF_TEXT, operand.encode("utf-8", "surrogatepass")
    elif kind is bytes:
        test.operand, test.name = OF_BYTES, operand
    elif kind is float:
        test.operand, test.real = OF_FLOAT, PyFloat_AS_DOUBLE(operand)
    elif kind is int or kind is bool:
        test.operand = OF_INTEGER
        test.integer = PyLong_AsLongLongAndOverflow(operand, &overflow)
    else:
        return test
    if not overflow:
        test.kind = COMPARE
        test.wanted = less * LESS | equal * EQUAL | greater * GREATER
    return test


cdef int _holds(
    Test test, const unsigned char* data, Py_ssize_t at, Py_ssize_t end, int depth
) except -1:
    """Whether *test* holds of the value at *at*; it is missing where that is -1."""
    cdef Test part
    cdef int kind = test.kind
    cdef int order
    if depth > MAX_DEPTH:
        _damaged()
    if kind == ALL:
        for part in test.parts:
            if not _holds(part, data, at, end, depth + 1):
                return 0
        return 1
    if kind == ANY:
        for part in test.parts:
            if _holds(part, data, at, end, depth + 1):
                return 1
        return 0
    if kind == NOT:
        return not _holds(<Test>test.parts[0], data, at, end, depth + 1)
    if kind == FIELD:
        at = _find_field(data, at, end, test.name, depth)
        return _holds(<Test>test.parts[0], data, at, end, depth + 1)
    if kind == EXISTS:
        return (at >= 0) == test.wanted
    if kind == COMPARE:
        if at < 0:
            return test.operand == OF_NULL and test.wanted & EQUAL
        order = _order(test, data, at, end)
        if order != UNDECIDED:
            return order & test.wanted != 0
    if kind == COMPARE or kind == DECODED:
        return _decoded(test, data, at, end, depth)
    if at < 0:
        return 0
    if kind == MAPPING:
        return data[at] >> 5 == MAP and _holds(<Test>test.parts[0], data, at, end, depth + 1)
    return _elements_hold(test, data, at, end, depth)


cdef int _elements_hold(
    Test test, const unsigned char* data, Py_ssize_t at, Py_ssize_t end, int depth
) except -1:
    cdef int major = 0
    cdef int info = 0
    cdef uint64_t number = 0
    cdef Test part
    at = _head(data, at, end, &major, &info, &number)
    if major != ARRAY or number != <uint64_t>len(test.parts):
        return 0
    for part in test.parts:
        if not _holds(part, data, at, end, depth + 1):
            return 0
        at = _skip(data, at, end, depth)
    return 1


cdef int _decoded(
    Test test, const unsigned char* data, Py_ssize_t at, Py_ssize_t end, int depth
) except -1:
    if at < 0:
        return bool(test.decoded(None))
    end = _skip(data, at, end, depth)
    return bool(test.decoded(PyBytes_FromStringAndSize(<const char*>data + at, end - at)))


cdef int _order(Test test, const unsigned char* data, Py_ssize_t at, Py_ssize_t end) except -1:
    """Return how the value at *at* stands to the operand: before, equal, behind, or neither."""
    cdef int major = 0
    cdef int info = 0
    cdef uint64_t number = 0
    at = _head(data, at, end, &major, &info, &number)
    if major == TAG:
        return UNDECIDED
    if major == TEXT or major == BYTES:
        if number > <uint64_t>(end - at):
            _damaged()
        if test.operand != (OF_TEXT if major == TEXT else OF_BYTES):
            return UNORDERED
        return _order_bytes(data + at, <Py_ssize_t>number, test.name)
    if major == SIMPLE and info == NULL_VALUE:
        return EQUAL if test.operand == OF_NULL else UNORDERED
    if test.operand != OF_INTEGER and test.operand != OF_FLOAT:
        return UNORDERED
    if major == UINT:
        return _order_integer(test, number, False)
    if major == NEGATIVE:
        return _order_integer(test, number, True)
    if major != SIMPLE:
        return UNORDERED
    if info == FALSE or info == TRUE:
        return _order_integer(test, info == TRUE, False)
    if FLOAT16 <= info <= FLOAT64:
        return _order_float(test, _float(info, number))
    return UNDECIDED


cdef inline int _order_bytes(const unsigned char* data, Py_ssize_t size, bytes operand) noexcept:
    cdef Py_ssize_t other = PyBytes_GET_SIZE(operand)
    cdef int order = memcmp(data, PyBytes_AS_STRING(operand), min(size, other))
    if order == 0:
        order = (size > other) - (size < other)
    return EQUAL if order == 0 else LESS if order < 0 else GREATER


cdef int _order_integer(Test test, uint64_t magnitude, bint negative) noexcept:
    """Compare magnitude, or -1 - magnitude, with the operand."""
    cdef int64_t value
    if magnitude >> 63:
        if test.operand == OF_FLOAT:
            return UNDECIDED
        return LESS if negative else GREATER
    value = -1 - <int64_t>magnitude if negative else <int64_t>magnitude
    if test.operand == OF_INTEGER:
        return EQUAL if value == test.integer else LESS if value < test.integer else GREATER
    if value > EXACT or value < -EXACT:
        return UNDECIDED
    return _order_doubles(<double>value, test.real)


cdef int _order_float(Test test, double value) noexcept:
    if test.operand == OF_FLOAT:
        return _order_doubles(value, test.real)
    if test.integer > EXACT or test.integer < -EXACT:
        return UNDECIDED
    return _order_doubles(value, <double>test.integer)


cdef inline int _order_doubles(double value, double operand) noexcept:
    if value == operand:
        return EQUAL
    if value < operand:
        return LESS
    return GREATER if value > operand else UNORDERED


cdef double _float(int info, uint64_t number) noexcept:
    """Return the float of 2, 4 or 8 bytes that *number* has the bits of."""
    cdef uint32_t narrow = <uint32_t>number
    cdef int exponent = <int>(number >> 10 & 0x1F)
    cdef float single = 0
    cdef double real = <double>(number & 0x3FF)
    if info == FLOAT64:
        memcpy(&real, &number, 8)
        return real
    if info == FLOAT32:
        memcpy(&single, &narrow, 4)
        return single
    if exponent == 0x1F:
        real = NAN if number & 0x3FF else INFINITY
    elif exponent:
        real = ldexp(real + 1024, exponent - 25)
    else:
        real = ldexp(real, -24)
    return -real if number >> 15 else real


# --- Values as CBOR: writing ------------------------------------------------------------------

cdef struct Out:
    unsigned char* data
    Py_ssize_t size
    Py_ssize_t room


def encode_value(value):
    """Return a dict as CBOR, or None unless it is made of exact None, bool, int of 64 bits,
    float, str, bytes, list, tuple and dict with str for keys, at most 200 levels deep.
    """
    cdef Out out
    out.data, out.size, out.room = NULL, 0, 0
    if type(value) is not dict:
        return None
    try:
        if not _write(&out, value, MAX_NESTING):
            return None
        return PyBytes_FromStringAndSize(<const char*>out.data, out.size)
    finally:
        PyMem_Free(out.data)


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
