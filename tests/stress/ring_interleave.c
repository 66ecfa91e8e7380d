/* Every interleaving, with up to two switches amid a poll, of the real ring.h: where test_ring_model.py explores
 * a mirror of the protocol, this program explores the code that is shipped.
 *
 *   ring_interleave SLOT_COUNT ROOM FILTERED SWITCHES PLAN
 *
 * A PLAN is what is published: batches separated by commas, a letter per record: `a` wanted, inside a group; `A`
 * wanted, end of a group; `b`, `B` the same but dropped by the filter. After a `/` follows the plan of a successor:
 * then the first writer is killed after each of its stores in turn.
 *
 * As a reader never stores, all the stores of the writers are known beforehand. They are recorded once; then polls
 * are run in which, before chosen accesses of the reader, a number of these stores are carried out. Prints the
 * outcomes that were seen, one a line; the names are those of test_ring_model.py.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ring.h is compiled against these accesses instead of those of atomics.h. */
#define MDRING_ATOMICS_H
static uint64_t shared_load(const uint64_t *word);
static void shared_store(uint64_t *word, uint64_t value);
#define load_relaxed_u64 shared_load
#define load_acquire_u64 shared_load
#define store_relaxed_u64 shared_store
#define store_release_u64 shared_store
static void fence_acquire(void) {}
static void fence_release(void) {}
static void copy_words_from_shared(uint64_t *out, const uint64_t *shared, size_t words) {
    for (size_t i = 0; i < words; i++) out[i] = shared_load(shared + i);
}
static void copy_words_to_shared(uint64_t *shared, const uint64_t *in, size_t words) {
    for (size_t i = 0; i < words; i++) shared_store(shared + i, in[i]);
}
#include "ring.h"

enum { WORDS = 3, MAX_SLOTS = 16, MAX_RECORDS = 64, MAX_STORES = 1024, LAST = 1, WANTED_KIND = 1, OTHER_KIND = 2 };
enum outcome { GROUPS, PART, NOTHING, LAPPED, CAUGHT_UP, TORN, GHOST, OUT_OF_ORDER, HALF_GROUP, MISCOUNTED, FALSE_LAP, STUCK, OUTCOMES };
static const char *const NAMES[OUTCOMES] = {"GROUPS", "PART", "NOTHING", "LAPPED", "CAUGHT_UP", "TORN", "GHOST",
                                            "OUT_OF_ORDER", "HALF_GROUP", "MISCOUNTED", "FALSE_LAP", "STUCK"};

static uint64_t memory[MAX_SLOTS * WORDS + 1];
static mdring_ring ring = {.slots = memory, .slot_words = WORDS, .flags_offset = 8, .last_flag = LAST};
static const mdring_filter FILTER = {.kinds = 1 << WANTED_KIND, .kind_offset = 9, .instrument_offset = 12};
static uint64_t room;
static bool filtered;

static struct {
    uint64_t *address;
    uint64_t value;
} stores[MAX_STORES];
static uint64_t store_count;
static uint64_t published_after[MAX_STORES + 1]; /* records visible after so many stores */
static uint64_t truth[MAX_RECORDS + 1];          /* by seq: content of the records that are published in the end */
static bool recording;

static uint64_t applied;       /* stores carried out so far */
static uint64_t accesses;      /* of the reader, so far */
static struct {
    uint64_t before_access;
    uint64_t stores;
} switches[2];

static bool seen[OUTCOMES];

static void shared_store(uint64_t *word, uint64_t value) {
    *word = value;
    if (!recording) abort(); /* a reader that stores */
    if (store_count == MAX_STORES) abort();
    stores[store_count].address = word;
    stores[store_count++].value = value;
}

static void apply(uint64_t count) {
    for (; count > 0 && applied < store_count; count--, applied++) *stores[applied].address = stores[applied].value;
}

static uint64_t shared_load(const uint64_t *word) {
    if (!recording) {
        accesses++;
        for (int i = 0; i < 2; i++) {
            if (switches[i].before_access == accesses) apply(switches[i].stores);
        }
    }
    return *word;
}

/* ---- what the writers do ------------------------------------------------------------------------------ */

static bool is_last(uint64_t content) { return content & LAST; }
static bool is_wanted(uint64_t content) { return !filtered || (content >> 8 & 0xff) == WANTED_KIND; }

