/* Merging rings into one: the sequencer's duty cycle, and its exactly-once restart.
 *
 * A batch of whole event groups is copied from the sources straight into the slots of the tape, in the order of
 * their times of receipt among the groups that are there now. Then, in this order:
 *
 *   1. the intent is stored: first seq, count, and the position in every source *after* this batch;
 *   2. the batch becomes visible by one store (row P3 of ring.h);
 *   3. the cursor of the tape, then the positions that the sources' writers look at, are stored.
 *
 * Killed anywhere, the tape itself tells a successor whether the batch of the newest intent happened: its cursor
 * stands either at the end of that batch or right before it. In the latter case the intent before it is the truth.
 * Two intents alternate, so one is always whole.
 *
 * Then readers are woken, at most two, whatever their number: they wake the others (row P6). Should all who were woken
 * be stopped, killed or starved before they do, the next batch wakes two more. Comes none, two more are woken after
 * MDRING_REMIND_NS, and all that are left after MDRING_REMIND_ALL_NS, which usually finds nobody: the only delay that
 * readers can cause each other, and the only call whose cost can grow with their number. A sequencer that sleeps
 * instead of yielding for so long skips the first reminder; one that backs off may be late by its longest pause.
 */
#ifndef MDRING_MERGE_H
#define MDRING_MERGE_H

#include "wait.h"

typedef struct {
    mdring_ring ring;
    uint64_t position; /* the last seq that was consumed */
    uint64_t venue;    /* index of its word in the positions */
    uint64_t head_key; /* merge key of the group that is due, if there is one */
    uint64_t taken;    /* records taken in this batch */
    bool has_head;
} mdring_source;

enum { MDRING_MAX_SOURCES = 128, MDRING_MAX_POSITIONS = 256 };

/* Words of an intent. */
enum { INTENT_GENERATION, INTENT_FIRST, INTENT_COUNT, INTENT_POSITIONS, INTENT_WORDS = INTENT_POSITIONS + MDRING_MAX_POSITIONS };

/* Who of those that sleep knows of the newest batch: perhaps not all; the same, and two were reminded; all. */
typedef enum { MDRING_TOLD_SOME, MDRING_TOLD_SOME_TWICE, MDRING_TOLD_ALL } mdring_told;

enum { MDRING_REMIND_NS = 100000, MDRING_REMIND_ALL_NS = 2000000 };

typedef struct {
    mdring_ring tape;
    uint64_t tape_cursor;
    mdring_source *sources;
    uint64_t source_count;
    uint64_t *positions;  /* shared: indexed by venue */
    uint64_t *intents;    /* shared: two of INTENT_WORDS */
    uint64_t *waiting;    /* shared: 1 while the sequencer sleeps */
    uint64_t *latency;    /* shared: histogram of stamp - key, ns */
    uint64_t generation;
    uint64_t told_ns;      /* CLOCK_MONOTONIC: when the newest batch was published */
    mdring_told told;
    uint64_t key_offset;   /* byte offset of the merge key (ts_recv, ns) */
    uint64_t stamp_offset; /* byte offset of the stamp (ts_seq, ns) */
    uint64_t max_batch;    /* records; a single larger group still goes through whole */
    uint64_t max_share;    /* records of one source in a batch, so that a noisy one starves nobody */
} mdring_merge;

static inline void mdring_look_for_head(const mdring_merge *merge, mdring_source *source) {
    /* A lap counts as a head, too: the look at its length will find the damage. */
    source->has_head = mdring_presence_of(&source->ring, source->position + 1) != MDRING_NOT_YET;
    if (source->has_head) {
        source->head_key = load_relaxed_u64(mdring_slot(&source->ring, source->position + 1) + merge->key_offset / 8);
    }
}

static inline mdring_source *mdring_earliest(const mdring_merge *merge) {
    mdring_source *earliest = NULL;
    for (uint64_t i = 0; i < merge->source_count; i++) {
        mdring_source *source = merge->sources + i;
        if (!source->has_head || source->taken >= merge->max_share) continue;
        if (earliest == NULL || source->head_key < earliest->head_key) earliest = source;
    }
    return earliest;
}

/* Records of the group that is due. A group is visible as a whole (P3), so its LAST is there. 0: it is not, the
 * source is damaged. */
static inline uint64_t mdring_group_length(const mdring_source *source) {
    for (uint64_t length = 1; length <= source->ring.slot_count; length++) {
        uint64_t seq = source->position + length;
        if (mdring_presence_of(&source->ring, seq) != MDRING_PRESENT) return 0;
        if (mdring_shared_byte(mdring_slot(&source->ring, seq), source->ring.flags_offset) & source->ring.last_flag)
            return length;
    }
    return 0;
}

