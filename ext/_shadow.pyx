# cython: language_level=3, boundscheck=False, wraparound=False, autotestdict=False
"""The hot loops of versioned channels: is a value what it was, and a fresh copy of it.

A *node* is the structure of a value with references to its immutable leaves. It serves as
the shadow that a live value is compared with, and as the template that a fresh value is
cloned from. `lgkv/codec/reference.py` has the same functions in Python.

Structural are None, bool, int, float, str and bytes (exactly these types), lists, tuples,
dicts with str keys, and the model classes that the caller names. A tuple is as a list here:
a serialiser stores both alike, and a list comes back. Anything else has no node.
"""

cimport cython
from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Copy, PyDict_Next, PyDict_SetItem, PyDict_Size
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE
from libc.string cimport memcmp

from itertools import islice

cdef extern from "Python.h":
    double PyFloat_AS_DOUBLE(object number)
    object generic_attribute "PyObject_GenericGetAttr"(object value, object name)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    int PyUnicode_KIND(object text)

cdef enum:
    LEAF = 0
    FLOAT = 1
    LIST = 2
    DICT = 3
    MODEL = 4
    RAW = 5

cdef enum:
    MAX_DEPTH = 100
    NODE_BYTES = 112
    LIST_BYTES = 16 + 2 * 56  # the node's tuple, and two clones
    ITEM_BYTES = 3 * 8
    DICT_BYTES = 96 + 2 * 160
    ENTRY_BYTES = 3 * 40
    MODEL_BYTES = 2 * 300
    LEAF_BYTES = 40
    KEY_DEPTH = 3
    KEY_PARTS = 4
    MAX_SHARED = 1000


cdef object _HOLE = object()


@cython.no_gc
@cython.final
@cython.auto_pickle(False)
cdef class Node:
    """A value's structure. `weight` is about how many bytes it holds in memory, with its clones.

    Nodes and leaves make no cycle that the collector need see; clones that are kept may.
    """

    cdef int kind
    cdef readonly Py_ssize_t weight
    cdef readonly bint decoded  # made of a decoded value: a clone equals a fresh decode
    cdef object leaf        # LEAF, FLOAT: the value; MODEL: the class; RAW: its bytes
    cdef tuple children     # LIST: the nodes; DICT, MODEL: those of the containers
    cdef dict template      # DICT, and the __dict__ of a MODEL: the leaves by key, else _HOLE
    cdef tuple holes        # the keys of those
    cdef Node extra         # MODEL: its extra fields, or None
    cdef frozenset names_set  # MODEL: its set fields
    cdef readonly bytes source  # of an element that is not decoded: its serialised bytes
    cdef object lent        # of an element's node: the clone that was given out last
    cdef object spare       # and the one before

    @property
    def raw(self):
        """The serialised bytes of a value without structure, else None."""
        return self.leaf if self.kind == RAW else None


def raw_node(bytes data) -> Node:
    """Return the node of a value that is known by its serialised bytes alone."""
    cdef Node node = Node.__new__(Node)
    node.kind = RAW
    node.leaf = data
    node.weight = NODE_BYTES + PyBytes_GET_SIZE(data)
    return node


def sourced(Node node not None, bytes source not None) -> Node:
    """Return the node of a value that is not decoded, with the value's serialised bytes.

    It is changed itself: only who has made it may call this.
    """
    node.source = source
    node.weight += PyBytes_GET_SIZE(source)
    return node


def build(value, models, bint decoded) -> Node | None:
    """Return the node of *value*, or None if a part of it has none.

    *models* is a frozenset of pydantic model classes whose serialised form is a function of
    their fields and extra fields. *decoded* says that the value was just decoded.
    """
    cdef Node node = _build(value, models, 0, True)
    if node is not None:
        node.decoded = decoded
    return node


cdef inline bint _is_leaf(object kind):
    return (kind is str or kind is int or kind is float or kind is bool or kind is bytes
            or kind is type(None))


def value_key(value):
    """Return what a value is looked up by among others; equal values have equal keys.

    Of a dict or model with an id, that; of any other container the keys of its first parts.
    """
    return _value_key(value, KEY_DEPTH)


cdef object _value_key(object value, int depth):
    if _is_leaf(type(value)):
        return value
    if depth == 0:
        return None
    if hasattr(type(value), "__pydantic_fields__"):
        value = value.__dict__
    if type(value) is dict:
        if type(value.get("id")) is str:
            return value["id"]
        value = list(islice(value.values(), KEY_PARTS))
    if type(value) is list or type(value) is tuple:
        return tuple([_value_key(part, depth - 1) for part in value[:KEY_PARTS]])
    return None


