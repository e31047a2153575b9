"""Nodes of values."""

cdef extern from "Python.h":
    void PyObject_GC_UnTrack(PyObject *value)


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
    PyObject_GC_UnTrack(<PyObject *>node.children)
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
    # Nodes and leaves make no cycle: the collector need not look at what holds them.
    PyObject_GC_UnTrack(<PyObject *>node.children)
    PyObject_GC_UnTrack(<PyObject *>template)
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
    node.names_set = _names_of(kind, value.__pydantic_fields_set__)
    return node


cdef dict _LAST_NAMES = {}


cdef frozenset _names_of(object kind, object names):
    """Return a copy of a model's set fields: mostly the one of the last model of its class."""
    last = _LAST_NAMES.get(kind)
    if last is None or last != names:
        if len(_LAST_NAMES) > MAX_SHARED:
            _LAST_NAMES.clear()
        last = _LAST_NAMES[kind] = _shared(frozenset(names))
    return last