static uint64_t content_of(uint64_t generation, uint64_t seq, char shape) {
    bool last = shape == 'A' || shape == 'B', wanted = shape == 'a' || shape == 'A';
    return (last ? LAST : 0) | (wanted ? WANTED_KIND : OTHER_KIND) << 8 | generation << 16 | seq << 32;
}

static void note_published(uint64_t from_store, uint64_t count) {
    for (uint64_t i = from_store; i <= store_count; i++) published_after[i] = count;
}

/* Publish one generation's plan after `cursor`, recording the stores. */
static void record_plan(uint64_t cursor, uint64_t generation, const char *plan, const char *end) {
    while (plan < end) {
        uint64_t records[MAX_RECORDS * WORDS], count = 0, begin = store_count;
        for (; plan < end && *plan != ','; plan++, count++) {
            uint64_t content = content_of(generation, cursor + 1 + count, *plan);
            memcpy(records + count * WORDS, (uint64_t[]){0, content, content}, sizeof(uint64_t[WORDS]));
        }
        if (plan < end) plan++;
        mdring_publish(&ring, cursor, records, count);
        note_published(begin, cursor);
        for (uint64_t i = begin; i < store_count; i++) {
            if (stores[i].address == mdring_slot(&ring, cursor + 1) && stores[i].value == cursor + 1) {
                note_published(i + 1, cursor + count);
            }
        }
        for (uint64_t i = 0; i < count; i++) truth[cursor + 1 + i] = records[i * WORDS + 1];
        cursor += count;
    }
}

/* Record the stores of a writer that is killed after `killed_after` of them (none: it lives), and of its successor. */
static bool record(const char *plan, uint64_t killed_after) {
    const char *heir = strchr(plan, '/');
    recording = true;
    memset(memory, 0, sizeof memory);
    store_count = 0;
    record_plan(0, 0, plan, heir ? heir : plan + strlen(plan));
    bool killed = heir && killed_after < store_count;
    if (killed) {
        store_count = applied = 0;
        memset(memory, 0, sizeof memory);
        for (; applied < killed_after; applied++) *stores[applied].address = stores[applied].value;
        store_count = killed_after;
        uint64_t cursor = mdring_resume(&ring);
        note_published(killed_after, cursor);
        record_plan(cursor, 1, heir + 1, plan + strlen(plan));
    }
    recording = false;
    return killed || !heir;
}

/* ---- what the reader makes of it ---------------------------------------------------------------------- */

/* The last wanted record of the group that `seq` is in. */
static uint64_t end_of_wanted(uint64_t seq) {
    uint64_t found = seq;
    for (; !is_last(truth[seq]); seq++) {
        if (is_wanted(truth[seq + 1])) found = seq + 1;
    }
    return found;
}

static uint64_t wanted_in_group_of(uint64_t seq) {
    uint64_t wanted = 0;
    while (seq > 1 && !is_last(truth[seq - 1])) seq--;
    for (;; seq++) {
        wanted += is_wanted(truth[seq]);
        if (is_last(truth[seq])) return wanted;
    }
}

static enum outcome judge_lap(uint64_t start, const mdring_reader *reader, uint64_t lost) {
    uint64_t first_lost = reader->next - lost;
    if (lost == 0 || first_lost < start) return MISCOUNTED;
    for (uint64_t seq = start; seq < first_lost; seq++) {
        if (is_wanted(truth[seq])) return MISCOUNTED;
    }
    if (reader->next > published_after[applied] + 1 || !is_last(truth[reader->next - 1])) return HALF_GROUP;
    for (uint64_t seq = first_lost; seq < reader->next; seq++) {
        if (*mdring_slot(&ring, seq) != seq) return LAPPED;
    }
    return FALSE_LAP; /* all that is said to be lost still stands there */
}

