/* Sleepers wake one another: a writer that wakes two at most for each record, and reader threads that sleep until then.
 *
 *   wake_harness RECORDS READERS
 *
 * The writer waits until every reader has a record before it publishes the next, and nothing but being woken ends a
 * sleep: whoever is left asleep ends the program with status 1 and "FORBIDDEN: ..." on stderr. Every other reader gets a
 * rest of its own before it sleeps, so that some are woken, some find the record while they go to sleep, and some are
 * asleep again before the last is woken. Then the bits of sleepers are held against each other. Built as ring_harness.c
 * is, by test_wake_harness.py.
 */
#include "wait.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { WORDS = 2, SLOT_COUNT = 8, LAST = 1, MAX_READERS = 64 };

#ifndef PATIENCE_S
#define PATIENCE_S 60
#endif

static uint64_t memory[16 + SLOT_COUNT * WORDS] __attribute__((aligned(128)));
static mdring_ring ring = {.slots = memory + 16, .cursor = memory, .slot_count = SLOT_COUNT, .slot_words = WORDS,
                           .flags_offset = 8, .last_flag = LAST};
static uint64_t positions[MAX_READERS][16];
static uint64_t total;

static void forbidden(const char *outcome, uint64_t at) {
    fprintf(stderr, "FORBIDDEN: %s at %llu\n", outcome, (unsigned long long)at);
    _exit(1);
}

static void *read_all(void *argument) {
    uint64_t number = (uint64_t)(uintptr_t)argument, out[SLOT_COUNT * WORDS];
    mdring_reader reader = {.next = 1};
    while (reader.next <= total) {
        if (mdring_poll(&ring, &reader, NULL, out, SLOT_COUNT) > 0) {
            store_release_u64(positions[number], reader.next - 1);
            for (uint64_t i = 0; number % 2 && i < reader.next % 32; i++) sched_yield();
        } else {
            mdring_wait(&ring, reader.next, MDRING_IDLE_BLOCK, 0, 3600000000000u);
        }
    }
    return NULL;
}

static void wait_for(uint64_t number, uint64_t seq) {
    uint64_t start = mdring_clock_ns(CLOCK_MONOTONIC);
    while (load_acquire_u64(positions[number]) < seq) {
        if (mdring_clock_ns(CLOCK_MONOTONIC) - start > PATIENCE_S * 1000000000u) forbidden("ASLEEP_WITH_A_RECORD", seq);
        sched_yield();
    }
}

/* Bits of one cursor are never all among those of another, or a sleeper would be taken for up to date. */
static void check_bits(void) {
    for (uint64_t i = 0, newest = 1; i < 1000000; i++, newest = newest * 6364136223846793005u + 1442695040888963407u) {
        uint64_t behind = i < 500000 ? 1 + i : (newest >> 40) | 1;
        uint32_t woken = ~mdring_wake_bits(newest);
        if (woken == 0 || mdring_wake_bits(newest) == 0) forbidden("NO_BITS", newest);
        if (mdring_wake_bits(newest) & woken) forbidden("WOKEN_UP_TO_DATE", newest);
        if (!(mdring_wake_bits(newest - behind) & woken)) forbidden("TAKEN_FOR_UP_TO_DATE", newest);
    }
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: %s RECORDS READERS\n", argv[0]);
        return 2;
    }
    total = strtoull(argv[1], NULL, 10);
    uint64_t readers = strtoull(argv[2], NULL, 10), record[WORDS] = {0, LAST};
    pthread_t threads[MAX_READERS];
    if (readers > MAX_READERS) return 2;
    check_bits();
    for (uint64_t i = 0; i < readers; i++) {
        if (pthread_create(&threads[i], NULL, read_all, (void *)(uintptr_t)i) != 0) return 2;
    }
    for (uint64_t seq = 1; seq <= total; seq++) {
        mdring_publish(&ring, seq - 1, record, 1);
        int woken = mdring_wake(ring.cursor, seq, MDRING_WAKE_LIMIT);
        if (woken < 0 || woken > MDRING_WAKE_LIMIT) forbidden("WOKEN", (uint64_t)woken);
        for (uint64_t i = 0; i < readers; i++) wait_for(i, seq);
    }
    for (uint64_t i = 0; i < readers; i++) pthread_join(threads[i], NULL);
    return 0;
}
