/* One writer thread, several reader threads, a small ring: the real ring.h under load, every record checked.
 *
 *   ring_harness lapping|lossless RECORDS READERS SLOT_COUNT SEED
 *
 * The writer publishes batches of event groups, and now and then dies in the middle of one (it stops at a random
 * place, and goes on as its successor: mdring_resume). `lapping`: it never waits, readers lose records. `lossless`:
 * it waits for the slowest reader, and no reader may lose one. The readers differ in room, filter and idle strategy.
 *
 * Content follows from the seq, so a reader knows what it must find. The first forbidden outcome ends the program
 * with status 1 and its name on stderr; otherwise it prints one JSON object per reader. Built natively, with
 * ThreadSanitizer, with AddressSanitizer, and for aarch64 by test_ring_harness.py.
 */
#ifdef PLAIN_COPY /* negative control: the copies as ThreadSanitizer must not let them pass */
#define copy_words_from_shared relaxed_copy_words_from_shared
#define copy_words_to_shared relaxed_copy_words_to_shared
#include "atomics.h"
#undef copy_words_from_shared
#undef copy_words_to_shared
#define copy_words_from_shared(out, shared, words) memcpy(out, shared, 8 * (words))
#define copy_words_to_shared(shared, in, words) memcpy(shared, in, 8 * (words))
#endif
#include "wait.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { WORDS = 16, MAX_BATCH = 48, MAX_GROUP = 8, MAX_ROOM = 128, MAX_READERS = 16, KINDS = 4, INSTRUMENTS = 8 };
enum { ATTRIBUTES = 3, GROUP_FIRST = 4, GROUP_SIZE = 5, MARK = 6 }; /* words of a record with a meaning */
enum { LAST = 1, NEVER_PUBLISHED = 1 };

static mdring_ring ring = {.slot_words = WORDS, .flags_offset = 29, .last_flag = LAST};
static uint64_t total, seed;
static uint64_t positions[MAX_READERS][16]; /* of the readers, a cache line or two apart */
static unsigned reader_count;
static bool lossless;

static void forbidden(const char *outcome, uint64_t seq, uint64_t found) {
    fprintf(stderr, "FORBIDDEN: %s at seq %llu (found %llx)\n", outcome, (unsigned long long)seq,
            (unsigned long long)found);
    _exit(1);
}

static uint64_t mixed(uint64_t value) {
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
    value = (value ^ value >> 27) * 0x94d049bb133111ebu;
    return value ^ value >> 31;
}

static uint64_t draw(uint64_t *state, uint64_t below) { return mixed(*state += 0x9e3779b97f4a7c15u) % below; }

/* ---- content: a function of the seq ------------------------------------------------------------------- */

static uint64_t kind_of(uint64_t seq) { return mixed(seq ^ seed) % KINDS; }
static uint64_t instrument_of(uint64_t seq) { return mixed(seq + seed) % INSTRUMENTS; }

static uint64_t filling_of(uint64_t seq, uint64_t word) { return mixed(seq * 16 + word); }

static void make_record(uint64_t *record, uint64_t seq, uint64_t group_first, uint64_t group_size, uint64_t mark) {
    bool last = seq + 1 == group_first + group_size;
    for (uint64_t word = 1; word < WORDS; word++) record[word] = filling_of(seq, word);
    record[0] = 0; /* the ring's own */
    record[ATTRIBUTES] = instrument_of(seq) | kind_of(seq) << 32 | (uint64_t)(last ? LAST : 0) << 40;
    record[GROUP_FIRST] = group_first;
    record[GROUP_SIZE] = group_size;
    record[MARK] = mark;
}

/* ---- writer ------------------------------------------------------------------------------------------- */

static uint64_t make_batch(uint64_t *records, uint64_t first, uint64_t *random, uint64_t mark) {
    uint64_t most = ring.slot_count / 2 < MAX_BATCH ? ring.slot_count / 2 : MAX_BATCH;
    if (total - first + 1 < most) most = total - first + 1;
    uint64_t count = 1 + draw(random, most);
    for (uint64_t i = 0; i < count;) {
        uint64_t size = 1 + draw(random, MAX_GROUP);
        if (size > count - i) size = count - i;
        for (uint64_t end = i + size, group = first + i; i < end; i++) {
            make_record(records + i * WORDS, first + i, group, size, mark);
        }
    }
    return count;
}

/* What mdring_publish has done when its process dies: some hidden records, one perhaps half written. */
static void publish_and_die(uint64_t cursor, const uint64_t *records, uint64_t count, uint64_t *random) {
    uint64_t done = draw(random, count);
    for (uint64_t i = 1; i <= done; i++) {
        mdring_write_hidden(&ring, cursor + 1 + i, records + i * WORDS);
        mdring_show(&ring, cursor + 1 + i);
    }
    mdring_write_hidden(&ring, cursor + 1, records);
}

