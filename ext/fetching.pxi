"""Having memory fetched before it is read: else a long list waits for it at each of its pieces.

Where the pieces of an element's node and of its clones lie is noted when a clone is made. What is
noted is only ever fetched, never read: if something else lies there by then, it does no harm.
"""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport uintptr_t
from libc.string cimport memcpy

include "prefetch.pxi"

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject *value)
    ctypedef struct PyDictObject:
        void *ma_keys
    ctypedef struct PyListObject:
        void *ob_item
    ctypedef struct PySetObject:
        Py_ssize_t mask
        void *table

cdef enum:
    LINE_BYTES = 64
    NODE_AHEAD = 5
    PLACES_AHEAD = 3
    PIECES_AHEAD = 1
    OBJECT_BYTES = 48
    SET_BYTES = 64
    SET_ENTRY_BYTES = 16
    TUPLE_BYTES = 24
    BEFORE_MODEL = 32  # where CPython keeps the pointer to a model's __dict__
    MODEL_SLOTS = 64
    TABLE_BYTES = 56
    TABLE_ENTRY_BYTES = 18  # of a dict: a key, a value, and an index, thinly filled


cdef void _note(Places *places, const void *start, Py_ssize_t size) noexcept:
    """Note the cache lines of a piece of memory, once each."""
    cdef intptr_t line = <intptr_t>(<uintptr_t>start // LINE_BYTES)
    cdef intptr_t end = <intptr_t>((<uintptr_t>start + size + LINE_BYTES - 1) // LINE_BYTES)
    cdef Py_ssize_t at
    for line in range(line, end):
        if places.count == MAX_PLACES or line - places.base != <int32_t>(line - places.base):
            return
        for at in range(places.count):
            if places.at[at] == line - places.base:
                break
        else:
            places.at[places.count] = <int32_t>(line - places.base)
            places.count += 1


cdef void _note_table(Places *places, PyObject *of) noexcept:
    cdef Py_ssize_t size = PyDict_Size(<object>of)
    _note(places, of, OBJECT_BYTES)
    if size:
        _note(places, (<PyDictObject *>of).ma_keys, TABLE_BYTES + size * TABLE_ENTRY_BYTES)


cdef void _note_node(Places *places, Node node) noexcept:
    """Note where what is read of a node lies, but for the node itself."""
    cdef Py_ssize_t at, size = 0 if node.children is None else PyTuple_GET_SIZE(node.children)
    if size:
        _note(places, <PyObject *>node.children, TUPLE_BYTES + 8 * size)
    for at in range(size):
        _note_inner(places, <Node>PyTuple_GET_ITEM(node.children, at))
    if node.template is not None:
        _note_table(places, <PyObject *>node.template)
    if node.extra is not None:
        _note_inner(places, node.extra)


cdef void _note_inner(Places *places, Node node) noexcept:
    if node is not _EMPTY_LIST and node is not _EMPTY_DICT:
        _note(places, <PyObject *>node, NODE_BYTES)
        _note_node(places, node)


cdef int _note_value(Places *places, Node node, value) except -1:
    """Note where what is compared of a value lies; what is not as the node has it is left out."""
    cdef Py_ssize_t at
    if node.kind == DICT and type(value) is dict:
        return _note_fields(places, node, <dict>value)
    if node.kind == LIST and type(value) is list:
        _note(places, <PyObject *>value, OBJECT_BYTES)
        if PyList_GET_SIZE(value):
            _note(places, (<PyListObject *>value).ob_item, 8 * PyList_GET_SIZE(value))
        for at in range(min(PyTuple_GET_SIZE(node.children), PyList_GET_SIZE(value))):
            _note_value(places, <Node>PyTuple_GET_ITEM(node.children, at), (<list>value)[at])
    if node.kind == MODEL and type(value) is node.leaf:
        _note(places, <char *><PyObject *>value - BEFORE_MODEL, BEFORE_MODEL + MODEL_SLOTS)
        _note_fields(places, node, generic_attribute(value, "__dict__"))
        if node.extra is not None:
            _note_fields(places, node.extra, generic_attribute(value, "__pydantic_extra__"))
    return 0


cdef int _note_fields(Places *places, Node node, dict value) except -1:
    cdef Py_ssize_t at
    if value is not None:
        _note_table(places, <PyObject *>value)
        for at in range(PyTuple_GET_SIZE(node.holes)):
            name = <object>PyTuple_GET_ITEM(node.holes, at)
            _note_value(places, <Node>PyTuple_GET_ITEM(node.children, at), value.get(name))
    return 0


cdef int _note_names(Places *places, set names) except -1:
    cdef PySetObject *of = <PySetObject *><PyObject *>names
    if names is not None:
        _note(places, of, SET_BYTES)
        _note(places, of.table, (of.mask + 1) * SET_ENTRY_BYTES)
    return 0


cdef Places *_kept(Places *noted, Places *old) noexcept:
    """Return a copy of what was noted, in place of an old one; NULL if there is no memory."""
    cdef Py_ssize_t size = sizeof(Places) - (MAX_PLACES - noted.count) * sizeof(int32_t)
    cdef Places *places
    PyMem_Free(old)
    places = <Places *>PyMem_Malloc(size)
    if places != NULL:
        memcpy(places, noted, size)
    return places


cdef int _note_lent(Node node) except -1:
    """Note where an element's node and the clone that was given out last lie."""
    cdef Places noted
    noted.base = <intptr_t>(<uintptr_t><PyObject *>node // LINE_BYTES)
    noted.count = 0
    if node.own == NULL:
        _note_node(&noted, node)
        noted.compared = noted.count
        node.own = _kept(&noted, NULL)
        noted.count = 0
    _note_value(&noted, node, node.lent)
    noted.compared = noted.count
    if node.kind == MODEL:
        _note_names(&noted, generic_attribute(node.lent, "__pydantic_fields_set__"))
    node.of_lent = _kept(&noted, node.of_lent)
    return 0


# --- fetching --------------------------------------------------------------------------------


cdef inline void _fetch(Places *places, bint names) noexcept:
    cdef Py_ssize_t at
    if places != NULL:
        for at in range(places.count if names else places.compared):
            LGKV_PREFETCH(<const char *>((places.base + places.at[at]) * LINE_BYTES))


cdef inline void _fetch_lines(const void *start, Py_ssize_t lines) noexcept:
    cdef Py_ssize_t at
    if start != NULL:
        for at in range(lines):
            LGKV_PREFETCH(<const char *>start + at * LINE_BYTES)


cdef inline PyObject *_ahead(list elements, Py_ssize_t at) noexcept:
    """Return the element at a place, without holding it; NULL if there is none."""
    if at >= PyList_GET_SIZE(elements):
        return NULL
    return PyList_GET_ITEM(elements, at)


cdef void _fetch_ahead(list nodes, Py_ssize_t at, list values, Py_ssize_t start) noexcept:
    """Have fetched what comparing, or giving, the elements behind *at* will read.

    The nodes first, then what was noted of them, then the pieces. Of two clones that is fetched
    which is at its place in *values* or, where that is None, which nobody holds.
    """
    cdef PyObject *node = _ahead(nodes, at + NODE_AHEAD)
    cdef PyObject *value
    if node != NULL:
        _fetch_lines(node, 3)
    node = _ahead(nodes, at + PLACES_AHEAD)
    if node != NULL and node != <PyObject *>None:
        _fetch_lines((<Node>node).own, 2)
        _fetch_lines((<Node>node).of_lent, 3)
        _fetch_lines((<Node>node).of_spare, 3)
        LGKV_PREFETCH(<PyObject *>(<Node>node).lent)
    node = _ahead(nodes, at + PIECES_AHEAD)
    if node == NULL or node == <PyObject *>None or (<Node>node).own == NULL:
        return
    _fetch((<Node>node).own, False)
    if values is None:
        if Py_REFCNT(<PyObject *>(<Node>node).lent) == 1:
            _fetch((<Node>node).of_lent, True)
        else:
            _fetch((<Node>node).of_spare, True)
        return
    value = _ahead(values, start + PIECES_AHEAD)
    if value == <PyObject *>(<Node>node).lent:
        _fetch((<Node>node).of_lent, False)
    elif value == <PyObject *>(<Node>node).spare:
        _fetch((<Node>node).of_spare, False)