static enum outcome judge(uint64_t start, const mdring_reader *reader, const mdring_reader *before,
                          const uint64_t *out, uint64_t taken) {
    uint64_t due = start;
    for (uint64_t i = 0; i < taken; i++, due++) {
        const uint64_t *record = out + i * WORDS;
        if ((record[1] & ~(uint64_t)LAST) != (record[2] & ~(uint64_t)LAST)) return TORN;
        if (record[0] > published_after[applied] || record[2] != truth[record[0]]) return GHOST;
        while (due < record[0] && !is_wanted(truth[due])) due++;
        if (record[0] != due) return OUT_OF_ORDER;
        bool ends = !reader->partial && record[0] == end_of_wanted(record[0]);
        if (is_last(record[1]) != ends) return HALF_GROUP;
    }
    if (reader->laps > before->laps) return taken ? MISCOUNTED : judge_lap(start, reader, reader->lost - before->lost);
    if (reader->lost > before->lost) return MISCOUNTED;
    if (reader->next > published_after[applied] + 1) return GHOST;
    for (; due < reader->next; due++) {
        if (is_wanted(truth[due])) return OUT_OF_ORDER;
    }
    if (reader->partial) return taken == room && wanted_in_group_of(reader->next - 1) > room ? PART : HALF_GROUP;
    if (reader->next > 1 && !is_last(truth[reader->next - 1])) return HALF_GROUP;
    return taken ? GROUPS : NOTHING;
}

static enum outcome poll_and_judge(mdring_reader *reader) {
    uint64_t out[MAX_RECORDS * WORDS];
    mdring_reader before = *reader;
    uint64_t taken = mdring_poll(&ring, reader, filtered ? &FILTER : NULL, out, room);
    enum outcome outcome = judge(before.next, reader, &before, out, taken);
    seen[outcome] = true;
    return outcome;
}

/* One run: `before` stores, a poll from `start` with its switches, the rest of the stores, polls to the end. */
static uint64_t run(uint64_t start, uint64_t before) {
    memset(memory, 0, sizeof memory);
    applied = accesses = 0;
    apply(before);
    mdring_reader reader = {.next = start};
    uint64_t polled;
    enum outcome outcome = poll_and_judge(&reader);
    polled = accesses;
    memset(switches, 0, sizeof switches);
    apply(store_count);
    while (outcome < TORN) {
        uint64_t next = reader.next;
        outcome = poll_and_judge(&reader);
        if (reader.next == next) break;
    }
    if (outcome < TORN) seen[reader.next == published_after[store_count] + 1 ? CAUGHT_UP : STUCK] = true;
    return polled;
}

static void switch_at(int which, uint64_t access, uint64_t count) {
    switches[which].before_access = access;
    switches[which].stores = count;
}

/* All runs of the recorded stores: any place to start from, any two accesses before which stores happen. */
static uint64_t explore(int most_switches) {
    uint64_t runs = 0;
    for (uint64_t before = 0; before <= store_count; before++) {
        uint64_t left = store_count - before;
        for (uint64_t start = 1; start <= published_after[before] + 1; start++) {
            if (start > 1 && !is_last(truth[start - 1])) continue;
            uint64_t polled = run(start, before);
            for (uint64_t at = 1; at <= polled; at++) {
                for (uint64_t count = 1; count <= left; count++) {
                    switch_at(0, at, count);
                    polled = run(start, before);
                    runs++;
                    for (uint64_t again = at + 1; most_switches > 1 && again <= polled; again++) {
                        for (uint64_t more = 1; count + more <= left; more++) {
                            switch_at(0, at, count);
                            switch_at(1, again, more);
                            run(start, before);
                            runs++;
                        }
                    }
                }
            }
        }
    }
    return runs;
}

int main(int argc, char **argv) {
    if (argc != 6) {
        fprintf(stderr, "usage: %s SLOT_COUNT ROOM FILTERED SWITCHES PLAN\n", argv[0]);
        return 2;
    }
    ring.slot_count = strtoull(argv[1], NULL, 10);
    ring.cursor = memory + MAX_SLOTS * WORDS;
    room = strtoull(argv[2], NULL, 10);
    filtered = atoi(argv[3]);
    uint64_t runs = 0;
    for (uint64_t killed_after = 0; record(argv[5], killed_after); killed_after++) {
        runs += explore(atoi(argv[4]));
        if (!strchr(argv[5], '/')) break;
    }
    fprintf(stderr, "%llu runs\n", (unsigned long long)runs);
    for (int i = 0; i < OUTCOMES; i++) {
        if (seen[i]) puts(NAMES[i]);
    }
    return 0;
}
