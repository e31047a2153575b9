# cython: language_level=3, boundscheck=False, wraparound=False, autotestdict=False
"""The records of checkpoints, packed and unpacked in one pass.

Only what is usual is done here; of anything else nothing is said, and `lgkv/checkpoints/heads.py`
does it, which has the same functions in Python. `docs/FORMAT.md` describes the bytes. Nothing here
keeps state or does I/O.
"""

include "plain.pxi"
include "uuid.pxi"

from cpython.dict cimport PyDict_GetItem, PyDict_SetItem
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE

# On disk: DO NOT RENUMBER.
cdef enum:
    TAG_TEXT = 0x00
    TAG_UUID = 0x01
    TAG_BYTES = 0x02
    TAG_INTEGER = 0x03
    TAG_COUNTED = 0x05

cdef enum:
    FIELDS = 11
    COUNT_DIGITS = 32
    TAIL_DIGITS = 16
    COUNTED_CHARS = COUNT_DIGITS + 1 + TAIL_DIGITS
    MAX_INTEGER_CHARS = 100

cdef uint64_t TAIL_END = 10_000_000_000_000_000
cdef uint64_t NUMBER_END = <uint64_t>1 << 63


# --- packing ---------------------------------------------------------------------------------


def pack_head(head, list changes not None, frame):
    """Return the body of a checkpoint's record, or None if something in it is unusual."""
    cdef Out out
    cdef Out rest
    out.data, out.size, out.room = NULL, 0, 0
    rest.data, rest.size, rest.room = NULL, 0, 0
    id_, parent, created_us, run, payload, _, seen, delta, _ = head
    kind, raw = payload
    cdef dict table = {}
    try:
        if not (_write_entries(&rest, changes, table) and _write_seen(&rest, seen, table)
                and _write(&rest, delta, 1)):
            return None
        _write_head(&out, ARRAY, FIELDS)
        if not (_write_id(&out, id_) and _write_id(&out, parent) and _write(&out, created_us, 0)
                and _write_id(&out, run) and _write(&out, kind, 0) and _write(&out, raw, 0)
                and _write_table(&out, table) and _write(&out, frame, 0)):
            return None
        memcpy(_room(&out, rest.size), rest.data, rest.size)
        return PyBytes_FromStringAndSize(<const char*>out.data, out.size)
    finally:
        PyMem_Free(out.data)
        PyMem_Free(rest.data)


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


cdef int _write_table(Out* out, dict table) except -1:
    _write_head(out, ARRAY, len(table))
    for version in table:
        if not _write_version(out, version):
            return 0
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


cdef int _write_place(Out* out, object version, dict table) except -1:
    """Write the position of a version in the table, where it is added if it is new."""
    cdef PyObject* place
    if type(version) is not str and type(version) is not int:
        return 0
    place = PyDict_GetItem(table, version)
    if place != NULL:
        return _write(out, <object>place, 0)
    PyDict_SetItem(table, version, len(table))
    return _write(out, len(table) - 1, 0)


cdef int _write_entries(Out* out, list entries, dict table) except -1:
    cdef tuple entry
    cdef Py_ssize_t at
    _write_head(out, ARRAY, 3 * PyList_GET_SIZE(entries))
    for at in range(PyList_GET_SIZE(entries)):
        entry = <tuple?><object>PyList_GET_ITEM(entries, at)
        if not (_write(out, <object>PyTuple_GET_ITEM(entry, 0), 0)
                and _write_place(out, <object>PyTuple_GET_ITEM(entry, 1), table)
                and _write(out, <object>PyTuple_GET_ITEM(entry, 2), 0)):
            return 0
    return 1


cdef int _write_seen(Out* out, object seen, dict table) except -1:
    if seen is None:
        return _write(out, None, 0)
    _write_head(out, ARRAY, len(seen))
    for node, of in seen:
        _write_head(out, ARRAY, 1 + 2 * len(of))
        if not _write(out, node, 0):
            return 0
        for channel, version in of:
            if not (_write(out, channel, 0) and _write_place(out, version, table)):
                return 0
    return 1


# --- unpacking -------------------------------------------------------------------------------


