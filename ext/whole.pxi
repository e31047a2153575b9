"""Whole ids and versions, as they stand in records, to and from CBOR."""

# On disk: DO NOT RENUMBER.
cdef enum:
    TAG_TEXT = 0x00
    TAG_UUID = 0x01
    TAG_BYTES = 0x02
    TAG_INTEGER = 0x03
    TAG_COUNTED = 0x05

cdef enum:
    COUNT_DIGITS = 32
    TAIL_DIGITS = 16
    COUNTED_CHARS = COUNT_DIGITS + 1 + TAIL_DIGITS
    MAX_INTEGER_CHARS = 100

cdef uint64_t TAIL_END = 10_000_000_000_000_000


# --- writing ---------------------------------------------------------------------------------


cdef int _write_id(Out* out, object text) except -1:
    """Write a whole id or null; 0 if it is neither."""
    cdef unsigned char[1 + UUID_BYTES] part
    if type(text) is not str:
        return _write(out, text, 0) if text is None else 0
    if not _read_uuid(text, &part[1]):
        return _write_tagged_text(out, text)
    part[0] = TAG_UUID
    _write_head(out, BYTES, sizeof(part))
    memcpy(_room(out, sizeof(part)), part, sizeof(part))
    return 1


cdef int _write_tagged_text(Out* out, object text) except -1:
    cdef Py_ssize_t size = 0
    cdef const char* raw
    try:
        raw = PyUnicode_AsUTF8AndSize(text, &size)
    except UnicodeEncodeError:
        return 0
    _write_head(out, BYTES, 1 + size)
    _room(out, 1)[0] = TAG_TEXT
    memcpy(_room(out, size), raw, size)
    return 1


cdef int _write_version(Out* out, object version) except -1:
    cdef bytes digits
    cdef Py_ssize_t size
    cdef unsigned char* data
    if type(version) is str:
        return _write_counted(out, version) or _write_tagged_text(out, version)
    digits = b"%d" % version
    size = PyBytes_GET_SIZE(digits)
    if size > MAX_INTEGER_CHARS:
        return 0
    _write_head(out, BYTES, size + 4)
    data = _room(out, size + 4)
    data[0], data[1] = TAG_INTEGER, TAG_BYTES
    memcpy(data + 2, PyBytes_AS_STRING(digits), size)
    data[size + 2], data[size + 3] = 0, 1
    return 1


cdef int _write_counted(Out* out, str version) except -1:
    """Write a version of 32 digits, a dot and 16 digits as two numbers; 0 if it is not so."""
    cdef const unsigned char* chars
    cdef unsigned char[19] part
    cdef uint64_t count = 0
    cdef uint64_t tail = 0
    cdef int size
    if PyUnicode_GET_LENGTH(version) != COUNTED_CHARS or not PyUnicode_IS_ASCII(version):
        return 0
    chars = PyUnicode_1BYTE_DATA(version)
    if chars[COUNT_DIGITS] != c".":
        return 0
    if not _read_digits(chars, COUNT_DIGITS, &count):
        return 0
    if not _read_digits(chars + COUNT_DIGITS + 1, TAIL_DIGITS, &tail):
        return 0
    part[0] = TAG_COUNTED
    size = 1 + _put_uint(part + 1, count)
    size += _put_uint(part + size, tail)
    _write_head(out, BYTES, size)
    memcpy(_room(out, size), part, size)
    return 1


cdef bint _read_digits(const unsigned char* chars, int count, uint64_t* number) noexcept:
    """Read decimal digits; whether they are digits, and of a number of 64 bits."""
    cdef int at
    cdef uint64_t digit
    for at in range(count):
        if not c"0" <= chars[at] <= c"9":
            return False
        digit = chars[at] - c"0"
        if number[0] > (<uint64_t>0xFFFF_FFFF_FFFF_FFFF - digit) // 10:
            return False
        number[0] = number[0] * 10 + digit
    return True


