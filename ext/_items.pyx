# cython: language_level=3, boundscheck=False, wraparound=False, autotestdict=False
"""The hot loops of the store: packs of items, and filters on values as they are encoded.

A *pack* holds the entries of several items, one behind the other. `lgkv/memory/items.py` has
the same functions in Python, with an underscore before their names. A `Test` says of a value
in CBOR what the predicate of `lgkv.filters` says of the value itself, and makes no objects of
it. Nothing here keeps state or does I/O.
"""

cimport cython
from cpython.datetime cimport datetime_new, get_utc, import_datetime
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.math cimport INFINITY, NAN, ldexp
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from xxhash import xxh3_64_intdigest

cdef extern from "Python.h":
    int PyBUF_READ
    object PyMemoryView_FromMemory(char* data, Py_ssize_t size, int flags)
    double PyFloat_AS_DOUBLE(object number)
    long long PyLong_AsLongLongAndOverflow(object number, int* overflow) except? -1

import_datetime()

include "cbor.pxi"
include "tests.pxi"

# On disk: DO NOT RENUMBER.
cdef enum:
    AT_UPDATED = 4
    AT_SEQUENCE = 12
    AT_CREATED = 20
    AT_TTL = 28
    AT_DEADLINE = 36
    AT_KEY_BYTES = 44
    HEADER_BYTES = 48
    PLACE_BYTES = 16
    PACK_KIND = 0x3A
    ENVELOPE_BYTES = 9

cdef enum:
    DAY_SECONDS = 86_400
    ERA_DAYS = 146_097  # of 400 years
    ERA_BEFORE_1970 = 719_468  # days from the first of March of year 0

cdef bytes ITEM_KIND = b"\x32"

cdef uint64_t LAST_MICROSECOND = 253_402_300_799_999_999


# --- Times ------------------------------------------------------------------------------------


def utc_time(uint64_t microseconds):
    """Return the time that is so long after 1970 began, aware, in UTC.

    OverflowError beyond the calendar.
    """
    return _utc_time(microseconds)


