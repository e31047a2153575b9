# cython: language_level=3, boundscheck=False, wraparound=False, autotestdict=False
"""Scan kernels: a query against many vectors, without building objects for them.

The kernel is chosen at run time: on x86 with gcc or clang one for AVX-512, one for AVX2
with FMA, and one for every processor; elsewhere what the compiler makes of plain loops.
Sums are kept in 4 lanes or more, so that a sum of d products is off by at most
(d / 4 + 8) * 2**-24 of the sum of their magnitudes.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

cdef extern from *:
    r"""
    #include <stddef.h>
    #include <string.h>

    /* Four rows at a time: their sums do not wait for each other, and share the query. */
    #define LGKV_TERM(x, q) (l2 ? (x - q) * (x - q) : x * q)

    static float lgkv_rest(const char *row, const float *query, int start, int dims, int l2) {
        float sum = 0.0f, x;
        int i;
        for (i = start; i < dims; i++) {
            memcpy(&x, row + (size_t)i * 4, 4); /* a record's rows need not be aligned */
            sum += LGKV_TERM(x, query[i]);
        }
        return sum;
    }

    typedef void (*lgkv_kernel)(const char *, size_t, const float *, int, int, float *);

    #if defined(__GNUC__)
    #define LGKV_KERNEL(NAME, BYTES, ATTRIBUTES)                                                  \
        typedef float NAME##_lanes __attribute__((vector_size(BYTES), aligned(4), may_alias));    \
        ATTRIBUTES static inline __attribute__((always_inline)) void NAME##_rows(                 \
            const char *const *row, int rows, const float *query, int dims, int l2, float *out) { \
            NAME##_lanes sum[4] = {{0}};                                                          \
            int i = 0, n, lane;                                                                   \
            for (; i + BYTES / 4 <= dims; i += BYTES / 4) {                                       \
                NAME##_lanes q = *(const NAME##_lanes *)(query + i);                              \
                for (n = 0; n < rows; n++) {                                                      \
                    NAME##_lanes x = *(const NAME##_lanes *)(row[n] + (size_t)i * 4);             \
                    __builtin_prefetch(row[n] + ((size_t)i + 4 * (size_t)dims) * 4);              \
                    sum[n] += LGKV_TERM(x, q);                                                    \
                }                                                                                 \
            }                                                                                     \
            for (n = 0; n < rows; n++) {                                                          \
                float total = lgkv_rest(row[n], query, i, dims, l2);                              \
                for (lane = 0; lane < BYTES / 4; lane++) total += sum[n][lane];                   \
                out[n] = total;                                                                   \
            }                                                                                     \
        }                                                                                         \
        ATTRIBUTES static void NAME(const char *rows, size_t count, const float *query, int dims, \
                                    int l2, float *out) {                                         \
            size_t stride = (size_t)dims * 4, n = 0;                                              \
            for (; n < count; n += 4) {                                                           \
                const char *row[4];                                                               \
                int several = count - n < 4 ? (int)(count - n) : 4, m;                            \
                for (m = 0; m < 4; m++) row[m] = rows + (n + (m < several ? m : 0)) * stride;     \
                if (several < 4) {                                                                \
                    for (m = 0; m < several; m++)                                                 \
                        NAME##_rows(row + m, 1, query, dims, l2, out + n + m);                    \
                } else if (l2) {                                                                  \
                    NAME##_rows(row, 4, query, dims, 1, out + n);                                 \
                } else {                                                                          \
                    NAME##_rows(row, 4, query, dims, 0, out + n);                                 \
                }                                                                                 \
            }                                                                                     \
        }
    LGKV_KERNEL(lgkv_plain, 16, )
    #if defined(__x86_64__)
    LGKV_KERNEL(lgkv_avx2, 32, __attribute__((target("avx2,fma"))))
    LGKV_KERNEL(lgkv_avx512, 64, __attribute__((target("avx512f,fma"))))
    #endif
    #else
    static void lgkv_plain(const char *rows, size_t count, const float *query, int dims, int l2,
                           float *out) {
        size_t stride = (size_t)dims * 4, n;
        int i, lane;
        for (n = 0; n < count; n++) {
            const char *row = rows + n * stride;
            float sum[8] = {0}, x, total;
            for (i = 0; i + 8 <= dims; i += 8)
                for (lane = 0; lane < 8; lane++) {
                    memcpy(&x, row + (size_t)(i + lane) * 4, 4);
                    sum[lane] += LGKV_TERM(x, query[i + lane]);
                }
            total = lgkv_rest(row, query, i, dims, l2);
            for (lane = 0; lane < 8; lane++) total += sum[lane];
            out[n] = total;
        }
    }
    #endif

    static const char *lgkv_chosen_name = "plain";

    static lgkv_kernel lgkv_choose(const char *wanted) {
    #if defined(__GNUC__) && defined(__x86_64__)
        __builtin_cpu_init();
        if (__builtin_cpu_supports("avx512f") && (!*wanted || !strcmp(wanted, "avx512"))) {
            lgkv_chosen_name = "avx512";
            return lgkv_avx512;
        }
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")
            && (!*wanted || !strcmp(wanted, "avx2"))) {
            lgkv_chosen_name = "avx2";
            return lgkv_avx2;
        }
    #endif
        (void)wanted;
        lgkv_chosen_name = "plain";
        return lgkv_plain;
    }
    """
    ctypedef void (*lgkv_kernel)(
        const char *, size_t, const float *, int, int, float *
    ) noexcept nogil
    lgkv_kernel lgkv_choose(const char *wanted)
    const char *lgkv_chosen_name

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
    cdef Py_ssize_t number = len(parts), filled = 0, taken = 0, index
    cdef int dims = <int>query.shape[0]
    cdef Py_ssize_t stride = 4 * <Py_ssize_t>dims, offset, start, stop
    cdef float *target
    cdef lgkv_kernel run = kernel
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
            filled += stop - start
        if filled != out.shape[0]:
            raise ValueError(f"{filled} rows do not fill {out.shape[0]} places")
        if filled:
            target = &out[0]
            with nogil:
                for index in range(number):
                    run(ready[index].rows, ready[index].count, &query[0], dims, squared_distance,
                        target)
                    target += ready[index].count
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


def rescore(list parts, const double[::1] query, int size, double[:, ::1] out):
    """Fill `out` for each row with its product with `query`, its own and its distance.

    A part is one row: (buffer, offset, row). The rows of a buffer begin at `offset` and are
    floats of `size` bytes, 4 or 2. Sums are of doubles, in one order, so that equal rows give
    equal results wherever they lie. The row's own product is its squared length; the distance
    is squared.

    Raises:
        ValueError: A row is not inside its buffer, or `out` has another shape.
    """
    cdef Py_buffer buffer
    cdef Py_ssize_t dims = query.shape[0], number = 0, index, stride = size * dims, offset, place
    cdef const char *row
    cdef double value, product, own, distance, apart
    if out.shape[0] != len(parts) or out.shape[1] != 3 or size not in (2, 4) or not dims:
        raise ValueError("the shapes do not go together")
    for source, offset, place in parts:
        PyObject_GetBuffer(source, &buffer, PyBUF_SIMPLE)
        try:
            if offset < 0 or not 0 <= place < (buffer.len - offset) // stride:
                raise ValueError(f"row {place} does not lie in its buffer")
            row = <const char *>buffer.buf + offset + place * stride
            product = own = distance = 0.0
            for index in range(dims):
                value = value_at(row, index, size)
                product += value * query[index]
                own += value * value
                apart = value - query[index]
                distance += apart * apart
        finally:
            PyBuffer_Release(&buffer)
        out[number, 0] = product
        out[number, 1] = own
        out[number, 2] = distance
        number += 1


def locate(const uint64_t[::1] labels, const uint64_t[::1] firsts, list sorted_labels,
           list orders, list alive, int64_t[::1] slabs, int64_t[::1] rows):
    """Find each label: the slab that holds it and its row; -1 for what is not there or is dead.

    A slab has its labels, sorted, as offsets from its first, the row of each of them, and
    a byte for each row that is 0 for a dead one; None if all are alive.

    Raises:
        ValueError: The arrays are not of one length.
    """
    cdef Py_ssize_t number, low, high, middle, slab
    cdef uint64_t label
    if slabs.shape[0] != labels.shape[0] or rows.shape[0] != labels.shape[0] or not (
        firsts.shape[0] == len(sorted_labels) == len(orders) == len(alive)
    ):
        raise ValueError("the shapes do not go together")
    for number in range(labels.shape[0]):
        label = labels[number]
        slabs[number] = rows[number] = -1
        low, high = 0, firsts.shape[0]
        while low < high:
            middle = (low + high) // 2
            if firsts[middle] <= label:
                low = middle + 1
            else:
                high = middle
        if low == 0:
            continue
        slab = low - 1
        low = row_of(sorted_labels[slab], orders[slab], alive[slab], label - firsts[slab])
        if low >= 0:
            slabs[number], rows[number] = slab, low


cdef Py_ssize_t row_of(sorted_labels, orders, alive, uint64_t offset) except -2:
    """Return the row of a label of a slab; -1 if it is not there or is dead."""
    cdef Py_buffer labels, order, living
    cdef Py_ssize_t low = 0, high, middle, row
    PyObject_GetBuffer(sorted_labels, &labels, PyBUF_SIMPLE)
    high = labels.len // 4
    while low < high:
        middle = (low + high) // 2
        if (<const uint32_t *>labels.buf)[middle] < offset:
            low = middle + 1
        else:
            high = middle
    row = low if low < labels.len // 4 and (<const uint32_t *>labels.buf)[low] == offset else -1
    PyBuffer_Release(&labels)
    if row < 0:
        return -1
    PyObject_GetBuffer(orders, &order, PyBUF_SIMPLE)
    row = (<const int64_t *>order.buf)[row] if row < order.len // 8 else -2
    PyBuffer_Release(&order)
    if row < 0:
        raise ValueError("the shapes do not go together")
    if alive is not None:
        PyObject_GetBuffer(alive, &living, PyBUF_SIMPLE)
        row = row if row < living.len and (<const uint8_t *>living.buf)[row] else -1
        PyBuffer_Release(&living)
    return row


def name_at(record, Py_ssize_t start, Py_ssize_t count, Py_ssize_t row) -> bytes:
    """Return name `row` of `count` that begin at `start` of a slab's record.

    Where each ends, counted from `start`, stands before them in four octets each.

    Raises:
        ValueError: It is not inside the record.
    """
    cdef Py_buffer buffer
    cdef uint32_t low = 0, high
    cdef const char *names
    PyObject_GetBuffer(record, &buffer, PyBUF_SIMPLE)
    try:
        if not 0 <= row < count or start < 4 * count or start > buffer.len:
            raise ValueError(f"name {row} does not lie in its record")
        names = <const char *>buffer.buf + start
        if row:
            memcpy(&low, names - 4 * (count - row + 1), 4)
        memcpy(&high, names - 4 * (count - row), 4)
        if not low <= high <= buffer.len - start:
            raise ValueError(f"name {row} does not lie in its record")
        return names[low:high]
    finally:
        PyBuffer_Release(&buffer)
