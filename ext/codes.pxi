# Codes: rows in one octet a number, which say of most that they are not among the best.
#
# A row x is kept as step * c, c being whole numbers from -127 to 127, and the length of what
# that leaves out, |x - step * c|, is known. So the product of x with a query is within that
# length times the query's own of the product with step * c: what cannot be among the best
# by this is not, and the others are looked at as they are.

cdef extern from *:
    r"""
    #include <math.h>

    /* Encode a row; give its step, and the length of what the codes leave out of it. */
    static void lgkv_encode(const double *row, ptrdiff_t dims, signed char *codes,
                            double *step, double *left_out) {
        double most = 0.0, inverse, apart, sum = 0.0;
        ptrdiff_t i;
        for (i = 0; i < dims; i++) {
            double size = fabs(row[i]);
            most = size > most ? size : most;
        }
        *step = most / 127.0;
        inverse = most > 0.0 ? 127.0 / most : 0.0;
        for (i = 0; i < dims; i++) {
            double value = row[i] * inverse;
            int code = (int)(value < 0.0 ? value - 0.5 : value + 0.5);
            code = code > 127 ? 127 : code < -127 ? -127 : code;
            codes[i] = (signed char)code;
            apart = row[i] - code * *step;
            sum += apart * apart;
        }
        *left_out = sqrt(sum);
    }
    """
    void lgkv_encode(
        const double *row, ptrdiff_t dims, signed char *codes, double *step, double *left_out
    ) noexcept nogil


@cython.auto_pickle(False)
@cython.final
cdef class Codes:
    """The codes of a slab's rows, as far as they were made; memory is taken as they are."""

    cdef signed char *rows
    cdef float *steps
    cdef float *slacks
    cdef uint8_t *done
    cdef Py_ssize_t dims
    cdef readonly Py_ssize_t coded

    def __cinit__(self, Py_ssize_t count, Py_ssize_t dims):
        self.dims = dims
        self.rows = <signed char *>calloc(count, dims)
        self.steps = <float *>calloc(count, sizeof(float))
        self.slacks = <float *>calloc(count, sizeof(float))
        self.done = <uint8_t *>calloc(count, 1)
        if self.rows == NULL or self.steps == NULL or self.slacks == NULL or self.done == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.rows)
        free(self.steps)
        free(self.slacks)
        free(self.done)

    cdef void encode(self, const char *row, Py_ssize_t at, int size, double *wide, double scale
                     ) noexcept nogil:
        """Encode the row that goes to `at`; scaled it is what a query is multiplied by."""
        cdef Py_ssize_t index
        cdef double step, left_out
        for index in range(self.dims):
            wide[index] = value_at(row, index, size)
        lgkv_encode(wide, self.dims, self.rows + at * self.dims, &step, &left_out)
        if scale != scale:  # it is too long or too short to be compared so
            self.steps[at], self.slacks[at] = 0, INFINITY
        else:
            self.steps[at] = <float>(step * scale)
            self.slacks[at] = <float>(left_out * scale * (1 + 1e-6))


cdef Py_ssize_t check_ranges(
    list slabs, const int64_t[::1] numbers, const int64_t[::1] starts, const int64_t[::1] stops
) except -1:
    """Return how many rows ranges of slabs have, all of which there are."""
    cdef Py_ssize_t at, total = 0
    if not numbers.shape[0] == starts.shape[0] == stops.shape[0]:
        raise ValueError("the shapes do not go together")
    for at in range(numbers.shape[0]):
        if not 0 <= starts[at] <= stops[at] <= slab_at(slabs, numbers[at]).count:
            raise ValueError(f"there are no rows {starts[at]} to {stops[at]}")
        total += stops[at] - starts[at]
    return total


def count_uncoded(list slabs, const int64_t[::1] numbers, const int64_t[::1] starts,
                  const int64_t[::1] stops) -> int:
    """Return how many rows in ranges of slabs have no codes.

    Raises:
        ValueError: There are no such rows.
    """
    cdef Py_ssize_t at, row, missing = 0
    cdef SlabRows slab
    check_ranges(slabs, numbers, starts, stops)
    for at in range(numbers.shape[0]):
        slab = <SlabRows>slabs[numbers[at]]
        if slab.codes is None:
            missing += stops[at] - starts[at]
        elif memchr(slab.codes.done + starts[at], 0, stops[at] - starts[at]) != NULL:
            for row in range(starts[at], stops[at]):
                missing += not slab.codes.done[row]
    return missing


