"""Fresh values of nodes. A clone that came back unchanged is given out again."""

from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.ref cimport Py_INCREF
from cpython.set cimport PySet_Contains, PySet_GET_SIZE, PySet_New

cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    #define LGKV_ONE_AT_A_TIME 0
    #else
    #define LGKV_ONE_AT_A_TIME 1
    #endif
    """
    int LGKV_ONE_AT_A_TIME

cdef extern from "Python.h":
    int PyGC_Disable()
    int PyGC_Enable()
    PyObject *PyObject_GenericGetAttr(PyObject *value, object name)
    int PyObject_GenericSetAttr(object value, object name, object to) except -1
    void PyErr_Clear()
    void Py_DECREF(PyObject *value)
    object PyType_GenericNew(type kind, object arguments, PyObject *names)


def clone(Node node not None):
    """Return a fresh value of *node*, which must not be raw."""
    return _clone(node)


MISSING = object()
"""Marks an element that is still to be cloned."""


def clone_all(list nodes, load, list given=None, frozenset models=frozenset()) -> list:
    """Return fresh values of *nodes*, but for what *given* has that is not `MISSING`.

    *load* makes those of raw nodes from their bytes, and those of nodes that have a source,
    which become nodes of what was decoded; *models* are as for `build`. The collector is
    paused meanwhile: all that is made stays. A clone that was given out before, that nobody
    holds any more and that is as it was then, is as good as a fresh one.
    """
    if given is None:
        given = [MISSING] * len(nodes)
    cdef int collecting = PyGC_Disable()
    cdef Py_ssize_t at
    cdef Node node
    try:
        for at in range(min(PyList_GET_SIZE(given), PyList_GET_SIZE(nodes))):
            _fetch_ahead(nodes, at, None, 0)
            if <object>PyList_GET_ITEM(given, at) is MISSING:
                node = <Node>PyList_GET_ITEM(nodes, at)
                if node is None:
                    raise ValueError("an element has no node")
                if node.kind == RAW:
                    given[at] = load(node.leaf)
                elif node.source is not None:
                    given[at] = _decode(node, load, models)
                else:
                    given[at] = _give(node)
    finally:
        if collecting:
            PyGC_Enable()
    return given


cdef object _decode(Node node, load, frozenset models):
    """Return the value of a node's source, and let the node be of that value from now on."""
    value = load(node.source)
    cdef Node of = _build(value, models, 0, True)
    if of is not None and node.source is not None:
        node.kind, node.leaf, node.children = of.kind, of.leaf, of.children
        node.template, node.holes, node.names_set = of.template, of.holes, of.names_set
        node.extra, node.decoded = of.extra, True
        node.source, node.lent = None, value
        if node.kind != LEAF and node.kind != FLOAT:
            _note_lent(node)
    return value


cdef object _clone(Node node):
    cdef int form = node.kind
    if form == LEAF or form == FLOAT:
        return node.leaf
    if form == DICT:
        return _clone_dict(node)
    if form == LIST:
        return _clone_list(node)
    if form == MODEL:
        return _clone_model(node)
    raise ValueError("a raw node has no structure to clone")


cdef list _clone_list(Node node):
    cdef Py_ssize_t at, size = PyTuple_GET_SIZE(node.children)
    cdef list fresh = PyList_New(size)
    cdef object item
    for at in range(size):
        item = _clone(<Node>PyTuple_GET_ITEM(node.children, at))
        Py_INCREF(item)
        PyList_SET_ITEM(fresh, at, item)
    return fresh


cdef dict _clone_dict(Node node):
    cdef dict fresh
    cdef Py_ssize_t at
    if PyDict_Size(node.template) == 0:
        return {}
    fresh = PyDict_Copy(node.template)
    for at in range(PyTuple_GET_SIZE(node.holes)):
        PyDict_SetItem(
            fresh,
            <object>PyTuple_GET_ITEM(node.holes, at),
            _clone(<Node>PyTuple_GET_ITEM(node.children, at)),
        )
    return fresh


cdef object _clone_model(Node node):
    cdef object kind = node.leaf
    cdef object fresh = PyType_GenericNew(<type>kind, (), NULL)
    # As pydantic's own model_construct: the class's __setattr__ is not for this.
    PyObject_GenericSetAttr(fresh, "__dict__", _clone_dict(node))
    PyObject_GenericSetAttr(fresh, "__pydantic_fields_set__", PySet_New(node.names_set))
    _pass_over_names(fresh)
    extra = None if node.extra is None else _clone_dict(node.extra)
    PyObject_GenericSetAttr(fresh, "__pydantic_extra__", extra)
    PyObject_GenericSetAttr(fresh, "__pydantic_private__", None)
    return fresh


