"""Asking the processor for memory that will be read soon."""

cdef extern from *:
    """
    #if defined(__GNUC__) || defined(__clang__)
    /* The empty assembly is an effect: GCC leaves out a function that only fetches. */
    static inline void lgkv_effect(void) { __asm__ __volatile__(""); }
    #define LGKV_PREFETCH(address) (__builtin_prefetch(address), lgkv_effect())
    #elif defined(_M_X64) || defined(_M_IX86)
    #include <xmmintrin.h>
    #define LGKV_PREFETCH(address) _mm_prefetch((const char *)(address), _MM_HINT_T0)
    #else
    #define LGKV_PREFETCH(address) ((void)(address))
    #endif
    """
    void LGKV_PREFETCH(const void *address) noexcept nogil
