# cython: language_level=3, boundscheck=False, wraparound=False, autotestdict=False
"""Scan kernels: a query against many vectors, without building objects for them.

The kernel is chosen at run time: on x86 with gcc or clang one for AVX-512, one for AVX2
with FMA, and one for every processor; elsewhere what the compiler makes of plain loops.
Sums are kept in 4 lanes or more, so that a sum of d products is off by at most
(d / 4 + 8) * 2**-24 of the sum of their magnitudes.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.math cimport INFINITY, sqrt
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memchr, memcpy

include "kernels.pxi"

cdef lgkv_kernel kernel = lgkv_choose(b"")

cdef struct Part:
    const char *rows
    size_t count


def kernel_name(wanted=None):
    """Return the kernel that is in use, after choosing `wanted` if the processor has it.

    None leaves the choice; "" chooses the best; others are "avx512", "avx2" and "plain".
    """
    global kernel
    if wanted is not None:
        name = wanted.encode()
        kernel = lgkv_choose(name)
    return lgkv_chosen_name.decode()


def scan(list parts, const float[::1] query, float[::1] out, bint squared_distance):
    """Fill `out` with the products of `query` and each row, or their squared distances.

    A part is (buffer, offset, first row, row behind the last); the rows of a buffer begin at
    `offset` bytes, are float32 in little-endian order and need no alignment. `out` has one
    place for each row of all parts, in order. The GIL is released.

    Raises:
        ValueError: A part is not inside its buffer, or `out` has another length.
    """
    cdef Py_ssize_t number = len(parts), taken = 0, index
    cdef Py_ssize_t dims = query.shape[0]
    cdef Py_ssize_t stride = 4 * dims, offset, start, stop
    cdef Py_buffer *buffers = <Py_buffer *>malloc((number + 1) * sizeof(Py_buffer))
    cdef Part *ready = <Part *>malloc((number + 1) * sizeof(Part))
    if buffers == NULL or ready == NULL:
        free(buffers)
        free(ready)
        raise MemoryError
    try:
        for part in parts:
            source, offset, start, stop = part
            PyObject_GetBuffer(source, &buffers[taken], PyBUF_SIMPLE)
            taken += 1
            if dims < 1 or offset < 0 or not 0 <= start <= stop or (
                stop > (buffers[taken - 1].len - offset) // stride
            ):
                raise ValueError(f"rows {start} to {stop} do not lie in their buffer")
            ready[taken - 1].rows = <const char *>buffers[taken - 1].buf + offset + start * stride
            ready[taken - 1].count = stop - start
        scan_parts(ready, number, query, out, squared_distance)
    finally:
        for index in range(taken):
            PyBuffer_Release(&buffers[index])
        free(buffers)
        free(ready)


cdef inline double half_value(const char *place) noexcept nogil:
    """Return the IEEE binary16 at `place`."""
    cdef uint16_t raw
    cdef uint32_t sign, exponent, fraction, bits
    cdef float value
    memcpy(&raw, place, 2)
    sign = (<uint32_t>raw & 0x8000) << 16
    exponent = (raw >> 10) & 0x1F
    fraction = raw & 0x3FF
    if exponent == 0:
        value = <float>fraction * <float>5.9604644775390625e-08
        return -value if sign else value
    bits = sign | ((exponent + 112) << 23) | (fraction << 13)
    memcpy(&value, &bits, 4)
    return value


cdef inline double value_at(const char *row, Py_ssize_t index, int size) noexcept nogil:
    cdef float value
    if size == 2:
        return half_value(row + 2 * index)
    memcpy(&value, row + 4 * index, 4)
    return value


include "slabs.pxi"
include "measuring.pxi"
include "codes.pxi"
