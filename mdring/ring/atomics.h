/* Memory orders of mdring: the only file that spells them.
 *
 * Built on the compilers' __atomic builtins, hence right on x86-64 and aarch64 and visible to
 * ThreadSanitizer. Every operand is a naturally aligned 64-bit word (32-bit for the futex).
 */
#ifndef MDRING_ATOMICS_H
#define MDRING_ATOMICS_H

#include <stddef.h>
#include <stdint.h>

_Static_assert(__atomic_always_lock_free(sizeof(uint64_t), 0), "64-bit atomics must be lock-free");

static inline uint64_t load_relaxed_u64(const uint64_t *word) { return __atomic_load_n(word, __ATOMIC_RELAXED); }
static inline uint64_t load_acquire_u64(const uint64_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
static inline void store_relaxed_u64(uint64_t *word, uint64_t value) { __atomic_store_n(word, value, __ATOMIC_RELAXED); }
static inline void store_release_u64(uint64_t *word, uint64_t value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }
static inline void fence_acquire(void) { __atomic_thread_fence(__ATOMIC_ACQUIRE); }
static inline void fence_release(void) { __atomic_thread_fence(__ATOMIC_RELEASE); }
/* Orders a store before a later load of another word (Dekker); the one full barrier of the protocol. */
static inline void fence_full(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

/* Copies between a shared slot and private memory: a racing copy of plain memory would be undefined behaviour, a
 * racing copy of relaxed words is merely old or new, and validation sorts that out.
 *
 * Compilers do not vectorise atomic words, which halves the bandwidth. On x86-64 pairs of words are therefore moved
 * by aligned 16-byte instructions: they tear no aligned word, and the fences around them bind compiler and processor
 * alike. ThreadSanitizer and other machines get the words one by one. */
#if defined(__SSE2__) && !defined(__SANITIZE_THREAD__)
#include <emmintrin.h>
static inline void copy_words_from_shared(uint64_t *out, const uint64_t *shared, size_t words) {
    size_t i = 0;
    if (words > 0 && (uintptr_t)shared % 16) out[i] = __atomic_load_n(shared, __ATOMIC_RELAXED), i++;
    for (; i + 2 <= words; i += 2)
        _mm_storeu_si128((__m128i_u *)(out + i), _mm_load_si128((const __m128i *)(shared + i)));
    if (i < words) out[i] = __atomic_load_n(shared + i, __ATOMIC_RELAXED);
}
static inline void copy_words_to_shared(uint64_t *shared, const uint64_t *in, size_t words) {
    size_t i = 0;
    if (words > 0 && (uintptr_t)shared % 16) __atomic_store_n(shared, in[i], __ATOMIC_RELAXED), i++;
    for (; i + 2 <= words; i += 2)
        _mm_store_si128((__m128i *)(shared + i), _mm_loadu_si128((const __m128i_u *)(in + i)));
    if (i < words) __atomic_store_n(shared + i, in[i], __ATOMIC_RELAXED);
}
#else
static inline void copy_words_from_shared(uint64_t *out, const uint64_t *shared, size_t words) {
    for (size_t i = 0; i < words; i++) out[i] = __atomic_load_n(shared + i, __ATOMIC_RELAXED);
}
static inline void copy_words_to_shared(uint64_t *shared, const uint64_t *in, size_t words) {
    for (size_t i = 0; i < words; i++) __atomic_store_n(shared + i, in[i], __ATOMIC_RELAXED);
}
#endif

/* One turn of a spin loop. */
static inline void cpu_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("isb" ::: "memory");
#endif
}

#endif