def node_key(Node node not None):
    """Return the `value_key` of the value that *node* was made of."""
    return _node_key(node, KEY_DEPTH)


cdef object _node_key(Node node, int depth):
    cdef Node child
    if node.kind == LEAF or node.kind == FLOAT:
        return node.leaf
    if depth == 0:
        return None
    if node.kind == DICT or node.kind == MODEL:
        if type(node.template.get("id")) is str:
            return node.template["id"]
        children = iter(node.children)
        return tuple([
            _node_key(<Node>next(children), depth - 1) if leaf is _HOLE else leaf
            for leaf in islice(node.template.values(), KEY_PARTS)
        ])
    if node.kind == LIST:
        return tuple([_node_key(<Node>child, depth - 1) for child in node.children[:KEY_PARTS]])
    return None


cdef Node _build(object value, frozenset models, int depth, bint models_too):
    cdef object kind = type(value)
    cdef Node node
    if _is_leaf(kind):
        node = Node.__new__(Node)
        node.kind = FLOAT if kind is float else LEAF
        node.leaf = value
        node.weight = NODE_BYTES + _leaf_bytes(value)
        return node
    if depth > MAX_DEPTH:
        return None
    if kind is dict:
        return _build_dict(value, models, depth, models_too)
    if kind is list or kind is tuple:
        if depth and not value:
            return _EMPTY_LIST
        return _build_list(value, models, depth, models_too)
    if models_too and kind in models:
        return _build_model(value, kind, models, depth)
    return None


cdef inline Py_ssize_t _leaf_bytes(object leaf):
    # About what sys.getsizeof says, at a tenth of the cost.
    if type(leaf) is str:
        return LEAF_BYTES + PyUnicode_GET_LENGTH(leaf) * PyUnicode_KIND(leaf)
    if type(leaf) is bytes:
        return LEAF_BYTES + PyBytes_GET_SIZE(leaf)
    return LEAF_BYTES


cdef Node _build_list(object value, frozenset models, int depth, bint models_too):
    cdef Node node = Node.__new__(Node), child
    cdef list children = []
    node.kind = LIST
    node.weight = NODE_BYTES + LIST_BYTES
    for item in value:
        child = _build(item, models, depth + 1, models_too)
        if child is None:
            return None
        node.weight += child.weight + ITEM_BYTES
        children.append(child)
    node.children = tuple(children)
    return node


cdef dict _SHARED = {}


cdef object _shared(object part):
    """Return the equal of a part that was made before: most messages are of one form."""
    if len(_SHARED) > MAX_SHARED:
        _SHARED.clear()
    return _SHARED.setdefault(part, part)


cdef Node _build_dict(dict value, frozenset models, int depth, bint models_too):
    if depth and not value:
        return _EMPTY_DICT
    return _build_fields(value, models, depth, models_too)


cdef Node _build_fields(dict value, frozenset models, int depth, bint models_too):
    cdef Node node = Node.__new__(Node), child
    cdef list children = [], holes = []
    cdef bint empty = True
    cdef dict template = PyDict_Copy(value)  # nobody else changes it meanwhile
    cdef PyObject *key
    cdef PyObject *item
    cdef Py_ssize_t position = 0
    node.kind = DICT
    node.weight = NODE_BYTES + DICT_BYTES
    while PyDict_Next(template, &position, &key, &item):
        if type(<object>key) is not str:
            return None
        if _is_leaf(type(<object>item)):
            node.weight += ENTRY_BYTES + _leaf_bytes(<object>item)
            continue
        child = _build(<object>item, models, depth + 1, models_too)
        if child is None:
            return None
        holes.append(<object>key)
        children.append(child)
        empty = empty and (child is _EMPTY_LIST or child is _EMPTY_DICT)
        node.weight += ENTRY_BYTES + child.weight
        PyDict_SetItem(template, <object>key, _HOLE)
    node.children = _shared(tuple(children)) if empty else tuple(children)
    node.template = template
    node.holes = _shared(tuple(holes))
    return node


# Most containers inside a message are empty: they share a node.
cdef Node _EMPTY_LIST = _build_list([], frozenset(), 0, False)
cdef Node _EMPTY_DICT = _build_dict({}, frozenset(), 0, False)