/* Copy the due group to `seq`.. on the tape; the record `hidden` stays invisible. False: the source is damaged. */
static inline bool mdring_take_group(mdring_merge *merge, mdring_source *source, uint64_t length, uint64_t seq,
                                     uint64_t hidden, uint64_t stamp) {
    uint64_t record[MDRING_MAX_RECORD_WORDS];
    for (uint64_t i = 0; i < length; i++) {
        uint64_t from = source->position + 1 + i;
        copy_words_from_shared(record, mdring_slot(&source->ring, from), source->ring.slot_words);
        if (record[0] != from || !mdring_validate(&source->ring, from)) return false;
        record[merge->stamp_offset / 8] = stamp;
        mdring_write_hidden(&merge->tape, seq + i, record);
        if (seq + i != hidden) mdring_show(&merge->tape, seq + i);
    }
    mdring_histogram_record(merge->latency, stamp > source->head_key ? stamp - source->head_key : 0);
    source->position += length;
    source->taken += length;
    mdring_look_for_head(merge, source);
    return true;
}

static inline void mdring_store_intent(mdring_merge *merge, uint64_t first, uint64_t count) {
    uint64_t *intent = merge->intents + (++merge->generation % 2) * INTENT_WORDS;
    store_release_u64(intent + INTENT_GENERATION, 0);
    fence_release();
    store_relaxed_u64(intent + INTENT_FIRST, first);
    store_relaxed_u64(intent + INTENT_COUNT, count);
    for (uint64_t i = 0; i < merge->source_count; i++) {
        store_relaxed_u64(intent + INTENT_POSITIONS + merge->sources[i].venue, merge->sources[i].position);
    }
    store_release_u64(intent + INTENT_GENERATION, merge->generation);
}

static inline void mdring_store_positions(mdring_merge *merge) {
    for (uint64_t i = 0; i < merge->source_count; i++) {
        store_release_u64(merge->positions + merge->sources[i].venue, merge->sources[i].position);
    }
}

/* One duty cycle: returns the records published, or -1 - i if source i is damaged (a bug, never the venue's doing). */
static inline int64_t mdring_merge_work(mdring_merge *merge) {
    uint64_t first = merge->tape_cursor + 1, count = 0, stamp = 0;
    for (uint64_t i = 0; i < merge->source_count; i++) {
        merge->sources[i].taken = 0;
        mdring_look_for_head(merge, merge->sources + i);
    }
    for (mdring_source *source; (source = mdring_earliest(merge)) != NULL;) {
        uint64_t length = mdring_group_length(source);
        if (length == 0 || length > merge->tape.slot_count / 2) return -1 - (int64_t)(source - merge->sources);
        if (count > 0 && count + length > merge->max_batch) break;
        /* A group may have come after the batch was begun. */
        if (count == 0 || source->head_key > stamp) stamp = mdring_clock_ns(CLOCK_REALTIME);
        if (!mdring_take_group(merge, source, length, first + count, first, stamp))
            return -1 - (int64_t)(source - merge->sources);
        count += length;
    }
    if (count == 0) return 0;
    mdring_store_intent(merge, first, count);
    mdring_show(&merge->tape, first); /* sync: P3 */
    merge->tape_cursor += count;
    store_release_u64(merge->tape.cursor, merge->tape_cursor); /* sync: P4 */
    mdring_store_positions(merge);
    return (int64_t)count;
}

/* Where to go on after a predecessor that died at any instruction; the tape's cursor has been resumed already.
 * False: tape and intents contradict each other. */
static inline bool mdring_merge_recover(mdring_merge *merge) {
    const uint64_t *newest = NULL, *before = NULL;
    for (int i = 0; i < 2; i++) {
        const uint64_t *intent = merge->intents + i * INTENT_WORDS;
        if (load_acquire_u64(intent + INTENT_GENERATION) == 0) continue;
        if (newest == NULL || intent[INTENT_GENERATION] > newest[INTENT_GENERATION]) {
            before = newest;
            newest = intent;
        } else {
            before = intent;
        }
    }
    const uint64_t *truth = newest;
    if (newest != NULL) {
        merge->generation = newest[INTENT_GENERATION];
        if (merge->tape_cursor + 1 == newest[INTENT_FIRST]) {
            truth = before;
        } else if (merge->tape_cursor + 1 != newest[INTENT_FIRST] + newest[INTENT_COUNT]) {
            return false;
        }
    }
    if (truth == NULL && merge->tape_cursor != 0) return false;
    for (uint64_t i = 0; i < merge->source_count; i++) {
        merge->sources[i].position = truth == NULL ? 0 : truth[INTENT_POSITIONS + merge->sources[i].venue];
    }
    mdring_store_positions(merge);
    merge->told = MDRING_TOLD_SOME; /* it may have published and died */
    return true;
}

