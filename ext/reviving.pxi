"""Models rebuilt from their serialised fields, where validating these would change nothing."""

from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

# As in lgkv/codec/models.py.
cdef enum:
    ANY = 0
    TEXT = 1
    TEXT_OR_NONE = 2
    MAPPING = 3
    CONTENT = 4
    NO_CALLS = 5
    CALLS = 6
    EMPTY_LIST = 7
    USAGE = 8


cdef enum:
    MODEL_TYPE = 5  # LangGraph's extension type of a model

cdef object _UNUSUAL = object()

cdef struct Source:
    const unsigned char* raw
    Py_ssize_t at
    Py_ssize_t end


def revive(bytes data not None, tuple known not None):
    """Return the model that *data* are serialised of, None if validation may change a field.

    *known* are triples of how the data of a model begin, its class, and its rules: names and
    rules of all its fields by turns, in order. Of what is unusual nothing is said either.
    """
    cdef Source source
    source.raw = <const unsigned char*>PyBytes_AS_STRING(data)
    source.at, source.end = 0, PyBytes_GET_SIZE(data)
    return _revive(&source, known)


def revive_all(bytes data not None, tuple known not None):
    """Return the models of a serialised list, None unless it is one and `revive` makes all."""
    cdef Source source, part
    cdef Py_ssize_t count, size
    cdef list models = []
    source.raw = <const unsigned char*>PyBytes_AS_STRING(data)
    source.at, source.end = 0, PyBytes_GET_SIZE(data)
    count = _take_count(&source, 0x90, 0x0F, 0xDC)
    if count < 0:
        return None
    while count:
        count -= 1
        size = _take_model(&source)
        if size < 0:
            return None
        part.raw, part.at, part.end = source.raw, source.at, source.at + size
        model = _revive(&part, known)
        if model is None:
            return None
        models.append(model)
        source.at = part.end
    return models if source.at == source.end else None


cdef object _revive(Source* source, tuple known):
    cdef const unsigned char* begin = source.raw + source.at
    cdef Py_ssize_t size
    cdef dict fields
    for prefix, kind, rules in known:
        size = PyBytes_GET_SIZE(prefix)
        if source.end - source.at >= size and not memcmp(begin, PyBytes_AS_STRING(prefix), size):
            source.at += size
            fields = _take_fields(source, rules)
            if fields is None or _take(source, 0) is _UNUSUAL or source.at != source.end:
                return None
            return _model_of(kind, fields)
    return None


cdef dict _take_fields(Source* source, tuple rules):
    """Return the fields that are here, None unless they are those of the rules and keep them."""
    cdef dict fields = {}
    cdef Py_ssize_t at, size = PyTuple_GET_SIZE(rules)
    if 2 * _take_count(source, 0x80, 0x0F, 0xDE) != size:
        return None
    for at in range(0, size, 2):
        name = <object>PyTuple_GET_ITEM(rules, at)
        if not _take_name(source, name):
            return None
        value = _take(source, MAX_DEPTH)
        if value is _UNUSUAL or not _keeps_rule(<object>PyTuple_GET_ITEM(rules, at + 1), value):
            return None
        PyDict_SetItem(fields, name, value)
    return fields


cdef bint _take_name(Source* source, str name) except -1:
    cdef Py_ssize_t size = 0
    cdef const char* text = PyUnicode_AsUTF8AndSize(name, &size)
    if size >= source.end - source.at or source.raw[source.at] != (0xA0 | size) or size > 0x1F:
        return False
    source.at += 1 + size
    return not memcmp(source.raw + source.at - size, text, size)


# --- MessagePack -----------------------------------------------------------------------------


cdef Py_ssize_t _take_number(Source* source, int width) noexcept:
    """Return a length or count of so many bytes, -1 if there is not as much behind it."""
    cdef uint64_t number = 0
    if source.end - source.at < width:
        return -1
    while width:
        width -= 1
        number = number << 8 | source.raw[source.at]
        source.at += 1
    return <Py_ssize_t>number if number <= <uint64_t>(source.end - source.at) else -1


cdef Py_ssize_t _take_count(Source* source, int tag, int most, int wide) noexcept:
    """Return how many elements the list or dict here has, -1 if there is none."""
    cdef int found
    if source.at >= source.end:
        return -1
    found = source.raw[source.at]
    source.at += 1
    if found & ~most == tag:
        return found & most
    return _take_number(source, 2 << (found - wide)) if wide <= found <= wide + 1 else -1


cdef Py_ssize_t _take_model(Source* source) noexcept:
    """Return the size of the data of the model here, -1 if there is none."""
    cdef int tag
    cdef Py_ssize_t size
    if source.at >= source.end:
        return -1
    tag = source.raw[source.at]
    source.at += 1
    if not 0xC7 <= tag <= 0xC9:
        return -1
    size = _take_number(source, 1 << (tag - 0xC7))
    if size < 0 or size >= source.end - source.at or source.raw[source.at] != MODEL_TYPE:
        return -1
    source.at += 1
    return size


