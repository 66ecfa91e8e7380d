/* Watches between a ring's cursor and owners that wait for a descriptor, as event loops do.
 *
 *   watch_harness RECORDS OWNERS
 *
 * The writer wakes two sleepers at most, and waits until every owner has seen the cursor before it moves it again. An
 * owner sleeps in poll() without a time-out, so whoever is not told ends the program with status 1 and "FORBIDDEN: ..."
 * on stderr; so does a question that is answered twice. Owners rest before they ask, so that their threads find
 * questions and moves in any order; some give questions up, and begin anew with another watch. Built as ring_harness.c
 * is, by test_watch_harness.py.
 */
#include "watch.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_OWNERS = 16 };

#ifndef PATIENCE_S
#define PATIENCE_S 60
#endif

static uint64_t cursor[16] __attribute__((aligned(128)));
static uint64_t positions[MAX_OWNERS][16];
static uint64_t total;

static void forbidden(const char *outcome, uint64_t at) {
    fprintf(stderr, "FORBIDDEN: %s at %llu\n", outcome, (unsigned long long)at);
    _exit(1);
}

static uint64_t draw(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

static void rest(uint64_t turns) {
    for (uint64_t i = 0; i < turns; i++) sched_yield();
}

static void *own(void *argument) {
    uint64_t number = (uint64_t)(uintptr_t)argument, random = number, position = 0, asked = 0, answered = 0;
    mdring_watch watch;
    if (mdring_watch_start(&watch, cursor) != 0) forbidden("NOT_STARTED", number);
    while (position < total) {
        uint64_t seen = load_acquire_u64(cursor), answers = 0;
        if (draw(&random) % 4 == 0) rest(draw(&random) % 16);
        if (seen != position) {
            position = seen;
            store_release_u64(positions[number], position);
            if (draw(&random) % 64 == 0) {
                mdring_watch_stop(&watch);
                if (mdring_watch_start(&watch, cursor) != 0) forbidden("NOT_STARTED", number);
                asked = answered = 0;
            }
            continue;
        }
        asked++;
        if (!mdring_watch_ask(&watch, seen)) continue;
        struct pollfd waiting = {.fd = watch.event, .events = POLLIN};
        if (poll(&waiting, 1, draw(&random) % 16 ? -1 : 0) == 1) {
            if (eventfd_read(watch.event, &answers) != 0) forbidden("NO_ANSWER", seen);
            answered += answers;
            if (answered > asked) forbidden("ANSWERED_TWICE", seen);
        }
    }
    mdring_watch_stop(&watch);
    return NULL;
}

static void wait_for(uint64_t number, uint64_t seq) {
    uint64_t start = mdring_clock_ns(CLOCK_MONOTONIC);
    while (load_acquire_u64(positions[number]) < seq) {
        if (mdring_clock_ns(CLOCK_MONOTONIC) - start > PATIENCE_S * 1000000000u) forbidden("NOT_TOLD", seq);
        sched_yield();
    }
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: %s RECORDS OWNERS\n", argv[0]);
        return 2;
    }
    total = strtoull(argv[1], NULL, 10);
    uint64_t owners = strtoull(argv[2], NULL, 10), random = 0;
    pthread_t threads[MAX_OWNERS];
    if (owners > MAX_OWNERS) return 2;
    for (uint64_t i = 0; i < owners; i++) {
        if (pthread_create(&threads[i], NULL, own, (void *)(uintptr_t)i) != 0) return 2;
    }
    for (uint64_t seq = 1; seq <= total; seq++) {
        store_release_u64(cursor, seq);
        mdring_wake(cursor, seq, MDRING_WAKE_LIMIT);
        for (uint64_t i = 0; i < owners; i++) wait_for(i, seq);
        rest(draw(&random) % 16);
    }
    for (uint64_t i = 0; i < owners; i++) pthread_join(threads[i], NULL);
    return 0;
}