def unpack_head(bytes body not None):
    """Return what `pack_head` made *body* from, or None if something in it is unusual.

    That is (id, parent, created_us, run_id, payload, channels, seen, delta, frame).
    """
    cdef In source
    cdef Py_ssize_t count = 0
    source.data = <const unsigned char*>PyBytes_AS_STRING(body)
    source.at, source.size = 0, PyBytes_GET_SIZE(body)
    if _count(&source, ARRAY) != FIELDS:
        return None
    id_, parent = _read_id(&source), _read_id(&source)
    created_us = _read(&source, 0)
    run = _read_id(&source)
    kind, raw = _read(&source, 0), _read(&source, 0)
    known = _read_table(&source)
    frame = _read(&source, 0)
    if not (type(id_) is str and type(created_us) is int and type(kind) is str
            and type(raw) is bytes and known is not None and type(frame) is int
            and parent is not _OTHER and run is not _OTHER and 0 <= frame < NUMBER_END):
        return None
    channels = _read_entries(&source, known)
    seen = _read_seen(&source, known)
    count = _count(&source, ARRAY)
    delta = _read_numbers(&source, count)
    if channels is None or seen is _OTHER or delta is None or source.at != source.size:
        return None
    return id_, parent, created_us, run, (kind, raw), channels, seen, delta, frame


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


cdef list _read_table(In* source):
    cdef list known = []
    cdef const unsigned char* data = NULL
    cdef Py_ssize_t count = _count(source, ARRAY)
    cdef Py_ssize_t size
    if count < 0:
        return None
    while count:
        count -= 1
        size = _bytes(source, &data)
        version = _OTHER
        if size > 1 and data[0] == TAG_COUNTED:
            version = _counted(data, size)
        elif size > 4 and data[0] == TAG_INTEGER:
            version = _integer(data, size)
        elif size > 0:
            version = _tagged_text(data, size)
        if version is _OTHER:
            return None
        known.append(version)
    return known


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


cdef list _read_numbers(In* source, Py_ssize_t count):
    """Return numbers of names, None unless so many are here."""
    cdef list numbers = []
    if count < 0:
        return None
    while count:
        count -= 1
        number = _read(source, 0)
        if type(number) is not int or not 0 <= number < NUMBER_END:
            return None
        numbers.append(number)
    return numbers


cdef list _read_entries(In* source, list known):
    cdef list entries = []
    cdef Py_ssize_t count = _count(source, ARRAY)
    if count < 0 or count % 3:
        return None
    while count:
        count -= 3
        channel, place, packed = _read(source, 0), _read(source, 0), _read(source, 0)
        if not (type(channel) is int and 0 <= channel < NUMBER_END and type(place) is int
                and 0 <= place < len(known) and (packed is None or type(packed) is bytes)):
            return None
        entries.append((channel, known[place], packed))
    return entries


cdef object _read_seen(In* source, list known):
    """Return pairs by node, None for null, `_OTHER` if neither is here."""
    cdef list seen = []
    cdef list numbers
    cdef Py_ssize_t count, size, at
    if source.at < source.size and source.data[source.at] == (SIMPLE << 5 | NULL_VALUE):
        source.at += 1
        return None
    count = _count(source, ARRAY)
    if count < 0:
        return _OTHER
    while count:
        count -= 1
        size = _count(source, ARRAY)
        numbers = _read_numbers(source, size)
        if numbers is None or size % 2 == 0:
            return _OTHER
        pairs = []
        for at in range(1, size, 2):
            if numbers[at + 1] >= len(known):
                return _OTHER
            pairs.append((numbers[at], known[numbers[at + 1]]))
        seen.append((numbers[0], pairs))
    return seen


# --- how to make a value ---------------------------------------------------------------------


def unpack_numbers(bytes packed not None, Py_ssize_t at) -> list:
    """Return the numbers from *at* on; ValueError if they are damaged."""
    cdef const unsigned char* data = <const unsigned char*>PyBytes_AS_STRING(packed)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(packed)
    cdef uint64_t number = 0
    cdef list numbers = []
    while at < size:
        at = _take_uint(data, at, size, &number)
        if at < 0:
            raise ValueError("damaged number in a key")
        numbers.append(number)
    return numbers


# --- versions from outside -------------------------------------------------------------------


def has_usual_versions(versions) -> bool:
    """Whether *versions* is a dict of exact str to exact str or int of 64 bits."""
    cdef PyObject* name = NULL
    cdef PyObject* version = NULL
    cdef Py_ssize_t at = 0
    cdef int overflow = 0
    if type(versions) is not dict:
        return False
    while PyDict_Next(versions, &at, &name, &version):
        if type(<object>name) is not str:
            return False
        if type(<object>version) is not str:
            if type(<object>version) is not int:
                return False
            PyLong_AsLongLongAndOverflow(<object>version, &overflow)
            if overflow:
                return False
    return True


def has_usual_seen(seen) -> bool:
    """Whether *seen* is a dict of exact str to what has usual versions."""
    if type(seen) is not dict:
        return False
    for node, of in seen.items():
        if type(node) is not str or not has_usual_versions(of):
            return False
    return True