/* All of mdring_publish but its last store: the batch has happened, the cursor does not say so. */
static void publish_without_cursor(uint64_t cursor, const uint64_t *records, uint64_t count) {
    for (uint64_t i = 1; i < count; i++) {
        mdring_write_hidden(&ring, cursor + 1 + i, records + i * WORDS);
        mdring_show(&ring, cursor + 1 + i);
    }
    mdring_write_hidden(&ring, cursor + 1, records);
    mdring_show(&ring, cursor + 1);
}

static uint64_t slowest_position(void) {
    uint64_t slowest = UINT64_MAX;
    for (unsigned i = 0; i < reader_count; i++) {
        uint64_t position = load_acquire_u64(positions[i]);
        if (position < slowest) slowest = position;
    }
    return slowest;
}

static void wait_for_room(uint64_t cursor, uint64_t count) {
    while (lossless && cursor + count - slowest_position() > ring.slot_count) sched_yield();
}

static void *write_all(void *unused) {
    (void)unused;
    uint64_t records[MAX_BATCH * WORDS], random = seed, cursor = 0;
    while (cursor < total) {
        bool dies = draw(&random, 16) == 0;
        uint64_t count = make_batch(records, cursor + 1, &random, dies ? NEVER_PUBLISHED : 0);
        wait_for_room(cursor, count);
        if (dies) {
            publish_and_die(cursor, records, count, &random);
            if (mdring_resume(&ring) != cursor) forbidden("RESUMED_ELSEWHERE", cursor, mdring_resume(&ring));
        } else if (draw(&random, 16) == 0) {
            publish_without_cursor(cursor, records, count);
            cursor = mdring_resume(&ring);
        } else {
            cursor = mdring_publish(&ring, cursor, records, count);
        }
        if (cursor != load_acquire_u64(ring.cursor)) forbidden("WRONG_CURSOR", cursor, load_acquire_u64(ring.cursor));
        mdring_wake(ring.cursor, cursor, MDRING_WAKE_LIMIT);
        if (draw(&random, 8) == 0) sched_yield();
    }
    return NULL;
}

/* ---- readers ------------------------------------------------------------------------------------------ */

struct reading {
    unsigned number;
    uint64_t room;
    mdring_idle idle;
    bool filtered;
    mdring_filter filter;
    mdring_reader state;
    uint64_t received, skipped, parts;
    bool at_group_begin; /* what comes next begins a group */
};

static const uint8_t WANTED_INSTRUMENTS[INSTRUMENTS] = {1, 1, 0, 1, 0, 0, 1, 1};

static bool is_wanted(const struct reading *reading, uint64_t seq) {
    return !reading->filtered ||
           ((reading->filter.kinds >> kind_of(seq) & 1) && WANTED_INSTRUMENTS[instrument_of(seq)]);
}

static bool is_last_wanted(const struct reading *reading, uint64_t seq, uint64_t group_end) {
    while (++seq < group_end) {
        if (is_wanted(reading, seq)) return false;
    }
    return true;
}

static void check_content(const uint64_t *record) {
    uint64_t seq = record[0];
    for (uint64_t word = 1; word < WORDS; word++) {
        if (word < ATTRIBUTES || word > MARK) {
            if (record[word] != filling_of(seq, word)) forbidden("TORN", seq, record[word]);
        }
    }
    if (record[MARK] == NEVER_PUBLISHED) forbidden("GHOST", seq, record[GROUP_FIRST]);
    if (record[MARK] != 0) forbidden("TORN", seq, record[MARK]);
    uint64_t attributes = instrument_of(seq) | kind_of(seq) << 32;
    if ((record[ATTRIBUTES] & ~((uint64_t)LAST << 40)) != attributes) forbidden("TORN", seq, record[ATTRIBUTES]);
    if (record[GROUP_SIZE] - 1 >= MAX_GROUP || seq - record[GROUP_FIRST] >= record[GROUP_SIZE]) {
        forbidden("TORN", seq, record[GROUP_FIRST]);
    }
}

/* Pass over records up to `seq` that are not delivered; they must all be unwanted. */
static void skip_to(struct reading *reading, uint64_t *due, uint64_t seq) {
    if (*due > seq) forbidden("OUT_OF_ORDER", seq, *due);
    for (; *due < seq; (*due)++) {
        if (is_wanted(reading, *due)) forbidden("MISSING", *due, seq);
        reading->skipped++;
    }
}