cdef int _pass_over_names(object value) except -1:
    """Let the collector pass over a model's set of names, which can be in no cycle."""
    names = generic_attribute(value, "__pydantic_fields_set__")
    if type(names) is set:
        PyObject_GC_UnTrack(<PyObject*>names)
    return 0


# --- clones that came back -------------------------------------------------------------------


cdef object _give(Node node):
    """Return a clone that nobody else holds: one of the two given out last, or a new one."""
    cdef object lent = node.lent
    if node.kind == LEAF or node.kind == FLOAT:
        return node.leaf
    if node.lent is not None and _came_back(node, <PyObject *>lent, 2):
        return lent
    lent = node.spare
    if lent is not None and _came_back(node, <PyObject *>lent, 2):
        node.spare, node.lent = node.lent, lent
        node.of_spare, node.of_lent = node.of_lent, node.of_spare
        return lent
    lent = _clone(node)
    node.spare, node.lent = node.lent, lent
    node.of_spare, node.of_lent = node.of_lent, node.of_spare
    _note_lent(node)
    return lent


cdef int _keep_no_more(Node node, object value) except -1:
    """Let go of a clone that its holder has changed."""
    if node.lent is value:
        node.lent = None
    if node.spare is value:
        node.spare = None
    return 0


cdef bint _came_back(Node node, PyObject *value, Py_ssize_t held) except -1:
    """Whether *value*, a clone of *node*, has no holders but the *held*, and is unchanged.

    Nothing of it may have other holders, and its leaves must be the very objects of the node. The
    references say so only where one thread runs at a time.
    """
    cdef int form = node.kind
    if form == LEAF or form == FLOAT:
        return value == <PyObject *>node.leaf
    if not LGKV_ONE_AT_A_TIME or Py_REFCNT(value) != held:
        return False
    if form == DICT:
        return type(<object>value) is dict and _dict_came_back(node, <dict>value)
    if form == LIST:
        return type(<object>value) is list and _list_came_back(node, <list>value)
    return type(<object>value) is node.leaf and _model_came_back(node, value)


cdef bint _list_came_back(Node node, list value) except -1:
    cdef Py_ssize_t at, size = PyTuple_GET_SIZE(node.children)
    if PyList_GET_SIZE(value) != size:
        return False
    for at in range(size):
        if not _came_back(
            <Node>PyTuple_GET_ITEM(node.children, at), PyList_GET_ITEM(value, at), 1
        ):
            return False
    return True


cdef bint _dict_came_back(Node node, dict value) except -1:
    cdef PyObject *key
    cdef PyObject *item
    cdef PyObject *wanted
    cdef PyObject *leaf
    cdef Py_ssize_t position = 0, place = 0, hole = 0
    if PyDict_Size(value) != PyDict_Size(node.template):
        return False
    while PyDict_Next(value, &position, &key, &item):
        if not PyDict_Next(node.template, &place, &wanted, &leaf) or key != wanted:
            return False
        if leaf != <PyObject *>_HOLE:
            if item != leaf:
                return False
            continue
        if not _came_back(<Node>PyTuple_GET_ITEM(node.children, hole), item, 1):
            return False
        hole += 1
    return True


cdef bint _model_came_back(Node node, PyObject *value) except -1:
    return (
        _part_came_back(node, value, "__dict__")
        and _part_came_back(node.extra, value, "__pydantic_extra__")
        and _part_came_back(None, value, "__pydantic_private__")
        and _part_came_back(None, value, "__weakref__")
        and _names_came_back(node.names_set, value)
    )


cdef bint _part_came_back(Node node, PyObject *value, str name) except -1:
    """Whether an attribute is unchanged: a dict, or None where there is no node."""
    cdef PyObject *part = PyObject_GenericGetAttr(value, name)
    if part == NULL:
        PyErr_Clear()
        return node is None
    try:
        if node is None:
            return part == <PyObject *>None
        return (
            type(<object>part) is dict
            and Py_REFCNT(part) == 2
            and _dict_came_back(node, <dict>part)
        )
    finally:
        Py_DECREF(part)


cdef bint _names_came_back(frozenset names, PyObject *value) except -1:
    cdef PyObject *part = PyObject_GenericGetAttr(value, "__pydantic_fields_set__")
    if part == NULL:
        PyErr_Clear()
        return False
    try:
        if type(<object>part) is not set or Py_REFCNT(part) != 2:
            return False
        if PySet_GET_SIZE(<object>part) != PySet_GET_SIZE(names):
            return False
        for name in names:
            if not PySet_Contains(<object>part, name):
                return False
        return True
    finally:
        Py_DECREF(part)
