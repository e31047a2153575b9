"""Tests of encoded values: what a filter is compiled to."""

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
