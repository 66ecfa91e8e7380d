/* The ring's writer, and the sequencer's merge, dead after every single instruction.
 *
 * A process killed by SIGKILL leaves behind exactly what its instructions so far have stored. So a child is
 * single-stepped (ptrace), and after each instruction that changed the shared memory its death is played through on
 * that memory: a reader that was there all the time, and a successor that resumes, must find what the promises say:
 * nothing torn, no half group, every record once and in order. (Real kills of real processes are in
 * test_sequencer_killed.py and test_ring_killed.py; they hit few moments, this hits all.)
 *
 * usage: kill_harness publish|merge; exit code 77: ptrace is not allowed here.
 */
#include "../../mdring/ring/merge.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

enum {
    WORDS = 16, FLAGS = 29, LAST = 1, KEY = 2, VALUE = 4, PLACE = 5, GROUP = 6, VENUE = 7, STAMP = 8,
    TAPE_SLOTS = 32, SOURCE_SLOTS = 16, SOURCES = 2,
    TAPE_WORDS = 16 + TAPE_SLOTS * WORDS, SOURCE_WORDS = 16 + SOURCE_SLOTS * WORDS,
    POSITIONS = TAPE_WORDS + SOURCES * SOURCE_WORDS, INTENTS = POSITIONS + MDRING_MAX_POSITIONS,
    WAITING = INTENTS + 2 * INTENT_WORDS, LATENCY = WAITING + 1, TOTAL = LATENCY + MDRING_HISTOGRAM_BUCKETS
};

static uint64_t *shared;

#define CHECK(condition, ...)                                            \
    do {                                                                 \
        if (!(condition)) {                                              \
            fprintf(stderr, "FORBIDDEN: " __VA_ARGS__);                  \
            fprintf(stderr, "  (%s, line %d)\n", #condition, __LINE__);  \
            exit(1);                                                     \
        }                                                                \
    } while (0)

static mdring_ring tape_ring(void) { return (mdring_ring){shared + 16, shared, TAPE_SLOTS, WORDS, FLAGS, LAST}; }

static mdring_ring source_ring(int source) {
    uint64_t *base = shared + TAPE_WORDS + source * SOURCE_WORDS;
    return (mdring_ring){base + 16, base, SOURCE_SLOTS, WORDS, FLAGS, LAST};
}

/* A group whose records carry their number, place and size, and a filling that shows a torn copy. */
static void make_group(uint64_t *records, uint64_t size, uint64_t first_value, uint64_t venue, uint64_t key) {
    for (uint64_t i = 0; i < size; i++) {
        uint64_t *record = records + i * WORDS;
        for (int w = 1; w < WORDS; w++) record[w] = (first_value + i) * 1000003u;
        record[0] = 0;
        record[KEY] = key;
        record[3] = 0;
        ((uint8_t *)record)[FLAGS] = i + 1 == size ? LAST : 0;
        record[VALUE] = first_value + i;
        record[PLACE] = i;
        record[GROUP] = size;
        record[VENUE] = venue;
        record[STAMP] = 0;
    }
}

typedef struct {
    mdring_reader reader;
    uint64_t next_seq;
    uint64_t next_value[SOURCES];
} witness;

/* Read all there is; `lossless` readers must have everything. */
static void observe(witness *seen) {
    mdring_ring tape = tape_ring();
    uint64_t out[TAPE_SLOTS * WORDS], count;
    while ((count = mdring_poll(&tape, &seen->reader, NULL, out, TAPE_SLOTS)) > 0) {
        for (uint64_t i = 0; i < count; i++) {
            const uint64_t *record = out + i * WORDS;
            CHECK(record[0] == seen->next_seq, "seq %lu where %lu was due", record[0], seen->next_seq);
            CHECK(record[VALUE] == seen->next_value[record[VENUE]], "record %lu where %lu was due", record[VALUE],
                  seen->next_value[record[VENUE]]);
            for (int w = STAMP + 1; w < WORDS; w++) CHECK(record[w] == record[VALUE] * 1000003u, "torn record");
            if (i > 0 && record[PLACE] > 0) CHECK(record[PLACE] == record[-WORDS + PLACE] + 1, "torn group");
            if (i == 0) CHECK(record[PLACE] == 0, "half a group");
            CHECK((((const uint8_t *)record)[FLAGS] == LAST) == (record[PLACE] + 1 == record[GROUP]), "LAST is wrong");
            seen->next_seq++;
            seen->next_value[record[VENUE]]++;
        }
        CHECK(((const uint8_t *)(out + (count - 1) * WORDS))[FLAGS] == LAST, "half a group at the end");
    }
}

/* ---- publish ------------------------------------------------------------------------------------------ */

static const uint64_t PUBLISHED[] = {3, 1, 4, 2};
enum { BEFORE = 40 }; /* single records before: the ring has wrapped */

static void prepare_publish(void) {
    mdring_ring tape = tape_ring();
    uint64_t records[WORDS], cursor = 0;
    for (uint64_t i = 0; i < BEFORE; i++) {
        make_group(records, 1, i, 0, 0);
        cursor = mdring_publish(&tape, cursor, records, 1);
    }
}

static void run_publish(void) {
    mdring_ring tape = tape_ring();
    uint64_t cursor = mdring_resume(&tape), records[8 * WORDS];
    for (int i = 0; i < 4; i++) {
        make_group(records, PUBLISHED[i], cursor, 0, 0);
        cursor = mdring_publish(&tape, cursor, records, PUBLISHED[i]);
    }
}

static void finish_publish(witness *seen) {
    mdring_ring tape = tape_ring();
    uint64_t cursor = mdring_resume(&tape);
    observe(seen);
    CHECK(cursor + 1 == seen->next_seq, "the successor goes on after %lu, readers after %lu", cursor, seen->next_seq);
    /* The successor groups differently, so that what a half-written group left behind would be read as its own. */
    while (cursor < BEFORE + 10) {
        uint64_t record[WORDS];
        make_group(record, 1, cursor, 0, 0);
        cursor = mdring_publish(&tape, cursor, record, 1);
        observe(seen);
        CHECK(seen->next_seq == cursor + 1, "read up to %lu, published up to %lu", seen->next_seq - 1, cursor);
    }
    CHECK(seen->next_value[0] == BEFORE + 10, "%lu records where %d were due", seen->next_value[0], BEFORE + 10);
    CHECK(seen->reader.lost == 0, "lost %lu", seen->reader.lost);
}

/* ---- merge -------------------------------------------------------------------------------------------- */

static mdring_source sources[SOURCES];
static uint64_t source_values[SOURCES];

static void feed(int source, uint64_t size, uint64_t key) {
    mdring_ring ring = source_ring(source);
    uint64_t records[8 * WORDS];
    make_group(records, size, source_values[source], (uint64_t)source, key);
    mdring_publish(&ring, load_acquire_u64(ring.cursor), records, size);
    source_values[source] += size;
}

static mdring_merge open_merge(void) {
    mdring_merge merge = {.tape = tape_ring(), .sources = sources, .source_count = SOURCES, .positions = shared + POSITIONS,
                          .intents = shared + INTENTS, .waiting = shared + WAITING, .latency = shared + LATENCY,
                          .key_offset = KEY * 8, .stamp_offset = STAMP * 8, .max_batch = 5, .max_share = 3};
    for (int i = 0; i < SOURCES; i++) sources[i] = (mdring_source){.ring = source_ring(i), .venue = (uint64_t)i};
    merge.tape_cursor = mdring_resume(&merge.tape);
    CHECK(mdring_merge_recover(&merge), "tape and intents contradict each other");
    return merge;
}

static void run_merge(void) {
    mdring_merge merge = open_merge();
    while (mdring_merge_work(&merge) > 0) continue;
}

static void prepare_merge(void) {
    source_values[0] = source_values[1] = 0;
    for (uint64_t round = 0; round < 12; round++) {
        feed(0, 2, round);
        feed(1, 1, round);
        run_merge();
    }
    feed(0, 2, 50);
    feed(1, 3, 51);
    feed(0, 1, 52);
    feed(1, 2, 53);
    feed(0, 4, 54);
}

static void finish_merge(witness *seen) {
    observe(seen); /* before anybody repairs anything */
    run_merge();
    observe(seen);
    for (int i = 0; i < SOURCES; i++) {
        CHECK(seen->next_value[i] == source_values[i], "venue %d: %lu records on the tape, %lu published", i,
              seen->next_value[i], source_values[i]);
        CHECK(load_acquire_u64(shared + POSITIONS + i) == source_values[i], "venue %d: wrong position", i);
    }
    CHECK(seen->reader.lost == 0, "lost %lu", seen->reader.lost);
}

/* ---- enumeration -------------------------------------------------------------------------------------- */

/* Start `victim` as a child that is stopped before its first instruction. */
static pid_t start_stopped(void (*victim)(void)) {
    pid_t child = fork();
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) _exit(77);
        raise(SIGSTOP);
        victim();
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    if (WIFEXITED(status)) {
        fprintf(stderr, "ptrace is not allowed here\n");
        exit(77);
    }
    return child;
}

