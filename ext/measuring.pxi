# The best of many keys, and the true keys of a few rows.

cdef extern from *:
    r"""
    /* Sums in 4 lanes and one order: equal rows give equal sums wherever they lie. */
    static double lgkv_lanes(const double *sum) { return (sum[0] + sum[1]) + (sum[2] + sum[3]); }

    static void lgkv_measure(const double *row, const double *query, ptrdiff_t dims, int l2,
                             double *first, double *second) {
        double one[4] = {0}, two[4] = {0}, apart;
        ptrdiff_t i = 0;
        int lane;
        for (; i < dims; i += 4)
            for (lane = 0; lane < 4 && i + lane < dims; lane++) {
                if (l2) {
                    apart = row[i + lane] - query[i + lane];
                    one[lane] += apart * apart;
                } else {
                    one[lane] += row[i + lane] * query[i + lane];
                    two[lane] += row[i + lane] * row[i + lane];
                }
            }
        *first = lgkv_lanes(one);
        *second = lgkv_lanes(two);
    }
    """
    void lgkv_measure(
        const double *row, const double *query, ptrdiff_t dims, int l2, double *first,
        double *second
    ) noexcept nogil

# The metrics, in the order of lgkv.vectors.settings.METRICS.
cdef enum:
    COSINE = 0
    INNER_PRODUCT = 1
    SQUARED_L2 = 2


# --- The best ---------------------------------------------------------------------------------


cdef inline void sink(float *heap, int64_t *places, Py_ssize_t size, Py_ssize_t at) noexcept nogil:
    """Let what stands at `at` of a heap, the least of which is first, sink to its level."""
    cdef Py_ssize_t child
    cdef float key = heap[at]
    cdef int64_t place = places[at]
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= key:
            break
        heap[at], places[at] = heap[child], places[child]
        at = child
    heap[at], places[at] = key, place


def top(const float[::1] keys, int64_t[::1] places) -> tuple[int, float]:
    """Fill `places` with where the greatest keys stand; return how many, and the least of them.

    What is -inf does not count. Fewer than there is room for are all there are, and then the
    least is -inf: nothing else is left that it would bound. NaN is no key.
    """
    cdef Py_ssize_t room = places.shape[0], size = 0, at, parent
    cdef float *heap = <float *>malloc((room + 1) * sizeof(float))
    cdef float least
    cdef bint more = False
    if heap == NULL:
        raise MemoryError
    with nogil:
        for at in range(keys.shape[0]):
            if not keys[at] > -INFINITY:
                continue
            if size < room:
                heap[size], places[size] = keys[at], at
                size += 1
                if size == room:
                    for parent in range(room // 2 - 1, -1, -1):
                        sink(heap, &places[0], room, parent)
            else:
                more = True
                if room and keys[at] > heap[0]:
                    heap[0], places[0] = keys[at], at
                    sink(heap, &places[0], room, 0)
    least = heap[0] if more and room else -INFINITY
    free(heap)
    return size, least


def measure(list slabs, record_of, long long epoch, const int64_t[::1] numbers,
            const int64_t[::1] rows, const double[::1] query, int size, int metric) -> list:
    """Return of each row its true key, the label of its item's first vector, its item's name.

    Row `n` is `rows[n]` of slab `numbers[n]`; those of slab -1 are left out. Numbers of rows
    are floats of `size` bytes, 4 or 2, and sums are of doubles. `record_of` gives the record of a
    slab that holds none in this epoch.

    Raises:
        ValueError: A row is not inside its record, or the arrays do not go together.
    """
    cdef Py_ssize_t dims = query.shape[0], stride = size * dims, at, index, several
    cdef SlabRows slab
    cdef Span span
    cdef Span *spans
    cdef const char **places
    cdef double *wide
    cdef double key
    cdef list found = []
    several = rows.shape[0]
    if numbers.shape[0] != several or size not in (2, 4) or not dims:
        raise ValueError("the shapes do not go together")
    spans = <Span *>malloc((several + 1) * sizeof(Span))
    places = <const char **>malloc((several + 1) * sizeof(char *))
    wide = <double *>malloc(dims * sizeof(double))
    try:
        if spans == NULL or places == NULL or wide == NULL:
            raise MemoryError
        for at in range(several):  # what is needed is on its way while the others are asked for
            if numbers[at] < 0:
                continue
            slab = slab_at(slabs, numbers[at])
            spans[at] = span_of(slab, record_of, numbers[at], epoch)
            places[at] = rows_in(slab, spans[at], rows[at], rows[at] + 1, stride)
            LGKV_PREFETCH(spans[at].data + slab.names_at - 4 * (slab.count - rows[at]))
            for index in range(0, stride, 64):
                LGKV_PREFETCH(places[at] + index)
        for at in range(several):
            if numbers[at] < 0:
                continue
            slab = <SlabRows>slabs[numbers[at]]
            for index in range(dims):
                wide[index] = value_at(places[at], index, size)
            key = true_key(wide, &query[0], dims, metric)
            name = slab.name_in(spans[at].data, spans[at].size, rows[at])
            found.append((key, slab.first + slab.items[rows[at]], name))
    finally:
        free(spans)
        free(places)
        free(wide)
    return found


cdef double true_key(
    const double *row, const double *query, Py_ssize_t dims, int metric
) noexcept nogil:
    """Return what vectors are ordered by: cosine, product, or minus the distance squared."""
    cdef double first, own
    lgkv_measure(row, query, dims, metric == SQUARED_L2, &first, &own)
    if metric == COSINE:
        return min(max(first / (sqrt(own) if own else 1.0), -1.0), 1.0)
    return -first if metric == SQUARED_L2 else first


def prepare(const float[::1] vector, bint unit, double[::1] wide, float[::1] narrow) -> float:
    """Fill `wide` and `narrow` with a query, of unit length if asked; return its own length.

    Raises:
        ValueError: The arrays are not of one length.
    """
    cdef Py_ssize_t dims = vector.shape[0], at
    cdef double length, own, value
    if not dims == wide.shape[0] == narrow.shape[0] or not dims:
        raise ValueError("the shapes do not go together")
    for at in range(dims):
        wide[at] = vector[at]
    lgkv_measure(&wide[0], &wide[0], dims, False, &length, &own)
    length = sqrt(length)
    value = length if unit and length else 1.0
    for at in range(dims):
        wide[at] = wide[at] / value
        narrow[at] = <float>wide[at]
    return length


def all_finite(const float[::1] row) -> bool:
    """Return whether every number is finite."""
    cdef float sum = 0
    cdef Py_ssize_t at
    for at in range(row.shape[0]):
        sum += row[at] * 0
    return sum == 0


def measure_rows(const uint8_t[:, ::1] rows, Py_ssize_t dims, double[::1] lengths):
    """Fill `lengths` with those of rows of `dims` floats of 4 or 2 octets.

    Raises:
        ValueError: The shapes do not go together.
    """
    cdef Py_ssize_t size = rows.shape[1] // dims if dims > 0 else 0, at, index
    cdef double *wide
    cdef double own, also
    if size not in (2, 4) or size * dims != rows.shape[1] or rows.shape[0] != lengths.shape[0]:
        raise ValueError("the shapes do not go together")
    wide = <double *>malloc(dims * sizeof(double))
    if wide == NULL:
        raise MemoryError
    with nogil:
        for at in range(rows.shape[0]):
            for index in range(dims):
                wide[index] = value_at(<const char *>&rows[at, 0], index, <int>size)
            lgkv_measure(wide, wide, dims, False, &own, &also)
            lengths[at] = sqrt(own)
    free(wide)
