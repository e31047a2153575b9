# Slabs as the kernels use them: where their rows lie, found by label and by range, and scanned.

include "prefetch.pxi"


@cython.auto_pickle(False)
@cython.final
cdef class SlabRows:
    """A slab as the kernels use it: its columns, its codes, and where it is mapped.

    `labels` are sorted and count from `first`, `order` has the row of each; `items`, `scales`
    and `alive` have one place a row, `alive` being None if all are. `scanned` is for who scans
    to note it. Names of items begin at `names_at` of the record, rows at `rows_at`.

    Raises:
        ValueError: The columns are not of one length.
    """

    cdef readonly uint64_t first
    cdef readonly Py_ssize_t count
    cdef const uint32_t[::1] labels
    cdef const int64_t[::1] order
    cdef const uint32_t[::1] items
    cdef const float[::1] scales
    cdef const uint8_t[::1] alive
    cdef bint has_dead, dense
    cdef Py_ssize_t rows_at, names_at
    cdef object record
    cdef const char *data
    cdef Py_ssize_t size
    cdef long long epoch
    cdef readonly Codes codes
    cdef public bint scanned

    def __init__(self, uint64_t first, const uint32_t[::1] labels, const int64_t[::1] order,
                 const uint32_t[::1] items, const float[::1] scales, alive, Py_ssize_t rows_at,
                 Py_ssize_t names_at):
        self.first, self.count = first, labels.shape[0]
        self.labels, self.order, self.items, self.scales = labels, order, items, scales
        self.has_dead = alive is not None
        if self.has_dead:
            self.alive = alive
        if not self.count == order.shape[0] == items.shape[0] == scales.shape[0] or (
            self.has_dead and self.alive.shape[0] != self.count
        ):
            raise ValueError("the columns are not of one length")
        self.rows_at, self.names_at = rows_at, names_at
        self.epoch = -1
        self.dense = self.count > 0 and (
            labels[self.count - 1] - <Py_ssize_t>labels[0] == self.count - 1
        )

    def share_codes(self, SlabRows other not None):
        """Take the codes of a slab of the same rows, of which others may be dead."""
        if self.count != other.count:
            raise ValueError("the columns are not of one length")
        self.codes, self.scanned = other.codes, other.scanned

    def held(self, long long epoch):
        """Return the record that `hold` was given in this epoch of the map, or None."""
        return self.record if self.epoch == epoch else None

    def hold(self, long long epoch, record):
        """Keep a record that stays where it is as long as the epoch of the map is this one."""
        cdef Py_buffer buffer
        PyObject_GetBuffer(record, &buffer, PyBUF_SIMPLE)
        self.record, self.epoch = record, epoch
        self.data, self.size = <const char *>buffer.buf, buffer.len
        PyBuffer_Release(&buffer)

    def name(self, record, Py_ssize_t row) -> bytes:
        """Return the name of the item that `row` is a vector of.

        Where each ends stands before them in four octets each.

        Raises:
            ValueError: It is not inside the record.
        """
        cdef Py_buffer buffer
        PyObject_GetBuffer(record, &buffer, PyBUF_SIMPLE)
        try:
            return self.name_in(<const char *>buffer.buf, buffer.len, row)
        finally:
            PyBuffer_Release(&buffer)

    cdef bytes name_in(self, const char *data, Py_ssize_t size, Py_ssize_t row):
        cdef uint32_t low = 0, high
        cdef const char *names = data + self.names_at
        if not 0 <= row < self.count or self.names_at < 4 * self.count or self.names_at > size:
            raise ValueError(f"name {row} does not lie in its record")
        if row:
            memcpy(&low, names - 4 * (self.count - row + 1), 4)
        memcpy(&high, names - 4 * (self.count - row), 4)
        if not low <= high <= size - self.names_at:
            raise ValueError(f"name {row} does not lie in its record")
        return names[low:high]

    cdef Py_ssize_t row_of(self, uint64_t label) except -2:
        """Return the row of a label; -1 if it is not there or is dead."""
        cdef Py_ssize_t low = 0, high = self.count, middle, row
        cdef uint64_t offset = label - self.first
        if self.dense and offset >= self.labels[0]:
            offset -= self.labels[0]
            if offset >= <uint64_t>self.count:
                return -1
            low = offset
        else:
            while low < high:
                middle = (low + high) // 2
                if self.labels[middle] < offset:
                    low = middle + 1
                else:
                    high = middle
            if low == self.count or self.labels[low] != offset:
                return -1
        row = self.order[low]
        if not 0 <= row < self.count:
            raise ValueError("the columns do not go together")
        return -1 if self.has_dead and not self.alive[row] else row


cdef SlabRows slab_at(list slabs, Py_ssize_t number):
    """Return a slab by its number."""
    if not 0 <= number < len(slabs):
        raise ValueError(f"there is no slab {number}")
    return <SlabRows?>slabs[number]


cdef struct Span:
    const char *data
    Py_ssize_t size