static void check_poll(struct reading *reading, const mdring_reader *before, const uint64_t *out, uint64_t taken) {
    const mdring_reader *now = &reading->state;
    uint64_t due = before->next;
    bool ended = true;
    for (uint64_t i = 0; i < taken; i++) {
        const uint64_t *record = out + i * WORDS;
        uint64_t seq = record[0], end = record[GROUP_FIRST] + record[GROUP_SIZE];
        check_content(record);
        skip_to(reading, &due, seq);
        due++;
        if (!reading->filtered && reading->at_group_begin && seq != record[GROUP_FIRST]) forbidden("HALF_GROUP", seq, end);
        ended = record[ATTRIBUTES] >> 40 & LAST;
        if (ended != is_last_wanted(reading, seq, end)) forbidden("HALF_GROUP", seq, end);
        reading->at_group_begin = ended;
        if (ended && i + 1 == taken && now->next < end) forbidden("HALF_GROUP", seq, now->next);
    }
    reading->received += taken;
    if (now->partial && (ended || taken != reading->room)) forbidden("NOT_A_PART", due, taken);
    if (!now->partial && !ended) forbidden("HALF_GROUP", due, taken);
    reading->parts += now->partial;
    uint64_t lost = now->lost - before->lost;
    if (lost > 0 && (taken > 0 || lossless || now->laps != before->laps + 1)) forbidden("FALSE_LAP", before->next, lost);
    if (lost > 0) reading->at_group_begin = true;
    skip_to(reading, &due, now->next - lost);
}

static void *read_all(void *argument) {
    struct reading *reading = argument;
    uint64_t out[MAX_ROOM * WORDS];
    while (reading->state.next <= total) {
        mdring_reader before = reading->state;
        uint64_t taken = mdring_poll(&ring, &reading->state, reading->filtered ? &reading->filter : NULL, out,
                                     reading->room);
        check_poll(reading, &before, out, taken);
        store_release_u64(positions[reading->number], reading->state.next - 1);
        if (reading->state.next == before.next) mdring_wait(&ring, before.next, reading->idle, 5000, 10000000);
    }
    if (reading->received + reading->skipped + reading->state.lost != total) {
        forbidden("MISCOUNTED", total, reading->received + reading->skipped + reading->state.lost);
    }
    return NULL;
}

static struct reading make_reading(unsigned number) {
    static const uint64_t rooms[] = {MAX_ROOM, 1, 16, 3};
    /* Not SPIN: where cores are few it starves the others. */
    static const mdring_idle idles[] = {MDRING_IDLE_BLOCK, MDRING_IDLE_YIELD, MDRING_IDLE_BACKOFF};
    return (struct reading){
        .number = number,
        .room = rooms[number % 4],
        .idle = idles[number % 3],
        .filtered = number % 4 >= 2,
        .filter = {.kinds = 6, .instruments = WANTED_INSTRUMENTS, .instrument_count = INSTRUMENTS, .kind_offset = 28,
                   .instrument_offset = 24},
        .state = {.next = 1},
        .at_group_begin = true,
    };
}

int main(int argc, char **argv) {
    if (argc != 6) {
        fprintf(stderr, "usage: %s lapping|lossless RECORDS READERS SLOT_COUNT SEED\n", argv[0]);
        return 2;
    }
    lossless = strcmp(argv[1], "lossless") == 0;
    total = strtoull(argv[2], NULL, 10);
    reader_count = (unsigned)strtoul(argv[3], NULL, 10);
    ring.slot_count = strtoull(argv[4], NULL, 10);
    seed = strtoull(argv[5], NULL, 10);
    uint64_t *memory = aligned_alloc(128, (16 + ring.slot_count * WORDS) * sizeof(uint64_t));
    if (!memory || reader_count > MAX_READERS) return 2;
    memset(memory, 0, (16 + ring.slot_count * WORDS) * sizeof(uint64_t));
    ring.cursor = memory;
    ring.slots = memory + 16;

    pthread_t writer, readers[MAX_READERS];
    struct reading readings[MAX_READERS];
    for (unsigned i = 0; i < reader_count; i++) {
        readings[i] = make_reading(i);
        if (pthread_create(&readers[i], NULL, read_all, &readings[i]) != 0) return 2;
    }
    if (pthread_create(&writer, NULL, write_all, NULL) != 0) return 2;
    pthread_join(writer, NULL);
    for (unsigned i = 0; i < reader_count; i++) {
        pthread_join(readers[i], NULL);
        const struct reading *reading = &readings[i];
        printf("{\"received\": %llu, \"skipped\": %llu, \"lost\": %llu, \"laps\": %llu, \"parts\": %llu}\n",
               (unsigned long long)reading->received, (unsigned long long)reading->skipped,
               (unsigned long long)reading->state.lost, (unsigned long long)reading->state.laps,
               (unsigned long long)reading->parts);
    }
    free(memory);
    return 0;
}