# --- reading ---------------------------------------------------------------------------------


cdef Py_ssize_t _count(In* source, int major):
    """Return the count in a head of this major type, -1 if there is no such head."""
    cdef int info
    cdef Py_ssize_t number = 0
    cdef int size = 0
    if source.at >= source.size or source.data[source.at] >> 5 != major:
        return -1
    info = source.data[source.at] & 0x1F
    source.at += 1
    if info < 24:
        number = info
    elif info < 27:
        size = 1 << (info - 24)
    else:
        return -1
    if size > source.size - source.at:
        return -1
    while size:
        size -= 1
        number = number << 8 | source.data[source.at]
        source.at += 1
    return number if number <= source.size - source.at else -1


cdef Py_ssize_t _bytes(In* source, const unsigned char** data):
    """Return the size of the bytes that begin here, which *data* then points to; -1 if none do."""
    cdef Py_ssize_t size = _count(source, BYTES)
    if size >= 0:
        data[0] = source.data + source.at
        source.at += size
    return size


cdef object _read_id(In* source):
    """Return a whole id or None, `_OTHER` if neither is here."""
    cdef const unsigned char* data = NULL
    cdef char[UUID_CHARS] text
    cdef Py_ssize_t size
    if source.at < source.size and source.data[source.at] == (SIMPLE << 5 | NULL_VALUE):
        source.at += 1
        return None
    size = _bytes(source, &data)
    if size == 1 + UUID_BYTES and data[0] == TAG_UUID:
        _write_uuid(data + 1, text)
        return PyUnicode_DecodeUTF8(text, UUID_CHARS, NULL)
    return _tagged_text(data, size)


cdef object _tagged_text(const unsigned char* data, Py_ssize_t size):
    if size < 1 or data[0] != TAG_TEXT:
        return _OTHER
    try:
        return PyUnicode_DecodeUTF8(<const char*>data + 1, size - 1, NULL)
    except UnicodeDecodeError:
        return _OTHER


cdef object _counted(const unsigned char* data, Py_ssize_t size):
    cdef char[COUNTED_CHARS] text
    cdef uint64_t count = 0
    cdef uint64_t tail = 0
    cdef Py_ssize_t at = _take_uint(data, 1, size, &count)
    if at > 0:
        at = _take_uint(data, at, size, &tail)
    if at != size or tail >= TAIL_END:
        return _OTHER
    for at in range(COUNT_DIGITS):
        text[COUNT_DIGITS - 1 - at] = <char>(c"0" + count % 10)
        count //= 10
    text[COUNT_DIGITS] = c"."
    for at in range(TAIL_DIGITS):
        text[COUNTED_CHARS - 1 - at] = <char>(c"0" + tail % 10)
        tail //= 10
    return PyUnicode_DecodeUTF8(text, COUNTED_CHARS, NULL)


cdef object _integer(const unsigned char* data, Py_ssize_t size):
    """Return a version that is a number as `_write_version` writes it."""
    cdef Py_ssize_t at
    if size > MAX_INTEGER_CHARS or data[1] != TAG_BYTES or data[size - 2] or data[size - 1] != 1:
        return _OTHER
    for at in range(2, size - 2):
        if not c"0" <= data[at] <= c"9" and not (at == 2 and data[at] == c"-" and size > 5):
            return _OTHER
    return int((<const char*>data)[2:size - 2])


cdef Py_ssize_t _take_uint(
    const unsigned char* data, Py_ssize_t at, Py_ssize_t size, uint64_t* number
) noexcept:
    """Read the number at *at*; return where it ends, -1 if it is damaged."""
    cdef Py_ssize_t end
    if at >= size or data[at] > 8 or data[at] >= size - at or data[at] and not data[at + 1]:
        return -1
    end = at + 1 + data[at]
    number[0] = 0
    for at in range(at + 1, end):
        number[0] = number[0] << 8 | data[at]
    return end
