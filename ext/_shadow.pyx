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
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Copy, PyDict_Next, PyDict_SetItem, PyDict_Size
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE
from libc.stdint cimport int32_t, intptr_t
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
    MAX_PLACES = 60
    PLACES_BYTES = 64 + 2 * 128


cdef object _HOLE = object()

cdef struct Places:
    intptr_t base        # the number of a cache line; the others count from it
    int32_t count
    int32_t compared     # so many of them are read when a value is compared
    int32_t at[MAX_PLACES]


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
    cdef Places *own        # where the pieces of that node lie
    cdef Places *of_lent
    cdef Places *of_spare

    def __dealloc__(self):
        PyMem_Free(self.own)
        PyMem_Free(self.of_lent)
        PyMem_Free(self.of_spare)

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


def source_all(list nodes not None, list elements not None, list parts not None) -> list:
    """Return *nodes* with *parts*, the serialised bytes of their elements; raw ones for None.

    An empty list if an element is not any more what its node was made of. The nodes are
    changed themselves: only who has made them may call this.
    """
    cdef Py_ssize_t at, count = PyList_GET_SIZE(nodes)
    cdef Node node
    cdef bytes part
    cdef object element
    cdef list sourced = []
    if PyList_GET_SIZE(elements) != count or PyList_GET_SIZE(parts) != count:
        raise ValueError("each element has a node and its bytes")
    for at in range(count):
        # The collector may run code that shrinks them.
        if at >= PyList_GET_SIZE(nodes) or at >= PyList_GET_SIZE(elements) or (
                at >= PyList_GET_SIZE(parts)):
            return []
        node, element, part = nodes[at], elements[at], parts[at]
        if part is None:
            raise TypeError("an element has no bytes")
        if node is None:
            node = raw_node(part)
        elif not _matches(node, element):
            return []
        else:
            node.source = part
            node.weight += PyBytes_GET_SIZE(part)
        sourced.append(node)
    return sourced


def build(value, models, bint decoded) -> Node | None:
    """Return the node of *value*, or None if a part of it has none.

    *models* is a frozenset of pydantic model classes whose serialised form is a function of
    their fields and extra fields. *decoded* says that the value was just decoded.
    """
    return _build_whole(value, models, decoded)


def build_all(list values not None, models, bint decoded) -> list:
    """Return what `build` gives for each of *values*."""
    return [_build_whole(value, models, decoded) for value in values]


cdef Node _build_whole(object value, frozenset models, bint decoded):
    cdef Node node = _build(value, models, 0, True)
    if node is not None:
        node.decoded = decoded
        if node.kind != LEAF and node.kind != FLOAT:
            node.weight += PLACES_BYTES
        if decoded and node.kind == MODEL:
            _pass_over_names(value)
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


def place(list held not None, Py_ssize_t at, nodes, list gone not None) -> int:
    """Put *nodes* into *held* from *at* on, but for those that tell less than what is there.

    Return by how much the weight has grown. What was replaced goes to *gone*.
    """
    cdef Py_ssize_t grown = 0
    cdef Node node, old
    if at < 0 or at + len(nodes) > PyList_GET_SIZE(held):
        raise IndexError(at)
    for node in nodes:
        old = held[at]
        if old is None or (node.decoded and not old.decoded):
            grown += node.weight - (0 if old is None else old.weight)
            held[at] = node
            if old is not None:
                gone.append(old)
        at += 1
    return grown


def run_length(list nodes, Py_ssize_t at, list values, Py_ssize_t start, dump) -> int:
    """Return how many of *values* from *start* match *nodes* from *at*, one after another.

    A raw node is compared with what *dump* gives for the value.
    """
    cdef Py_ssize_t count = 0
    cdef Node node
    cdef object value
    while at + count < PyList_GET_SIZE(nodes) and start + count < PyList_GET_SIZE(values):
        _fetch_ahead(nodes, at + count, values, start + count)
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


include "building.pxi"
include "fetching.pxi"
include "cloning.pxi"
include "reviving.pxi"
