"""Parts of keys: numbers, and UUIDs as text, canonical and in lower case, and as 16 bytes."""

cdef extern from "Python.h":
    bint PyUnicode_IS_ASCII(str text)
    Py_ssize_t PyUnicode_GET_LENGTH(str text)
    const unsigned char* PyUnicode_1BYTE_DATA(str text)

cdef enum:
    UINT_BYTES = 9
    UUID_BYTES = 16
    UUID_CHARS = 36

cdef const char* HEX_DIGITS = b"0123456789abcdef"


cdef bint _read_uuid(str text, unsigned char* out):
    cdef const unsigned char* chars
    cdef int at, digit
    cdef int digits = 0
    if not PyUnicode_IS_ASCII(text) or PyUnicode_GET_LENGTH(text) != UUID_CHARS:
        return False
    chars = PyUnicode_1BYTE_DATA(text)
    for at in range(UUID_CHARS):
        if at == 8 or at == 13 or at == 18 or at == 23:
            if chars[at] != c"-":
                return False
            continue
        digit = _hex_digit(chars[at])
        if digit < 0:
            return False
        if digits & 1:
            out[digits >> 1] |= <unsigned char>digit
        else:
            out[digits >> 1] = <unsigned char>(digit << 4)
        digits += 1
    return True


cdef inline int _hex_digit(unsigned char char) noexcept:
    if c"0" <= char <= c"9":
        return char - c"0"
    if c"a" <= char <= c"f":
        return char - c"a" + 10
    return -1


cdef void _write_uuid(const unsigned char* data, char* text) noexcept:
    """Write the 36 characters of the UUID whose 16 bytes are at *data*."""
    cdef int at
    cdef int length = 0
    for at in range(UUID_BYTES):
        text[length] = HEX_DIGITS[data[at] >> 4]
        text[length + 1] = HEX_DIGITS[data[at] & 0x0F]
        length += 2
        if at == 3 or at == 5 or at == 7 or at == 9:
            text[length] = c"-"
            length += 1


cdef int _put_uint(unsigned char* out, uint64_t number) noexcept:
    """Write a number as a part of a key; return how many bytes that takes."""
    cdef int size = 0
    cdef int at
    while size < 8 and number >> (8 * size):
        size += 1
    out[0] = <unsigned char>size
    for at in range(size):
        out[size - at] = <unsigned char>(number >> (8 * at) & 0xFF)
    return 1 + size


cdef uint64_t _uint(number) except? 0:
    if not isinstance(number, int):
        raise TypeError(f"not an integer: {number!r}")
    try:
        return number
    except OverflowError:
        raise ValueError(f"not an unsigned 64-bit number: {number}") from None