cdef object _take(Source* source, int depth):
    """Return the value that is here, `_UNUSUAL` for what is left to the serialiser."""
    cdef int tag
    if source.at >= source.end:
        return _UNUSUAL
    tag = source.raw[source.at]
    if tag & 0xE0 == 0xA0:
        source.at += 1
        return _take_text(source, tag & 0x1F)
    if 0xD9 <= tag <= 0xDB:
        source.at += 1
        return _take_text(source, _take_number(source, 1 << (tag - 0xD9)))
    if tag & 0xF0 == 0x80 or tag == 0xDE or tag == 0xDF:
        return _take_dict(source, depth)
    if tag & 0xF0 == 0x90 or tag == 0xDC or tag == 0xDD:
        return _take_list(source, depth)
    source.at += 1
    if tag <= 0x7F:
        return tag
    if tag >= 0xE0:
        return tag - 0x100
    if tag == 0xC0:
        return None
    if tag == 0xC2 or tag == 0xC3:
        return tag == 0xC3
    if not (tag == 0xCB or 0xCC <= tag <= 0xD3):
        return _UNUSUAL
    return _take_fixed(source, tag, 8 if tag == 0xCB else 1 << (tag & 0x03))


cdef object _take_fixed(Source* source, int tag, int width):
    """Return the whole number or the float of so many bytes."""
    cdef uint64_t number = 0
    cdef double real = 0
    cdef int at
    if source.end - source.at < width:
        return _UNUSUAL
    for at in range(width):
        number = number << 8 | source.raw[source.at]
        source.at += 1
    if tag == 0xCB:
        memcpy(&real, &number, 8)
        return real
    if tag <= 0xCF:
        return number
    if width < 8 and number >> (8 * width - 1):
        return <int64_t>number - (<int64_t>1 << 8 * width)
    return <int64_t>number


cdef object _take_text(Source* source, Py_ssize_t size):
    if size < 0 or size > source.end - source.at:
        return _UNUSUAL
    source.at += size
    try:
        return PyUnicode_DecodeUTF8(<const char*>source.raw + source.at - size, size, NULL)
    except UnicodeDecodeError:
        return _UNUSUAL


cdef object _take_list(Source* source, int depth):
    cdef list values = []
    cdef Py_ssize_t count = _take_count(source, 0x90, 0x0F, 0xDC)
    if count < 0 or not depth:
        return _UNUSUAL
    while count:
        count -= 1
        value = _take(source, depth - 1)
        if value is _UNUSUAL:
            return _UNUSUAL
        values.append(value)
    return values


cdef object _take_dict(Source* source, int depth):
    cdef dict values = {}
    cdef Py_ssize_t count = _take_count(source, 0x80, 0x0F, 0xDE)
    if count < 0 or not depth:
        return _UNUSUAL
    while count:
        count -= 1
        name = _take(source, 0)
        if type(name) is not str:
            return _UNUSUAL
        value = _take(source, depth - 1)
        if value is _UNUSUAL:
            return _UNUSUAL
        PyDict_SetItem(values, _shared(name), value)
    return values


# --- rules -----------------------------------------------------------------------------------


cdef object _model_of(object kind, dict fields):
    if not isinstance(kind, type):
        raise TypeError("a model's class is no class")
    cdef object fresh = PyType_GenericNew(<type>kind, (), NULL)
    PyObject_GenericSetAttr(fresh, "__dict__", fields)
    PyObject_GenericSetAttr(fresh, "__pydantic_fields_set__", PySet_New(fields))
    PyObject_GenericSetAttr(fresh, "__pydantic_extra__", {})
    PyObject_GenericSetAttr(fresh, "__pydantic_private__", None)
    return fresh


cdef bint _is_text(object value, object text) except -1:
    return type(value) is str and (value is text or value == text)


cdef bint _keeps_rule(object rule, object value) except -1:
    cdef int number
    if type(rule) is str:
        return _is_text(value, rule)
    number = rule
    if number == ANY:
        return True
    if number == TEXT:
        return type(value) is str
    if number == TEXT_OR_NONE:
        return value is None or type(value) is str
    if number == MAPPING:
        return type(value) is dict
    if number == CONTENT:
        return type(value) is str or (type(value) is list and _is_content(<list>value))
    if number == NO_CALLS:
        return type(value) is dict and "tool_calls" not in <dict>value
    if number == CALLS:
        return type(value) is list and _are_calls(<list>value)
    if number == EMPTY_LIST:
        return type(value) is list and PyList_GET_SIZE(value) == 0
    if number == USAGE:
        return value is None or (type(value) is dict and _is_usage(<dict>value))
    return False


cdef bint _is_content(list value):
    for part in value:
        if type(part) is not str and type(part) is not dict:
            return False
    return True


cdef bint _are_calls(list value) except -1:
    for call in value:
        if type(call) is not dict or list(call) != ["name", "args", "id", "type"]:
            return False
        name, arguments, id_, kind = call.values()
        if not (type(name) is str and type(arguments) is dict and _is_text(kind, "tool_call")
                and (id_ is None or type(id_) is str)):
            return False
        for key in arguments:
            if type(key) is not str:
                return False
    return True


cdef tuple _USAGE = ("input_tokens", "output_tokens", "total_tokens")
cdef dict _DETAILS = {
    "input_token_details": ("audio", "cache_creation", "cache_read"),
    "output_token_details": ("audio", "reasoning"),
}


cdef bint _is_usage(dict value) except -1:
    cdef list names = list(value)
    if tuple(names[:3]) != _USAGE:
        return False
    if names[3:] != [name for name in _DETAILS if name in value]:
        return False
    for name, of in value.items():
        if name not in _DETAILS:
            if type(of) is not int:
                return False
        elif type(of) is not dict or not _are_counts(<dict>of, _DETAILS[name]):
            return False
    return True


cdef bint _are_counts(dict value, tuple names) except -1:
    if list(value) != [name for name in names if name in value]:
        return False
    for count in value.values():
        if type(count) is not int:
            return False
    return True
