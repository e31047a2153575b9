# The kernels in C, and which of them is used.

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
    #define LGKV_ROW(NAME, row, i) (*(const NAME##_lanes *)((row) + (size_t)(i) * 4))
    #define LGKV_KERNEL(NAME, BYTES, ATTRIBUTES)                                                  \
        typedef float NAME##_lanes __attribute__((vector_size(BYTES), aligned(1), may_alias));    \
        ATTRIBUTES static float NAME##_end(NAME##_lanes sum, const char *row, const float *query, \
                                           int start, int dims, int l2) {                         \
            float total = lgkv_rest(row, query, start, dims, l2);                                 \
            int lane;                                                                             \
            for (lane = 0; lane < BYTES / 4; lane++) total += sum[lane];                          \
            return total;                                                                         \
        }                                                                                         \
        ATTRIBUTES static inline __attribute__((always_inline)) void NAME##_rows(                 \
            const char *rows, int several, const float *query, int dims, int l2, float *out) {    \
            size_t stride = (size_t)dims * 4;                                                     \
            const char *a = rows, *b = several > 1 ? a + stride : a;                              \
            const char *c = several > 2 ? b + stride : b, *d = several > 3 ? c + stride : c;      \
            NAME##_lanes sa = {0}, sb = {0}, sc = {0}, sd = {0}, q, x;                            \
            int i = 0;                                                                            \
            for (; i + BYTES / 4 <= dims; i += BYTES / 4) {                                       \
                q = *(const NAME##_lanes *)(query + i);                                           \
                x = LGKV_ROW(NAME, a, i), sa += LGKV_TERM(x, q);                                  \
                x = LGKV_ROW(NAME, b, i), sb += LGKV_TERM(x, q);                                  \
                x = LGKV_ROW(NAME, c, i), sc += LGKV_TERM(x, q);                                  \
                x = LGKV_ROW(NAME, d, i), sd += LGKV_TERM(x, q);                                  \
                __builtin_prefetch(a + 4 * stride + (size_t)i * 4);                               \
                __builtin_prefetch(b + 4 * stride + (size_t)i * 4);                               \
                __builtin_prefetch(c + 4 * stride + (size_t)i * 4);                               \
                __builtin_prefetch(d + 4 * stride + (size_t)i * 4);                               \
            }                                                                                     \
            out[0] = NAME##_end(sa, a, query, i, dims, l2);                                       \
            if (several > 1) out[1] = NAME##_end(sb, b, query, i, dims, l2);                      \
            if (several > 2) out[2] = NAME##_end(sc, c, query, i, dims, l2);                      \
            if (several > 3) out[3] = NAME##_end(sd, d, query, i, dims, l2);                      \
        }                                                                                         \
        ATTRIBUTES static void NAME(const char *rows, size_t count, const float *query, int dims, \
                                    int l2, float *out) {                                         \
            size_t stride = (size_t)dims * 4, n = 0;                                              \
            for (; n < count; n += 4) {                                                           \
                int several = count - n < 4 ? (int)(count - n) : 4;                               \
                if (l2) NAME##_rows(rows + n * stride, several, query, dims, 1, out + n);         \
                else NAME##_rows(rows + n * stride, several, query, dims, 0, out + n);            \
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

    /* Rows of one octet a number: their products with the query, not yet scaled. */
    typedef void (*lgkv_coded)(const signed char *, size_t, const float *, int, float *);

    static float lgkv_coded_rest(const signed char *row, const float *query, int start, int dims) {
        float sum = 0.0f;
        int i;
        for (i = start; i < dims; i++) sum += (float)row[i] * query[i];
        return sum;
    }

    static void lgkv_coded_plain(const signed char *rows, size_t count, const float *query,
                                 int dims, float *out) {
        size_t n;
        int i, lane;
        for (n = 0; n < count; n++) {
            const signed char *row = rows + n * (size_t)dims;
            float sum[8] = {0}, total;
            for (i = 0; i + 8 <= dims; i += 8)
                for (lane = 0; lane < 8; lane++)
                    sum[lane] += (float)row[i + lane] * query[i + lane];
            total = lgkv_coded_rest(row, query, i, dims);
            for (lane = 0; lane < 8; lane++) total += sum[lane];
            out[n] = total;
        }
    }

    #if defined(__GNUC__) && defined(__x86_64__)
    #include <immintrin.h>
    /* Four sums in registers, each with a row of its own. */
    #define LGKV_CODED(NAME, LANES, ATTRIBUTES, VECTOR, ZERO, STORE, FLOATS, LOAD, FMA)           \
        ATTRIBUTES static float NAME##_end(VECTOR sum, const signed char *row,                    \
                                           const float *query, int start, int dims) {             \
            float each[LANES], total = lgkv_coded_rest(row, query, start, dims);                  \
            int lane;                                                                             \
            STORE(each, sum);                                                                     \
            for (lane = 0; lane < LANES; lane++) total += each[lane];                             \
            return total;                                                                         \
        }                                                                                         \
        ATTRIBUTES static void NAME(const signed char *rows, size_t count, const float *query,    \
                                    int dims, float *out) {                                       \
            size_t n = 0, stride = (size_t)dims;                                                  \
            for (; n < count; n += 4) {                                                           \
                int several = count - n < 4 ? (int)(count - n) : 4, i = 0;                        \
                const signed char *a = rows + n * stride, *b = several > 1 ? a + stride : a;      \
                const signed char *c = several > 2 ? b + stride : b;                              \
                const signed char *d = several > 3 ? c + stride : c;                              \
                VECTOR sa = ZERO(), sb = ZERO(), sc = ZERO(), sd = ZERO(), q;                     \
                for (; i + LANES <= dims; i += LANES) {                                           \
                    q = LOAD(query + i);                                                          \
                    __builtin_prefetch(a + 16 * stride + 4 * (size_t)i);                          \
                    sa = FMA(FLOATS(a + i), q, sa);                                               \
                    sb = FMA(FLOATS(b + i), q, sb);                                               \
                    sc = FMA(FLOATS(c + i), q, sc);                                               \
                    sd = FMA(FLOATS(d + i), q, sd);                                               \
                }                                                                                 \
                out[n] = NAME##_end(sa, a, query, i, dims);                                       \
                if (several > 1) out[n + 1] = NAME##_end(sb, b, query, i, dims);                  \
                if (several > 2) out[n + 2] = NAME##_end(sc, c, query, i, dims);                  \
                if (several > 3) out[n + 3] = NAME##_end(sd, d, query, i, dims);                  \
            }                                                                                     \
        }
    #define LGKV_8_FLOATS(at) \
        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(at))))
    #define LGKV_16_FLOATS(at) \
        _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(at))))
    LGKV_CODED(lgkv_coded_avx2, 8, __attribute__((target("avx2,fma"))), __m256,
               _mm256_setzero_ps, _mm256_storeu_ps, LGKV_8_FLOATS, _mm256_loadu_ps, _mm256_fmadd_ps)
    LGKV_CODED(lgkv_coded_avx512, 16, __attribute__((target("avx512f,fma"))), __m512,
               _mm512_setzero_ps, _mm512_storeu_ps, LGKV_16_FLOATS, _mm512_loadu_ps,
               _mm512_fmadd_ps)
    #endif

    static const char *lgkv_chosen_name = "plain";
    static lgkv_coded lgkv_chosen_coded = lgkv_coded_plain;

    static lgkv_kernel lgkv_choose(const char *wanted) {
    #if defined(__GNUC__) && defined(__x86_64__)
        __builtin_cpu_init();
        if (__builtin_cpu_supports("avx512f") && (!*wanted || !strcmp(wanted, "avx512"))) {
            lgkv_chosen_name = "avx512";
            lgkv_chosen_coded = lgkv_coded_avx512;
            return lgkv_avx512;
        }
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")
            && (!*wanted || !strcmp(wanted, "avx2"))) {
            lgkv_chosen_name = "avx2";
            lgkv_chosen_coded = lgkv_coded_avx2;
            return lgkv_avx2;
        }
    #endif
        (void)wanted;
        lgkv_chosen_name = "plain";
        lgkv_chosen_coded = lgkv_coded_plain;
        return lgkv_plain;
    }
    """
    ctypedef void (*lgkv_kernel)(
        const char *, size_t, const float *, int, int, float *
    ) noexcept nogil
    ctypedef void (*lgkv_coded)(
        const signed char *, size_t, const float *, int, float *
    ) noexcept nogil
    lgkv_kernel lgkv_choose(const char *wanted)
    const char *lgkv_chosen_name
    lgkv_coded lgkv_chosen_coded
