/* Waiting for a ring's next record: idle strategies, and the futex on the cursor's low half.
 *
 * Neither FUTEX_WAIT nor FUTEX_WAKE needs write access, so a blocked reader of a read-only mapping burns no CPU and
 * still registers nowhere. Words are compared by the kernel before it sleeps: no wake-up is missed (row P5).
 *
 * To wake a sleeper costs the waker some microseconds, and the writer must not pay for every reader. It wakes at most
 * MDRING_WAKE_LIMIT for each batch, and each reader that is woken and finds the cursor moved wakes as many before it
 * does anything else (row P6): all are awake after a number of steps that grows with the logarithm of theirs. The
 * kernel keeps sleepers in the order in which they came, so those who have waited longest are woken first; those who
 * have seen the newest cursor are left asleep (mdring_wake_bits). A reader that is killed or stopped while it sleeps
 * leaves the kernel's queue and takes no wake-up with it. One that is stopped after it was woken and before it has
 * passed that on only matters if all that are awake are: the sequencer looks after those that sleep on (merge.h).
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

enum { MDRING_WAKE_LIMIT = 2, MDRING_WAKE_EVERYBODY = INT_MAX };

/* What a sleeper that has seen a cursor is known by in the kernel: 27 bits of it, and how many of these are 0 (a Berger
 * code). The bits of one cursor are never all among those of another, unless the two differ by a multiple of 2^27. */
static inline uint32_t mdring_wake_bits(uint64_t seen) {
    uint32_t low = (uint32_t)seen & 0x7ffffffu;
    return low << 5 | (uint32_t)(27 - __builtin_popcount(low));
}

/* Wake at most `limit` of those who sleep on a ring's cursor and have not seen it at `newest`; returns how many. */
static inline int mdring_wake(uint64_t *cursor, uint64_t newest, int limit) {
    return (int)syscall(SYS_futex, mdring_futex_word(cursor), FUTEX_WAKE_BITSET, limit, NULL, NULL,
                        ~mdring_wake_bits(newest));
}

/* For a reader that was woken. Without news it must not: two of them could wake each other for ever. */
static inline void mdring_pass_on(uint64_t *cursor, uint64_t seen) {
    uint64_t newest = load_acquire_u64(cursor);
    if (newest != seen) mdring_wake(cursor, newest, MDRING_WAKE_LIMIT); /* sync: P6 */
}

/* Sleep while a ring's cursor is what was seen, until `deadline_ns` (CLOCK_MONOTONIC) or a signal; true if woken. */
static inline bool mdring_cursor_wait(uint64_t *cursor, uint64_t seen, uint64_t deadline_ns) {
    struct timespec deadline = mdring_timespec(deadline_ns);
    long result = syscall(SYS_futex, mdring_futex_word(cursor), FUTEX_WAIT_BITSET, (uint32_t)seen, &deadline, NULL,
                          mdring_wake_bits(seen));
    if (result == 0) mdring_pass_on(cursor, seen);
    return result == 0;
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
            mdring_cursor_wait(ring->cursor, seen, start + timeout_ns);
            return mdring_presence_of(ring, seq) != MDRING_NOT_YET;
        }
    }
}

#endif
