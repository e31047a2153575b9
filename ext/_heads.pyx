# cython: language_level=3, boundscheck=False, wraparound=False, autotestdict=False
"""The records of checkpoints, packed and unpacked in one pass.

Only what is usual is done here; of anything else nothing is said, and `lgkv/checkpoints/heads.py`
does it, which has the same functions in Python. `docs/FORMAT.md` describes the bytes. Nothing here
keeps state or does I/O.
"""

include "plain.pxi"
include "parts.pxi"
include "whole.pxi"

from cpython.dict cimport PyDict_GetItem, PyDict_SetItem
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.mem cimport PyMem_Malloc
from cpython.tuple cimport PyTuple_GET_ITEM

cdef enum:
    FIELDS = 11
    INLINE = 1  # on disk: DO NOT RENUMBER

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


cdef int _write_table(Out* out, dict table) except -1:
    _write_head(out, ARRAY, len(table))
    for version in table:
        if not _write_version(out, version):
            return 0
    return 1


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


# --- under their names -----------------------------------------------------------------------


def name_channels(list channels not None, list seen, names) -> tuple:
    """Return versions and values by the channels' names, and the versions seen by the nodes'.

    A value that lies in the record is its payload, any other, or an unusual one, as it is
    packed. IndexError if a channel has no name.
    """
    cdef dict versions = {}
    cdef dict values = {}
    cdef dict of_nodes = None
    cdef tuple entry
    cdef list known = list(names)
    for entry in channels:
        channel, version, packed = entry
        name = _name(known, channel)
        versions[name] = version
        if packed is not None:
            values[name] = _payload_in(packed)
    if seen is not None:
        of_nodes = {}
        for entry in seen:
            node, of = entry
            of_nodes[_name(known, node)] = {_name(known, place): at for place, at in of}
    return versions, values, of_nodes


cdef object _name(list names, object number):
    cdef uint64_t at = number
    if at >= <uint64_t>PyList_GET_SIZE(names):
        raise IndexError(number)
    return <object>PyList_GET_ITEM(names, <Py_ssize_t>at)


cdef object _payload_in(bytes packed):
    cdef const unsigned char* data = <const unsigned char*>PyBytes_AS_STRING(packed)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(packed)
    cdef Py_ssize_t at, end
    if size < 3 or data[0] != INLINE:
        return packed
    end = 3 + (data[1] << 8 | data[2])
    if end > size:
        return packed
    for at in range(3, end):
        if data[at] > 0x7F:
            return packed
    kind = PyUnicode_DecodeUTF8(<const char*>data + 3, end - 3, NULL)
    return kind, PyBytes_FromStringAndSize(<const char*>data + end, size - end)


# --- how to make a value ---------------------------------------------------------------------


def pack_extents(unsigned char form, frame_bytes, log_bytes, tuple extents not None) -> bytes:
    """Return a form, two numbers, and extents, which are three numbers each."""
    cdef Py_ssize_t size = 1
    cdef unsigned char* out
    out = <unsigned char*>PyMem_Malloc(1 + UINT_BYTES * 3 * (1 + len(extents)))
    if out == NULL:
        raise MemoryError
    try:
        out[0] = form
        size += _put_uint(out + size, _uint(frame_bytes))
        size += _put_uint(out + size, _uint(log_bytes))
        size += _put_uint(out + size, len(extents))
        for chain, first, count in extents:
            size += _put_uint(out + size, _uint(chain))
            size += _put_uint(out + size, _uint(first))
            size += _put_uint(out + size, _uint(count))
        return PyBytes_FromStringAndSize(<const char*>out, size)
    finally:
        PyMem_Free(out)


def unpack_extents(bytes packed not None, Py_ssize_t at, Py_ssize_t limit, type kind not None):
    """Return two numbers from *at* on, and the extents behind them, each as a *kind* of tuple.

    ValueError if they are damaged, not as many as they say, or more than *limit*.
    """
    cdef const unsigned char* data = <const unsigned char*>PyBytes_AS_STRING(packed)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(packed)
    cdef uint64_t[3] numbers
    cdef uint64_t frame_bytes, log_bytes, count
    cdef list extents = []
    at = _take_three(data, at, size, numbers)
    frame_bytes, log_bytes, count = numbers[0], numbers[1], numbers[2]
    while at < size:
        at = _take_three(data, at, size, numbers)
        if numbers[1] >= NUMBER_END or numbers[2] >= NUMBER_END - numbers[1]:
            raise ValueError("an extent that no chain has")
        extents.append(tuple.__new__(kind, (numbers[0], numbers[1], numbers[2])))
    if len(extents) != <Py_ssize_t>count or len(extents) > limit:
        raise ValueError("the extents are not as many as they say")
    return frame_bytes, log_bytes, tuple(extents)


cdef Py_ssize_t _take_three(
    const unsigned char* data, Py_ssize_t at, Py_ssize_t size, uint64_t* numbers
) except -1:
    """Read three numbers; return where they end."""
    cdef int which
    for which in range(3):
        at = _take_uint(data, at, size, &numbers[which])
        if at < 0:
            raise ValueError("damaged numbers")
    return at


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