/* One instruction; false if the child has come to its end. */
static bool step(pid_t child) {
    int status;
    if (ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) != 0) exit(77);
    waitpid(child, &status, 0);
    if (!WIFEXITED(status)) return true;
    CHECK(WEXITSTATUS(status) == 0, "the victim failed by itself");
    return false;
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    bool merging = strcmp(argv[1], "merge") == 0;
    uint64_t instructions = 0, deaths = 0;
    shared = mmap(NULL, TOTAL * 8, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) return 2;
    (merging ? prepare_merge : prepare_publish)();
    uint64_t *left_behind = malloc(TOTAL * 8), start = load_acquire_u64(tape_ring().cursor);
    memset(left_behind, 0xff, TOTAL * 8);
    pid_t child = start_stopped(merging ? run_merge : run_publish);
    for (bool alive = true; alive; instructions++) {
        alive = step(child);
        if (memcmp(left_behind, shared, TOTAL * 8) == 0) continue; /* the same death as one instruction before */
        memcpy(left_behind, shared, TOTAL * 8);
        witness seen = {.reader = {.next = start + 1}, .next_seq = start + 1};
        for (int i = 0; i < SOURCES; i++) seen.next_value[i] = merging ? 12u * (2u - (unsigned)i) : BEFORE;
        (merging ? finish_merge : finish_publish)(&seen);
        memcpy(shared, left_behind, TOTAL * 8); /* the victim lives on, until its next instruction */
        deaths++;
    }
    printf("%lu instructions, %lu different deaths\n", instructions, deaths);
    return 0;
}
