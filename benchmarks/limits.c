/* The machine's limits, and the native core beside them: what the Python figures are measured against.
 *
 * Built by limits.py with the C compiler at hand. Every function is called by processes that map the same zeroed
 * memory (by two as role 0 and 1), or by one alone.
 */
#include "../mdring/ring/wait.h"

#include <errno.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>

static inline uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Bare ping-pong of one cache line each way: role 0 stores n in word 0, role 1 answers in word 16 (128 bytes on).
 * Role 0 writes each round trip in ns to `out`. */
void pingpong_line(uint64_t *shared, uint64_t rounds, int role, uint64_t *out) {
    uint64_t *ping = shared, *pong = shared + 16;
    for (uint64_t n = 1; n <= rounds; n++) {
        if (role == 0) {
            uint64_t start = now_ns();
            store_release_u64(ping, n);
            while (load_acquire_u64(pong) != n) cpu_relax();
            out[n - 1] = now_ns() - start;
        } else {
            while (load_acquire_u64(ping) != n) cpu_relax();
            store_release_u64(pong, n);
        }
    }
}

/* What a record of 128 bytes moves and nothing else: two lines each way, others each time as in a ring of so many
 * slots. The second line is written first, and read once the first one has come. No copy, no check. */
void pingpong_lines(uint64_t *shared, uint64_t slots, uint64_t rounds, int role, uint64_t *out) {
    uint64_t *mine = shared + (uint64_t)role * slots * 16, *theirs = shared + (uint64_t)(1 - role) * slots * 16;
    for (uint64_t n = 1; n <= rounds; n++) {
        uint64_t *to = mine + (n & (slots - 1)) * 16, *from = theirs + (n & (slots - 1)) * 16;
        uint64_t start = now_ns();
        if (role == 0) {
            store_relaxed_u64(to + 8, n);
            store_release_u64(to, n);
        }
        while (load_acquire_u64(from) != n || load_relaxed_u64(from + 8) != n) cpu_relax();
        if (role == 1) {
            store_relaxed_u64(to + 8, n);
            store_release_u64(to, n);
        } else {
            out[n - 1] = now_ns() - start;
        }
    }
}

/* The same with a record of 128 bytes: publish on one ring, poll, publish on the other. */
void pingpong_ring(uint64_t *shared, uint64_t slots, uint64_t rounds, int role, uint64_t *out) {
    enum { WORDS = 16 };
    uint64_t record[WORDS] = {0}, received[WORDS];
    ((uint8_t *)record)[29] = 1;
    mdring_ring rings[2];
    for (int i = 0; i < 2; i++) {
        uint64_t *base = shared + i * (16 + slots * WORDS);
        rings[i] = (mdring_ring){base + 16, base, slots, WORDS, 29, 1};
    }
    const mdring_ring *mine = &rings[role], *theirs = &rings[1 - role];
    mdring_reader reader = {1, 0, 0, false};
    uint64_t cursor = 0;
    for (uint64_t n = 1; n <= rounds; n++) {
        uint64_t start = now_ns();
        if (role == 0) cursor = mdring_publish(mine, cursor, record, 1);
        while (mdring_poll(theirs, &reader, NULL, received, 1) == 0) cpu_relax();
        if (role == 1) cursor = mdring_publish(mine, cursor, record, 1);
        if (role == 0) out[n - 1] = now_ns() - start;
    }
}

/* Copy `bytes` from one place to another `rounds` times; returns ns in all. */
uint64_t copy_memory(void *to, const void *from, uint64_t bytes, uint64_t rounds) {
    uint64_t start = now_ns();
    for (uint64_t i = 0; i < rounds; i++) {
        memcpy(to, from, bytes);
        __asm__ __volatile__("" : : "r"(to) : "memory");
    }
    return now_ns() - start;
}

/* Send `count` frames on a socket at fixed times, `interval_ns` apart, however slow the receiver is (open loop).
 * Frame i is bytes[offsets[i]] to bytes[offsets[i + 1]]. stamps[i] is when it should count as being on the wire: the
 * time just before its send; but its due time, if that passed while the socket was full, for then the receiver made
 * it late. late[i] is how much after its due time it was sent for whatever reason. All by CLOCK_MONOTONIC.
 * Returns 0, or -errno. */
int64_t send_open_loop(int descriptor, const uint8_t *bytes, const uint64_t *offsets, uint64_t count,
                       uint64_t interval_ns, uint64_t *stamps, uint64_t *late) {
    prctl(PR_SET_TIMERSLACK, 1);
    uint64_t begun = now_ns() + 1000000, full_until = 0;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t due = begun + i * interval_ns, now = now_ns();
        if (now < due) {
            struct timespec wake = {.tv_sec = (time_t)(due / 1000000000u), .tv_nsec = (long)(due % 1000000000u)};
            while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &wake, NULL) == EINTR) {}
            now = now_ns();
        }
        stamps[i] = due < full_until ? due : now;
        late[i] = now - due;
        const uint8_t *next = bytes + offsets[i], *end = bytes + offsets[i + 1];
        while (next < end) {
            ssize_t sent = send(descriptor, next, (size_t)(end - next), MSG_NOSIGNAL | MSG_DONTWAIT);
            if (sent >= 0) {
                next += sent;
            } else if (errno == EAGAIN) {
                struct pollfd writable = {.fd = descriptor, .events = POLLOUT};
                poll(&writable, 1, 1000);
                full_until = now_ns();
            } else if (errno != EINTR) {
                return -errno;
            }
        }
    }
    return 0;
}

/* The way of a frame from the wire to a callback with nothing on it but what wakes its processes: bytes come on a
 * socket to the first, which counts the frames of `size` bytes in a word; the next ones hand the count on from word to
 * word, each yielding for `spin_ns` before it sleeps. */
static inline void hand_on(uint64_t *word, uint64_t frames) {
    store_release_u64(word, frames);
    mdring_futex_wake_all(word);
}

static inline uint64_t wait_beyond(uint64_t *word, uint64_t seen, uint64_t spin_ns) {
    for (uint64_t begun = now_ns(), frames;;) {
        if ((frames = load_acquire_u64(word)) != seen) return frames;
        if (now_ns() - begun < spin_ns) sched_yield();
        else mdring_futex_wait(word, seen, 1000000000u);
    }
}

void relay_from_socket(int descriptor, uint64_t *to, uint64_t count, uint64_t size) {
    uint8_t buffer[65536];
    for (uint64_t bytes = 0; bytes < count * size;) {
        ssize_t received = recv(descriptor, buffer, sizeof buffer, 0);
        if (received <= 0) return;
        bytes += (uint64_t)received;
        hand_on(to, bytes / size);
    }
}

void relay_from_word(uint64_t *from, uint64_t *to, uint64_t count, uint64_t spin_ns) {
    for (uint64_t frames = 0; frames < count;) {
        frames = wait_beyond(from, frames, spin_ns);
        hand_on(to, frames);
    }
}

/* The last one writes down when it knew of each frame, by CLOCK_MONOTONIC. */
void note_from_word(uint64_t *from, uint64_t *times, uint64_t count, uint64_t spin_ns) {
    for (uint64_t frames = 0; frames < count;) {
        uint64_t known = wait_beyond(from, frames, spin_ns), now = now_ns();
        while (frames < known) times[frames++] = now;
    }
}
