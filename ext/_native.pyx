# cython: language_level=3, boundscheck=False, wraparound=False, autotestdict=False
"""The hot loops of the key codec and of the record envelope.

Each function is the twin of the one of the same name, with an underscore before it, in
`lgkv/keys.py` and `lgkv/layout.py`, and gives the same bytes and raises the same errors.
`docs/FORMAT.md` describes the bytes. Nothing here keeps state or does I/O.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from libc.stdint cimport uint64_t
from libc.string cimport memchr, memcpy

from hashlib import blake2b

from xxhash import xxh3_64_intdigest

cdef extern from "Python.h":
    str PyUnicode_FromObject(object text)

include "parts.pxi"

# On disk: DO NOT RENUMBER.
cdef enum:
    TAG_UUID = 0x01
    TAG_BYTES = 0x02
    END_WHOLE = 0x01
    END_CUT = 0x02
    ESCAPE = 0xFF
    TEXT_LIMIT_BYTES = 200
    DIGEST_BYTES = 16
    CHECKSUM_BYTES = 8
    ENVELOPE_BYTES = 1 + CHECKSUM_BYTES


# --- Keys: numbers ---------------------------------------------------------------------------


cdef enum:
    KEY_NUMBERS = 4


def pack_uint(number) -> bytes:
    """Return *number* (0 to 2**64 - 1) as a length byte and that many big-endian bytes."""
    cdef unsigned char[UINT_BYTES] buffer
    cdef int size = _put_uint(buffer, _uint(number))
    return PyBytes_FromStringAndSize(<char*>buffer, size)


def pack_key(thread, kind, *numbers) -> bytes:
    """Return the key of *kind* in a thread: its number, the kind, and up to three more numbers."""
    cdef unsigned char[UINT_BYTES * KEY_NUMBERS + 1] buffer
    cdef int size
    if len(numbers) >= KEY_NUMBERS:
        raise ValueError(f"too many numbers for a key: {len(numbers)}")
    size = _put_uint(buffer, _uint(thread))
    if _uint(kind) > 0xFF:
        raise ValueError(f"not a kind: {kind}")
    buffer[size] = <unsigned char>_uint(kind)
    size += 1
    for number in numbers:
        size += _put_uint(buffer + size, _uint(number))
    return PyBytes_FromStringAndSize(<char*>buffer, size)


def unpack_uint(bytes key not None, Py_ssize_t start) -> tuple[int, int]:
    """Return the number at *start* of *key* and where it ends; ValueError if it is damaged."""
    cdef const unsigned char* data = <const unsigned char*>PyBytes_AS_STRING(key)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(key)
    cdef Py_ssize_t end
    cdef uint64_t number = 0
    if start < 0 or start >= size or data[start] > 8 or data[start] >= size - start:
        raise ValueError("damaged number in a key")
    end = start + 1 + data[start]
    if data[start] and not data[start + 1]:  # a leading zero
        raise ValueError("damaged number in a key")
    start += 1
    while start < end:
        number = number << 8 | data[start]
        start += 1
    return number, end


# --- Keys: text ------------------------------------------------------------------------------


cdef enum:
    PART_BYTES = 1 + TEXT_LIMIT_BYTES + 2 + DIGEST_BYTES  # as long as a text can be in a key


def pack_bytes(bytes raw not None) -> bytes:
    """Return *raw* as a part that sorts as *raw* does: escaped, ended, and cut if long."""
    cdef unsigned char[PART_BYTES] part
    cdef Py_ssize_t length = _put_bytes(
        part, <const unsigned char*>PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw)
    )
    return PyBytes_FromStringAndSize(<char*>part, length)


cdef Py_ssize_t _put_bytes(
    unsigned char* part, const unsigned char* data, Py_ssize_t size
) except -1:
    """Write bytes as a part of a key; return how many that takes."""
    cdef Py_ssize_t length = 0
    cdef Py_ssize_t at = 0
    part[0] = TAG_BYTES
    if memchr(data, 0, size) == NULL:
        at = length = min(size, TEXT_LIMIT_BYTES)
        memcpy(&part[1], data, length)
    # Otherwise a NUL and its escape enter together or not at all.
    while at < size and length + (1 if data[at] else 2) <= TEXT_LIMIT_BYTES:
        length += 1
        part[length] = data[at]
        if data[at] == 0:
            length += 1
            part[length] = ESCAPE
        at += 1
    part[length + 1] = 0
    part[length + 2] = END_WHOLE if at == size else END_CUT
    length += 3
    if at < size:
        raw = PyBytes_FromStringAndSize(<const char*>data, size)
        digest = blake2b(raw, digest_size=DIGEST_BYTES).digest()
        memcpy(&part[length], PyBytes_AS_STRING(digest), DIGEST_BYTES)
        length += DIGEST_BYTES
    return length


def pack_text(text) -> bytes:
    """Return *text* as a part that sorts by code points, as Python's `str` does."""
    return pack_bytes(_exact(text).encode("utf-8", "surrogatepass"))


cdef str _exact(text):
    """Return *text* as a str that is of no subclass; TypeError if it is none."""
    if not isinstance(text, str):
        raise TypeError(f"not a str: {text!r}")
    return PyUnicode_FromObject(text)