cdef Span span_of(SlabRows slab, record_of, Py_ssize_t number, long long epoch) except *:
    """Return where the record of a slab lies; it stays there while its snapshot is open.

    `record_of` keeps what it gives, or has the slab hold it.
    """
    cdef Span span
    cdef Py_buffer buffer
    if slab.epoch == epoch:
        span.data, span.size = slab.data, slab.size
        return span
    PyObject_GetBuffer(record_of(number), &buffer, PyBUF_SIMPLE)
    span.data, span.size = <const char *>buffer.buf, buffer.len
    PyBuffer_Release(&buffer)
    return span


cdef const char *rows_in(
    SlabRows slab, Span span, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t stride
) except NULL:
    """Return where rows `start` to `stop` of a slab lie."""
    if stride < 1 or slab.rows_at < 0 or not 0 <= start <= stop or (
        stop > (span.size - slab.rows_at) // stride
    ):
        raise ValueError(f"rows {start} to {stop} do not lie in their buffer")
    return span.data + slab.rows_at + start * stride


# --- Finding rows -----------------------------------------------------------------------------


def locate(list slabs, const uint64_t[::1] firsts, const uint64_t[::1] labels,
           int64_t[::1] numbers, int64_t[::1] rows):
    """Find each label: which of `slabs` holds it, and its row; -1 for what is not there or dead.

    Raises:
        ValueError: The arrays are not of one length.
    """
    cdef Py_ssize_t at, low, high, middle
    cdef uint64_t label
    if firsts.shape[0] != len(slabs) or not (
        labels.shape[0] == numbers.shape[0] == rows.shape[0]
    ):
        raise ValueError("the shapes do not go together")
    for at in range(labels.shape[0]):
        label = labels[at]
        numbers[at] = rows[at] = -1
        low, high = 0, firsts.shape[0]
        while low < high:
            middle = (low + high) // 2
            if firsts[middle] <= label:
                low = middle + 1
            else:
                high = middle
        if low:
            rows[at] = slab_at(slabs, low - 1).row_of(label)
            if rows[at] >= 0:
                numbers[at] = low - 1


def locate_in_ranges(const int64_t[::1] ends, const int64_t[::1] range_slabs,
                     const int64_t[::1] stops, const int64_t[::1] places,
                     int64_t[::1] numbers, int64_t[::1] rows):
    """Find rows that are counted over ranges, of which each ends behind `ends` rows in all.

    Raises:
        ValueError: The arrays are not of one length, or there is no such row.
    """
    cdef Py_ssize_t at, low, high, middle
    if not (ends.shape[0] == range_slabs.shape[0] == stops.shape[0]) or not (
        places.shape[0] == numbers.shape[0] == rows.shape[0]
    ):
        raise ValueError("the shapes do not go together")
    for at in range(places.shape[0]):
        low, high = 0, ends.shape[0]
        while low < high:
            middle = (low + high) // 2
            if ends[middle] <= places[at]:
                low = middle + 1
            else:
                high = middle
        if low == ends.shape[0] or places[at] < 0:
            raise ValueError(f"there is no row {places[at]}")
        numbers[at] = range_slabs[low]
        rows[at] = places[at] - ends[low] + stops[low]


# --- Scanning --------------------------------------------------------------------------------


def scan_slabs(list slabs, record_of, long long epoch, const int64_t[::1] numbers,
               const int64_t[::1] starts, const int64_t[::1] stops, const float[::1] query,
               float[::1] out, bint squared_distance):
    """Do what `scan` does, for rows `starts` to `stops` of the slabs `numbers`."""
    cdef Py_ssize_t several = numbers.shape[0], at
    cdef Py_ssize_t stride = 4 * query.shape[0]
    cdef SlabRows slab
    cdef Part *parts
    if not several == starts.shape[0] == stops.shape[0]:
        raise ValueError("the shapes do not go together")
    parts = <Part *>malloc((several + 1) * sizeof(Part))
    if parts == NULL:
        raise MemoryError
    try:
        for at in range(several):
            slab = slab_at(slabs, numbers[at])
            parts[at].rows = rows_in(
                slab, span_of(slab, record_of, numbers[at], epoch), starts[at], stops[at], stride
            )
            parts[at].count = stops[at] - starts[at]
        scan_parts(parts, several, query, out, squared_distance)
    finally:
        free(parts)


cdef int scan_parts(Part *parts, Py_ssize_t several, const float[::1] query, float[::1] out,
                    bint squared_distance) except -1:
    cdef Py_ssize_t at, filled = 0
    cdef lgkv_kernel run = kernel
    cdef float *target
    for at in range(several):
        filled += parts[at].count
    if filled != out.shape[0]:
        raise ValueError(f"{filled} rows do not fill {out.shape[0]} places")
    if filled:
        target = &out[0]
        with nogil:
            for at in range(several):
                run(parts[at].rows, parts[at].count, &query[0], <int>query.shape[0],
                    squared_distance, target)
                target += parts[at].count
    return 0