def encode_slabs(list slabs, record_of, long long epoch, const int64_t[::1] numbers,
                 const int64_t[::1] starts, const int64_t[::1] stops, Py_ssize_t dims, int size,
                 bint scaled):
    """Make the codes of all rows in ranges of slabs; `scaled` to unit length for the cosine.

    The GIL is released. `record_of` and `size` are as for `measure`.

    Raises:
        ValueError: A row is not inside its record, or there is no such row.
    """
    cdef Py_ssize_t at, row, start, stop
    cdef SlabRows slab
    cdef Codes codes
    cdef const char *data
    cdef double *wide
    cdef double scale
    if size not in (2, 4) or dims < 1:
        raise ValueError("the shapes do not go together")
    check_ranges(slabs, numbers, starts, stops)
    wide = <double *>malloc(dims * sizeof(double))
    if wide == NULL:
        raise MemoryError
    try:
        for at in range(numbers.shape[0]):
            slab, start, stop = slabs[numbers[at]], starts[at], stops[at]
            data = rows_in(slab, span_of(slab, record_of, numbers[at], epoch), start, stop,
                           size * dims)
            if slab.codes is None:
                slab.codes = Codes(slab.count, dims)
            codes = slab.codes
            if codes.dims != dims:
                raise ValueError("the shapes do not go together")
            with nogil:
                for row in range(start, stop):
                    if codes.done[row]:
                        continue
                    scale = slab.scales[row]
                    if not scaled and scale == scale:  # else it is too long or too short
                        scale = 1.0
                    codes.encode(data + (row - start) * size * dims, row, size, wide, scale)
            for row in range(start, stop):  # under the GIL: another thread may have done it too
                codes.coded += not codes.done[row]
                codes.done[row] = 1
    finally:
        free(wide)


def scan_codes(list slabs, const int64_t[::1] numbers, const int64_t[::1] starts,
               const int64_t[::1] stops, const float[::1] query, float reach, float margin,
               float[::1] upper, Py_ssize_t count) -> float:
    """Fill `upper` with what no row's key is above; return what `count` keys are not below.

    Rows have codes. `reach` is the query's length, `margin` how far the arithmetic can be off.
    Of the dead -inf is said. With fewer rows than `count`, -inf is returned. The GIL is released.

    Raises:
        ValueError: A row has no codes, there is no such row, or `upper` has another length.
    """
    cdef Py_ssize_t at, row, kept = 0, filled = 0, dims = query.shape[0]
    cdef SlabRows slab
    cdef Codes codes
    cdef float *heap
    cdef int64_t *places
    cdef float least
    if check_ranges(slabs, numbers, starts, stops) != upper.shape[0] or not dims or count < 1 or (
        count_uncoded(slabs, numbers, starts, stops)
    ):
        raise ValueError("the shapes do not go together")
    heap = <float *>malloc(count * sizeof(float))
    places = <int64_t *>malloc(count * sizeof(int64_t))
    try:
        if heap == NULL or places == NULL:
            raise MemoryError
        for at in range(count):
            heap[at], places[at] = -INFINITY, 0
        for at in range(numbers.shape[0]):
            slab = slabs[numbers[at]]
            codes = slab.codes
            if codes.dims != dims:
                raise ValueError("the shapes do not go together")
            if starts[at] < stops[at]:
                with nogil:
                    lgkv_chosen_coded(codes.rows + starts[at] * dims, stops[at] - starts[at],
                                      &query[0], <int>dims, &upper[filled])
                    bound(slab, codes, starts[at], stops[at], reach, margin, &upper[filled],
                          heap, places, count)
            filled += stops[at] - starts[at]
        least = heap[0]
    finally:
        free(heap)
        free(places)
    return least


cdef void bound(
    SlabRows slab, Codes codes, Py_ssize_t start, Py_ssize_t stop, float reach, float margin,
    float *sums, float *heap, int64_t *places, Py_ssize_t count,
) noexcept nogil:
    """Make sums upper bounds; the greatest lower bounds go to the heap."""
    cdef Py_ssize_t row
    cdef float key, slack
    for row in range(start, stop):
        if slab.has_dead and not slab.alive[row]:
            sums[row - start] = -INFINITY
            continue
        key = sums[row - start] * codes.steps[row]
        slack = codes.slacks[row] * reach + margin
        sums[row - start] = key + slack
        if key - slack > heap[0]:
            heap[0] = key - slack
            sink(heap, places, count, 0)