def pack_numbered(number, text) -> bytes:
    """Return a key's part for *number*, and the one for *text* behind it."""
    cdef unsigned char[UINT_BYTES + PART_BYTES] key
    cdef Py_ssize_t length = _put_uint(key, _uint(number))
    cdef str exact = _exact(text)
    cdef bytes raw
    if PyUnicode_IS_ASCII(exact):
        length += _put_bytes(
            key + length, PyUnicode_1BYTE_DATA(exact), PyUnicode_GET_LENGTH(exact)
        )
    else:
        raw = exact.encode("utf-8", "surrogatepass")
        length += _put_bytes(
            key + length, <const unsigned char*>PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw)
        )
    return PyBytes_FromStringAndSize(<char*>key, length)


def unpack_bytes(bytes key not None, Py_ssize_t start) -> tuple[bytes, bool, int]:
    """Return the bytes at *start* of *key*, whether they are whole, and where the part ends.

    Of a cut part it gives what is left. ValueError if the part is damaged.
    """
    cdef const unsigned char* data = <const unsigned char*>PyBytes_AS_STRING(key)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(key)
    cdef Py_ssize_t escapes = 0
    cdef Py_ssize_t at, end
    cdef const unsigned char* found
    if start < 0 or start >= size or data[start] != TAG_BYTES:
        raise ValueError("damaged text in a key")
    start += 1
    at = start
    while True:
        found = <const unsigned char*>memchr(data + at, 0, size - at)
        if found == NULL or found + 1 >= data + size:
            raise ValueError("damaged text in a key")
        at = found - data
        if data[at + 1] != ESCAPE:
            break
        escapes += 1
        at += 2
    if data[at + 1] == END_WHOLE:
        return _unescape(data + start, at - start, escapes), True, at + 2
    end = at + 2 + DIGEST_BYTES
    if data[at + 1] != END_CUT or end > size:
        raise ValueError("damaged text in a key")
    return _unescape(data + start, at - start, escapes), False, end


cdef bytes _unescape(const unsigned char* data, Py_ssize_t size, Py_ssize_t escapes):
    cdef bytes raw
    cdef unsigned char* out
    cdef Py_ssize_t at = 0
    if escapes == 0:
        return PyBytes_FromStringAndSize(<const char*>data, size)
    raw = PyBytes_FromStringAndSize(NULL, size - escapes)
    out = <unsigned char*>PyBytes_AS_STRING(raw)
    while at < size:
        out[0] = data[at]
        out += 1
        at += 1 if data[at] else 2
    return raw


# --- Keys: ids -------------------------------------------------------------------------------


def pack_id(text) -> bytes:
    """Return a checkpoint id: a canonical lower-case UUID in 16 bytes, any other as text."""
    cdef unsigned char[1 + UUID_BYTES] part
    cdef str exact = _exact(text)
    part[0] = TAG_UUID
    if _read_uuid(exact, &part[1]):
        return PyBytes_FromStringAndSize(<char*>&part[0], 1 + UUID_BYTES)
    return pack_text(exact)


def unpack_id(bytes key not None, Py_ssize_t start) -> tuple[bytes, bool, int]:
    """Return the id at *start* of *key* as UTF-8, whether it is whole, and where it ends."""
    cdef const unsigned char* data = <const unsigned char*>PyBytes_AS_STRING(key)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(key)
    cdef char[UUID_CHARS] text
    if start < 0 or start >= size or data[start] != TAG_UUID:
        return unpack_bytes(key, start)
    if size - start < 1 + UUID_BYTES:
        raise ValueError("damaged id in a key")
    _write_uuid(data + start + 1, text)
    return PyBytes_FromStringAndSize(text, UUID_CHARS), True, start + 1 + UUID_BYTES


# --- Records ---------------------------------------------------------------------------------


def seal(unsigned int table, key, unsigned char flags, bytes body not None) -> bytes:
    """Return *body* in its envelope, with a checksum bound to the table, the key and the flags."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(body)
    cdef uint64_t checksum = _checksum(table, key, flags, body)
    cdef bytes record = PyBytes_FromStringAndSize(NULL, ENVELOPE_BYTES + size)
    cdef unsigned char* out = <unsigned char*>PyBytes_AS_STRING(record)
    cdef int at
    out[0] = flags
    memcpy(out + 1, PyBytes_AS_STRING(body), size)
    out += 1 + size
    for at in range(CHECKSUM_BYTES):
        out[at] = <unsigned char>(checksum >> (8 * at) & 0xFF)
    return record


def unseal(unsigned int table, key, record) -> tuple[int, bytes]:
    """Return the flags and the body of an envelope; ValueError if it does not check out."""
    cdef Py_buffer view
    PyObject_GetBuffer(record, &view, PyBUF_SIMPLE)
    try:
        return _unseal(table, key, <const unsigned char*>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)


cdef tuple _unseal(unsigned int table, object key, const unsigned char* data, Py_ssize_t size):
    cdef bytes body
    cdef uint64_t stored = 0
    cdef int at
    if size < ENVELOPE_BYTES:
        raise ValueError("the record is shorter than its envelope")
    for at in range(1, 1 + CHECKSUM_BYTES):
        stored = stored << 8 | data[size - at]
    body = PyBytes_FromStringAndSize(<const char*>data + 1, size - ENVELOPE_BYTES)
    if _checksum(table, key, data[0], body) != stored:
        raise ValueError("the checksum does not match")
    return data[0], body


cdef uint64_t _checksum(
    unsigned int table, object key, unsigned char flags, bytes body
) except? 0:
    return xxh3_64_intdigest(body, xxh3_64_intdigest(key, <uint64_t>table << 8 | flags))