static inline bool mdring_any_head(const mdring_merge *merge) {
    for (uint64_t i = 0; i < merge->source_count; i++) {
        const mdring_source *source = merge->sources + i;
        if (mdring_presence_of(&source->ring, source->position + 1) != MDRING_NOT_YET) return true;
    }
    return false;
}

/* Sleep until a source's cursor moves, at most `timeout_ns`. */
static inline void mdring_merge_block(mdring_merge *merge, uint64_t timeout_ns) {
    uint64_t *words[MDRING_MAX_SOURCES], seen[MDRING_MAX_SOURCES];
    store_release_u64(merge->waiting, 1);
    fence_full(); /* sync: P5 */
    for (uint64_t i = 0; i < merge->source_count; i++) {
        words[i] = merge->sources[i].ring.cursor;
        seen[i] = load_acquire_u64(words[i]);
    }
    if (!mdring_any_head(merge) && !mdring_futex_wait_any(words, seen, (unsigned)merge->source_count, timeout_ns)) {
        struct timespec pause = mdring_timespec(MDRING_BACKOFF_MAX_NS < timeout_ns ? MDRING_BACKOFF_MAX_NS : timeout_ns);
        nanosleep(&pause, NULL);
    }
    store_release_u64(merge->waiting, 0);
}

/* Wake all who sleep and do not know of the newest batch. */
static inline void mdring_merge_tell_all(mdring_merge *merge) {
    mdring_wake(merge->tape.cursor, merge->tape_cursor, MDRING_WAKE_EVERYBODY);
    merge->told = MDRING_TOLD_ALL;
}

static inline void mdring_merge_tell(mdring_merge *merge, mdring_told told_if_more) {
    bool all = mdring_wake(merge->tape.cursor, merge->tape_cursor, MDRING_WAKE_LIMIT) < MDRING_WAKE_LIMIT;
    merge->told = all ? MDRING_TOLD_ALL : told_if_more; /* sync: P6 */
}

/* Nothing has come: remind those who should know of the newest batch by now. */
static inline void mdring_merge_remind(mdring_merge *merge, uint64_t now) {
    uint64_t age = now - merge->told_ns;
    if (merge->told == MDRING_TOLD_ALL) return;
    if (age >= MDRING_REMIND_ALL_NS) {
        mdring_merge_tell_all(merge);
    } else if (age >= MDRING_REMIND_NS && merge->told == MDRING_TOLD_SOME) {
        mdring_merge_tell(merge, MDRING_TOLD_SOME_TWICE);
    }
}

/* Duty cycles for `slice_ns`, idling by a strategy as mdring_wait does; returns as mdring_merge_work does, summed up. */
static inline int64_t mdring_merge_run(mdring_merge *merge, mdring_idle idle, uint64_t spin_ns, uint64_t slice_ns) {
    uint64_t start = mdring_clock_ns(CLOCK_MONOTONIC), busy = start, now = start, pause_ns = MDRING_BACKOFF_MIN_NS;
    int64_t total = 0;
    for (;; now = mdring_clock_ns(CLOCK_MONOTONIC)) {
        int64_t work = mdring_merge_work(merge);
        if (work < 0) return work;
        if (work > 0) {
            mdring_merge_tell(merge, MDRING_TOLD_SOME);
            merge->told_ns = busy = now;
            total += work;
            pause_ns = MDRING_BACKOFF_MIN_NS;
        }
        if (now - start >= slice_ns) return total;
        if (work > 0) continue;
        mdring_merge_remind(merge, now);
        if (idle == MDRING_IDLE_SPIN) {
            cpu_relax();
        } else if (idle == MDRING_IDLE_YIELD || now - busy < spin_ns) {
            sched_yield();
        } else if (idle == MDRING_IDLE_BACKOFF) {
            struct timespec pause = mdring_timespec(pause_ns);
            nanosleep(&pause, NULL);
            pause_ns = pause_ns * 2 < MDRING_BACKOFF_MAX_NS ? pause_ns * 2 : MDRING_BACKOFF_MAX_NS;
        } else {
            uint64_t timeout_ns = slice_ns - (now - start);
            if (merge->told != MDRING_TOLD_ALL && timeout_ns > MDRING_REMIND_ALL_NS - (now - merge->told_ns))
                timeout_ns = MDRING_REMIND_ALL_NS - (now - merge->told_ns);
            mdring_merge_block(merge, timeout_ns);
        }
    }
}

#endif