cdef Node _build_model(object value, object kind, frozenset models, int depth):
    # Inside a model the model's own serialiser sees nested models, so they have no node.
    cdef Node node
    extra = value.__pydantic_extra__
    if value.__pydantic_private__ is not None or type(extra) is not dict and extra is not None:
        return None
    node = _build_fields(value.__dict__, models, depth + 1, False)
    if node is None:
        return None
    node.kind = MODEL
    node.leaf = kind
    node.weight += MODEL_BYTES
    if extra is not None:
        node.extra = _build_dict(extra, models, depth + 1, False)
        if node.extra is None:
            return None
        node.weight += node.extra.weight
    # A copy: the value goes on.
    node.names_set = _shared(frozenset(value.__pydantic_fields_set__))
    return node


# --- comparing -------------------------------------------------------------------------------


def matches(Node node not None, value) -> bool:
    """Whether *value* is stored as the value of *node* was; never true of a raw node."""
    return _matches(node, value)


cdef bint _matches(Node node, object value) except -1:
    cdef int form = node.kind
    if form == LEAF or form == FLOAT:
        return value is node.leaf or _same_leaf(value, node.leaf)
    if form == DICT:
        return type(value) is dict and _matches_dict(node, <dict>value)
    if form == LIST:
        return _matches_list(node, value)
    if form == MODEL:
        return type(value) is node.leaf and _matches_model(node, value)
    return False


cdef bint _same_leaf(object value, object leaf) except -1:
    if type(value) is not type(leaf):
        return False
    return _same_bits(value, leaf) if type(leaf) is float else value == leaf


cdef bint _same_bits(object one, object other):
    cdef double a = PyFloat_AS_DOUBLE(one), b = PyFloat_AS_DOUBLE(other)
    return memcmp(&a, &b, sizeof(double)) == 0


cdef bint _matches_list(Node node, object value) except -1:
    cdef Py_ssize_t at, size = PyTuple_GET_SIZE(node.children)
    cdef object item
    if type(value) is tuple:
        value = list(value)
    if type(value) is not list or PyList_GET_SIZE(value) != size:
        return False
    for at in range(size):
        if at >= PyList_GET_SIZE(value):  # the collector may have run code that shrank it
            return False
        item = <object>PyList_GET_ITEM(value, at)
        if not _matches(<Node>PyTuple_GET_ITEM(node.children, at), item):
            return False
    return True


cdef bint _matches_dict(Node node, dict value) except -1:
    # In step with the template: a leaf that is the very object is known by its address.
    cdef PyObject *key
    cdef PyObject *item
    cdef PyObject *wanted
    cdef PyObject *leaf
    cdef Py_ssize_t position = 0, place = 0, at = 0, hole = 0, size = PyDict_Size(node.template)
    if PyDict_Size(value) != size:
        return False
    while PyDict_Next(value, &position, &key, &item):
        if not PyDict_Next(node.template, &place, &wanted, &leaf):
            return False
        if key != wanted and (type(<object>key) is not str or <object>key != <object>wanted):
            return False
        if leaf == <PyObject *>_HOLE:
            if not _matches(<Node>PyTuple_GET_ITEM(node.children, hole), <object>item):
                return False
            hole += 1
        elif item != leaf and not _same_leaf(<object>item, <object>leaf):
            return False
        at += 1
    return at == size


cdef bint _matches_model(Node node, object value) except -1:
    # Straight from where they are: what a model's class does for names it lacks is not asked.
    if not _matches_dict(node, generic_attribute(value, "__dict__")):
        return False
    extra = generic_attribute(value, "__pydantic_extra__")
    if extra is None or node.extra is None:
        return extra is None and node.extra is None
    return type(extra) is dict and _matches_dict(node.extra, <dict>extra)


def has_hole(list nodes, bint need_decoded) -> bool:
    """Whether a node is missing, or, if *need_decoded*, cannot be cloned or loaded."""
    cdef Node node
    for item in nodes:
        node = <Node>item
        if node is None or (
            need_decoded and not node.decoded and node.kind != RAW and node.source is None
        ):
            return True
    return False


def run_length(list nodes, Py_ssize_t at, list values, Py_ssize_t start, dump) -> int:
    """Return how many of *values* from *start* match *nodes* from *at*, one after another.

    A raw node is compared with what *dump* gives for the value.
    """
    cdef Py_ssize_t count = 0
    cdef Node node
    cdef object value
    while at + count < PyList_GET_SIZE(nodes) and start + count < PyList_GET_SIZE(values):
        node = <Node>PyList_GET_ITEM(nodes, at + count)
        value = <object>PyList_GET_ITEM(values, start + count)
        if node is None or not (
            dump(value) == node.leaf if node.kind == RAW else _matches(node, value)
        ):
            if node is not None:
                _keep_no_more(node, value)
            break
        count += 1
    return count


include "cloning.pxi"