cdef object _utc_time(uint64_t microseconds):
    """Count days from the first of March, so that a leap day ends its year."""
    if microseconds > LAST_MICROSECOND:
        raise OverflowError("date value out of range")
    cdef uint64_t seconds = microseconds // 1_000_000
    cdef int clock = <int>(seconds % DAY_SECONDS)
    cdef int days = <int>(seconds // DAY_SECONDS) + ERA_BEFORE_1970
    cdef int era = days // ERA_DAYS
    cdef int day_of_era = days % ERA_DAYS
    cdef int year = (
        day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096
    ) // 365
    cdef int day = day_of_era - (365 * year + year // 4 - year // 100)
    cdef int month = (5 * day + 2) // 153
    day = day - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9
    return datetime_new(
        year + era * 400 + (month <= 2), month, day, clock // 3600, clock // 60 % 60, clock % 60,
        <int>(microseconds % 1_000_000), get_utc(),
    )


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


def unpack_entry(
    bytes pack not None, Py_ssize_t at
) -> tuple[int, int, int, int, int, bytes, bytes]:
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


def pack_of(bytes suffix not None, bytes body not None) -> tuple[bytes, int]:
    """Return the key of the pack that an item is in, and its sequence, by the item's record.

    *suffix* is what the record's key ends in, *body* has the place of the pack and the sequence.
    """
    if PyBytes_GET_SIZE(body) != PLACE_BYTES + 8 or not suffix:
        raise ValueError("the item's place does not have its size")
    cdef const unsigned char* data = <const unsigned char*>PyBytes_AS_STRING(body)
    return _pack_key(suffix, data), _big(data + PLACE_BYTES, 8)


cdef bytes _pack_key(bytes suffix, const unsigned char* place):
    """Return the key of the pack at a place of 16 bytes; *suffix* is not empty."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(suffix)
    cdef Py_ssize_t node_bytes = min(
        1 + <Py_ssize_t>(<unsigned char>PyBytes_AS_STRING(suffix)[0]), size
    )
    cdef bytes key = PyBytes_FromStringAndSize(NULL, 1 + node_bytes + PLACE_BYTES)
    cdef unsigned char* out = <unsigned char*>PyBytes_AS_STRING(key)
    out[0] = PACK_KIND
    memcpy(out + 1, PyBytes_AS_STRING(suffix), node_bytes)
    memcpy(out + 1 + node_bytes, place, PLACE_BYTES)
    return key


def read_entry(
    bytes pack not None, uint64_t sequence
) -> tuple[int, int, int, int, int, bytes, bytes] | None:
    """Return what `unpack_entry` does of the entry with this sequence; None if it is not there."""
    cdef Py_ssize_t at = _find(pack, sequence)
    return None if at < 0 else unpack_entry(pack, at)


# --- Reading an item --------------------------------------------------------------------------


def fetch_item(get, database, decode, unsigned int table, bytes suffix not None):
    """Return an item as a caller sees it, by its record and its pack, where LMDB has mapped them.

    It is the text of the key, the value, when it was made and updated and ends, and the last
    and the time to live in microseconds. *get* is that of a transaction, *decode* makes a
    mapping of bytes, or gives None. The result is empty if there is no such item, and None if
    something is unusual: what it is, and of which record, the reference says.
    """
    cdef uint64_t sequence
    cdef Py_ssize_t at
    cdef const unsigned char* entry
    cdef bytes key = ITEM_KIND + suffix
    cdef Py_buffer record
    if not suffix:
        return None
    found = get(key, None, database)
    if found is None:
        return ()
    PyObject_GetBuffer(found, &record, PyBUF_SIMPLE)
    try:
        if record.len != ENVELOPE_BYTES + PLACE_BYTES + 8 or not _is_whole(table, key, &record):
            return None
        key = _pack_key(suffix, <const unsigned char*>record.buf + 1)
        sequence = _big(<const unsigned char*>record.buf + 1 + PLACE_BYTES, 8)
    finally:
        PyBuffer_Release(&record)
    found = get(key, None, database)
    if found is None:
        return None
    PyObject_GetBuffer(found, &record, PyBUF_SIMPLE)
    try:
        if record.len < ENVELOPE_BYTES or not _is_whole(table, key, &record):
            return None
        entry = <const unsigned char*>record.buf + 1
        at = _find_in(entry, record.len - ENVELOPE_BYTES, sequence)
        if at < 0:
            return None
        return _stored(entry + at, decode)
    except (ValueError, OverflowError):
        return None
    finally:
        PyBuffer_Release(&record)


cdef bint _is_whole(unsigned int table, bytes key, Py_buffer* record) except -1:
    """Whether a record has no flags, and its checksum."""
    cdef const unsigned char* data = <const unsigned char*>record.buf
    cdef Py_ssize_t size = record.len - ENVELOPE_BYTES
    cdef uint64_t checksum
    if data[0]:
        return False
    body = PyMemoryView_FromMemory(<char*>data + 1, size, PyBUF_READ)
    checksum = xxh3_64_intdigest(body, xxh3_64_intdigest(key, table << 8))
    return checksum == _little(data + 1 + size, 8)


cdef object _stored(const unsigned char* entry, object decode):
    cdef Py_ssize_t size = _little(entry, 4)
    cdef Py_ssize_t start = HEADER_BYTES + <Py_ssize_t>_little(entry + AT_KEY_BYTES, 4)
    cdef uint64_t updated_us = _little(entry + AT_UPDATED, 8)
    cdef uint64_t created_us = _little(entry + AT_CREATED, 8)
    cdef uint64_t deadline_us = _little(entry + AT_DEADLINE, 8)
    key = PyUnicode_DecodeUTF8(
        <const char*>entry + HEADER_BYTES, start - HEADER_BYTES, "surrogatepass"
    )
    value = decode(PyBytes_FromStringAndSize(<const char*>entry + start, size - start))
    if value is None:
        return None
    updated = _utc_time(updated_us)
    created = updated if created_us == updated_us else _utc_time(created_us)
    ends = _utc_time(deadline_us) if deadline_us else None
    return key, value, created, updated, ends, deadline_us, _little(entry + AT_TTL, 8)


def entry_place(bytes pack not None, Py_ssize_t at) -> tuple[int, int]:
    """Return when the entry at *at* was updated, and its sequence."""
    cdef const unsigned char* data = <const unsigned char*>PyBytes_AS_STRING(pack)
    _entry_end(data, at, PyBytes_GET_SIZE(pack))
    return _little(data + at + AT_UPDATED, 8), _little(data + at + AT_SEQUENCE, 8)


def find_entry(bytes pack not None, uint64_t sequence) -> int:
    """Return where the entry with this sequence stands, -1 if it is not there."""
    return _find(pack, sequence)


cdef Py_ssize_t _find(bytes pack, uint64_t sequence) except -2:
    return _find_in(
        <const unsigned char*>PyBytes_AS_STRING(pack), PyBytes_GET_SIZE(pack), sequence
    )


cdef Py_ssize_t _find_in(
    const unsigned char* data, Py_ssize_t size, uint64_t sequence
) except -2:
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
