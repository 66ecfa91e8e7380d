/* Waiting for a ring's next record: idle strategies, and the futex on the cursor's low half.
 *
 * FUTEX_WAIT needs no write access, so a blocked reader of a read-only mapping burns no CPU and still
 * registers nowhere. Words are compared by the kernel before it sleeps: no wake-up is missed (row P5).
 */
#ifndef MDRING_WAIT_H
#define MDRING_WAIT_H

#include "ring.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

typedef enum { MDRING_IDLE_SPIN, MDRING_IDLE_YIELD, MDRING_IDLE_BACKOFF, MDRING_IDLE_BLOCK } mdring_idle;

enum { MDRING_BACKOFF_MIN_NS = 1000, MDRING_BACKOFF_MAX_NS = 1000000 };

static inline uint64_t mdring_clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline struct timespec mdring_timespec(uint64_t ns) {
    return (struct timespec){.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
}

/* The 32-bit word that FUTEX_WAIT compares: the low half of a little-endian 64-bit word. */
static inline uint32_t *mdring_futex_word(uint64_t *word) { return (uint32_t *)word; }

/* Sleep while the word is what was seen; true if it was woken or the word differs, false after `timeout_ns`, or when
 * a signal came. */
static inline bool mdring_futex_wait(uint64_t *word, uint64_t seen, uint64_t timeout_ns) {
    struct timespec timeout = mdring_timespec(timeout_ns);
    return syscall(SYS_futex, mdring_futex_word(word), FUTEX_WAIT, (uint32_t)seen, &timeout, NULL, 0) == 0 ||
           errno == EAGAIN;
}

static inline void mdring_futex_wake_all(uint64_t *word) {
    syscall(SYS_futex, mdring_futex_word(word), FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

/* struct futex_waitv of linux/futex.h, which older headers lack. */
struct mdring_futex_waiter {
    uint64_t value;
    uint64_t address;
    uint32_t flags;
    uint32_t reserved;
};
enum { MDRING_FUTEX_32 = 2, MDRING_MAX_WAITERS = 128 };

/* Wait until one of `count` words differs from what was seen. False if the kernel (before 5.16) cannot. */
static inline bool mdring_futex_wait_any(uint64_t *const *words, const uint64_t *seen, unsigned count,
                                         uint64_t timeout_ns) {
    struct mdring_futex_waiter waiters[MDRING_MAX_WAITERS];
    for (unsigned i = 0; i < count; i++) {
        waiters[i] = (struct mdring_futex_waiter){(uint32_t)seen[i], (uint64_t)(uintptr_t)words[i], MDRING_FUTEX_32, 0};
    }
    struct timespec deadline = mdring_timespec(mdring_clock_ns(CLOCK_MONOTONIC) + timeout_ns);
    return syscall(SYS_futex_waitv, waiters, count, 0, &deadline, CLOCK_MONOTONIC) >= 0 || errno != ENOSYS;
}

/* Wait for record `seq`; true if it (or a lap) is there. Returns false after `timeout_ns`, or when a signal came. Only
 * MDRING_IDLE_SPIN keeps the core to itself: the others yield for `spin_ns` first, so that the process that is waited
 * for runs if it shares the core. */
static inline bool mdring_wait(const mdring_ring *ring, uint64_t seq, mdring_idle idle, uint64_t spin_ns,
                               uint64_t timeout_ns) {
    uint64_t start = mdring_clock_ns(CLOCK_MONOTONIC), pause_ns = MDRING_BACKOFF_MIN_NS;
    for (;;) {
        for (int i = 0; i < 64; i++) {
            if (mdring_presence_of(ring, seq) != MDRING_NOT_YET) return true;
            cpu_relax();
        }
        uint64_t waited = mdring_clock_ns(CLOCK_MONOTONIC) - start;
        if (waited >= timeout_ns) return false;
        if (idle == MDRING_IDLE_SPIN) continue;
        if (idle == MDRING_IDLE_YIELD || waited < spin_ns) {
            sched_yield();
        } else if (idle == MDRING_IDLE_BACKOFF) {
            struct timespec pause = mdring_timespec(pause_ns);
            if (nanosleep(&pause, NULL) != 0) return false;
            pause_ns = pause_ns * 2 < MDRING_BACKOFF_MAX_NS ? pause_ns * 2 : MDRING_BACKOFF_MAX_NS;
        } else {
            uint64_t seen = load_acquire_u64(ring->cursor);
            if (mdring_presence_of(ring, seq) != MDRING_NOT_YET) return true; /* sync: P5 */
            mdring_futex_wait(ring->cursor, seen, timeout_ns - waited);
            return mdring_presence_of(ring, seq) != MDRING_NOT_YET;
        }
    }
}

#endif
