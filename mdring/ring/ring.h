/* The ring: fixed slots, one writer, any number of readers that only load.
 *
 *   seq starts at 1; slot = seq & mask; word 0 of a slot holds its record's seq, 0 while it is written.
 *   A zero-filled segment is therefore a valid empty ring.
 *
 * Which access pairs with which (P1..P6; each line of code below names its row):
 *
 *   row  word              writer                          reader                        guarantees
 *   P1   slot word 0       seq, release, when the record   acquire, before the copy      a reader that sees seq sees
 *                          is whole                                                      the whole record
 *   P2   slot word 0       0, relaxed, then release fence, relaxed, after an acquire     a copy that mixes two records
 *                          before words 1..                fence, after the copy         is recognised and dropped
 *   P3   first record of   its word 0 is stored last       acquire (as P1)               an event group, or a batch of
 *        a batch                                                                         them, appears at once or not
 *   P4   cursor            release, after P3               acquire, then word 0 again    below the cursor, a word 0 that
 *                                                                                        is not seq means: lapped
 *   P5   cursor / waiting  store, full fence, load         store, full fence, load       no wake-up is missed (the futex
 *                                                                                        call compares the cursor again)
 *   P6   cursor            store, then FUTEX_WAKE of at    FUTEX_WAIT; woken: acquire,   who sleeps and has not seen the
 *                          most two; the rest if nothing   then FUTEX_WAKE of at most    cursor is woken, whoever else is
 *                          comes (merge.h)                 two, before all else          stopped or killed (wait.h)
 *
 * The ring knows the place and meaning of one field of a record besides word 0: the flags byte and its LAST
 * bit, which ends an event group. Both are given at run time. Word 0 is little-endian like all of a segment.
 */
#ifndef MDRING_RING_H
#define MDRING_RING_H

#include "atomics.h"

#include <stdbool.h>
#include <string.h>

enum { MDRING_MAX_RECORD_WORDS = 64, MDRING_USUAL_RECORD_WORDS = 16 };

typedef struct {
    uint64_t *slots;      /* slot_count * slot_words words, shared */
    uint64_t *cursor;     /* the highest published seq, shared */
    uint64_t slot_count;  /* a power of two */
    uint64_t slot_words;
    uint64_t flags_offset; /* byte offset of the flags in a record */
    uint8_t last_flag;     /* the bit of LAST */
} mdring_ring;

static inline uint64_t *mdring_slot(const mdring_ring *ring, uint64_t seq) {
    return ring->slots + (seq & (ring->slot_count - 1)) * ring->slot_words;
}

static inline bool mdring_is_last(const mdring_ring *ring, const uint64_t *record) {
    return ((const uint8_t *)record)[ring->flags_offset] & ring->last_flag;
}

/* One word of a shared slot that holds a byte field; little-endian, as every segment is. */
static inline uint8_t mdring_shared_byte(const uint64_t *slot, uint64_t offset) {
    return (uint8_t)(load_relaxed_u64(slot + offset / 8) >> (8 * (offset % 8)));
}

/* The body of a slot, all words but word 0; a record's usual size lets the compiler unroll the copy. */
static inline void mdring_copy_out(uint64_t *record, const uint64_t *slot, uint64_t words) {
    if (words == MDRING_USUAL_RECORD_WORDS)
        copy_words_from_shared(record + 1, slot + 1, MDRING_USUAL_RECORD_WORDS - 1);
    else
        copy_words_from_shared(record + 1, slot + 1, words - 1);
}

static inline void mdring_copy_in(uint64_t *slot, const uint64_t *record, uint64_t words) {
    if (words == MDRING_USUAL_RECORD_WORDS)
        copy_words_to_shared(slot + 1, record + 1, MDRING_USUAL_RECORD_WORDS - 1);
    else
        copy_words_to_shared(slot + 1, record + 1, words - 1);
}

/* ---- writer ------------------------------------------------------------------------------------------- */

/* Write a record and leave word 0 at 0: still invisible. */
static inline void mdring_write_hidden(const mdring_ring *ring, uint64_t seq, const uint64_t *record) {
    uint64_t *slot = mdring_slot(ring, seq);
    store_relaxed_u64(slot, 0); /* sync: P2 */
    fence_release();            /* sync: P2 */
    mdring_copy_in(slot, record, ring->slot_words);
}

static inline void mdring_show(const mdring_ring *ring, uint64_t seq) {
    store_release_u64(mdring_slot(ring, seq), seq); /* sync: P1, P3 */
}

/* Publish `count` records (whole event groups) after `cursor` by one store; returns the new cursor. */
static inline uint64_t mdring_publish(const mdring_ring *ring, uint64_t cursor, const uint64_t *records,
                                      uint64_t count) {
    uint64_t first = cursor + 1;
    for (uint64_t i = 1; i < count; i++) {
        mdring_write_hidden(ring, first + i, records + i * ring->slot_words);
        mdring_show(ring, first + i); /* unreachable until `first` shows */
    }
    mdring_write_hidden(ring, first, records);
    mdring_show(ring, first);
    store_release_u64(ring->cursor, cursor + count); /* sync: P4 */
    return cursor + count;
}

/* Take over from a writer that may have died at any instruction; returns the cursor to go on from.
 *
 * A batch whose first record shows is whole (P3), though the cursor may not say so yet. A batch whose first
 * record does not show has not happened, but its later records may carry valid seqs: they are erased, or
 * readers would take them for records of the next batch. */
static inline uint64_t mdring_resume(const mdring_ring *ring) {
    uint64_t cursor = load_acquire_u64(ring->cursor);
    for (uint64_t i = 0; i < ring->slot_count; i++) {
        if (load_acquire_u64(mdring_slot(ring, cursor + 1)) != cursor + 1) break;
        cursor++;
    }
    for (uint64_t i = 0; i < ring->slot_count; i++) {
        uint64_t *slot = ring->slots + i * ring->slot_words;
        if (load_relaxed_u64(slot) > cursor) store_relaxed_u64(slot, 0);
    }
    store_release_u64(ring->cursor, cursor); /* sync: P4 */
    return cursor;
}

/* ---- reader ------------------------------------------------------------------------------------------- */

typedef struct {
    uint64_t next;  /* the seq that is due: everything below it was delivered, skipped by the filter, or lost */
    uint64_t lost;  /* records that the writer overwrote before this reader had them */
    uint64_t laps;  /* how often that happened */
    bool partial;   /* the last poll ended inside an event group, as that is larger than the caller's array */
} mdring_reader;

typedef struct {
    uint64_t kinds;             /* bit k: records of kind k are wanted */
    const uint8_t *instruments; /* byte i: instrument i is wanted; NULL: all are */
    uint64_t instrument_count;  /* an instrument from here on is delivered: its reader cannot have judged it yet */
    uint64_t kind_offset;       /* byte offset of the kind (u1) */
    uint64_t instrument_offset; /* byte offset of the instrument id (u4) */
} mdring_filter;

typedef enum { MDRING_PRESENT, MDRING_NOT_YET, MDRING_LAPPED } mdring_presence;

/* Whether the record `seq` stands in its slot. */
static inline mdring_presence mdring_presence_of(const mdring_ring *ring, uint64_t seq) {
    const uint64_t *slot = mdring_slot(ring, seq);
    uint64_t found = load_acquire_u64(slot); /* sync: P1, P3 */
    if (found == seq) return MDRING_PRESENT;
    /* Word 0 only rises, zeros apart: an older record means not yet, and the cursor's line stays untouched. */
    if (found != 0 && found < seq) return MDRING_NOT_YET;
    if (load_acquire_u64(ring->cursor) < seq) return MDRING_NOT_YET; /* sync: P4 */
    /* Published between the two loads, or overwritten: only another look can tell. */
    return load_acquire_u64(slot) == seq ? MDRING_PRESENT : MDRING_LAPPED; /* sync: P1, P4 */
}

/* Whether what was copied from the slot of `seq` is whole. */
static inline bool mdring_validate(const mdring_ring *ring, uint64_t seq) {
    fence_acquire();                                           /* sync: P2 */
    return load_relaxed_u64(mdring_slot(ring, seq)) == seq;    /* sync: P2 */
}

/* Where a lapped reader resumes: an eighth of the ring above the oldest record, so that it is not lapped again
 * at once, and from there at the beginning of an event group. Never below `at_least` (from 1). A dead writer may
 * have erased records up to half a ring ahead of its cursor: the search passes over them. */
static inline uint64_t mdring_resume_point(const mdring_ring *ring, uint64_t at_least) {
    /* `before` is the record before the resume point: it must end a group, or be none. */
    for (uint64_t before = at_least - 1;; before++) {
        uint64_t cursor = load_acquire_u64(ring->cursor); /* sync: P4 */
        uint64_t kept = ring->slot_count - ring->slot_count / 8;
        if (cursor > kept && cursor - kept > before) before = cursor - kept;
        if (before == 0 || before >= cursor) return before + 1; /* the cursor stands at the end of a group */
        if (mdring_presence_of(ring, before) != MDRING_PRESENT) continue;
        uint8_t flags = mdring_shared_byte(mdring_slot(ring, before), ring->flags_offset);
        if (mdring_validate(ring, before) && flags & ring->last_flag) return before + 1;
    }
}

static inline bool mdring_wanted(const mdring_filter *filter, const uint64_t *slot) {
    uint8_t kind = mdring_shared_byte(slot, filter->kind_offset);
    if (kind > 63 || !(filter->kinds >> kind & 1)) return false;
    if (filter->instruments == NULL) return true;
    uint64_t word = load_relaxed_u64(slot + filter->instrument_offset / 8);
    uint32_t instrument = (uint32_t)(word >> (8 * (filter->instrument_offset % 8)));
    return instrument >= filter->instrument_count || filter->instruments[instrument];
}

/* Copy whole event groups into `out` (room for `room` records); returns how many records were delivered.
 *
 * Looks at one ring's length of slots, and on to the end of the group that it is in, so it ends also under a writer
 * that never pauses. A group that is larger than `room` comes in parts, with `partial` set; no other group is ever
 * split. Where a filter drops the last record of a group, the last one delivered carries LAST in its place. */
static inline uint64_t mdring_poll(const mdring_ring *ring, mdring_reader *reader, const mdring_filter *filter,
                                   uint64_t *out, uint64_t room) {
    const uint64_t words = ring->slot_words;
    uint64_t seq = reader->next, taken = 0;             /* up to here, group or not */
    uint64_t group_next = seq, group_taken = 0;         /* up to the end of the last whole group */
    bool lapped = false;
    reader->partial = false;
    for (uint64_t looked = 0; looked < ring->slot_count || seq != group_next; looked++) {
        mdring_presence presence = mdring_presence_of(ring, seq);
        if (presence != MDRING_PRESENT) {
            lapped = presence == MDRING_LAPPED;
            break;
        }
        const uint64_t *slot = mdring_slot(ring, seq);
        uint8_t flags = mdring_shared_byte(slot, ring->flags_offset);
        bool wanted = filter == NULL || mdring_wanted(filter, slot);
        if (wanted && taken < room) mdring_copy_out(out + taken * words, slot, words);
        if (!mdring_validate(ring, seq)) {
            lapped = true;
            break;
        }
        if (wanted && taken == room) break; /* only now: a record that is being overwritten may look wanted */
        if (wanted) out[taken++ * words] = seq;
        seq++;
        if (flags & ring->last_flag) {
            if (taken > group_taken) ((uint8_t *)(out + (taken - 1) * words))[ring->flags_offset] |= ring->last_flag;
            group_next = seq;
            group_taken = taken;
            if (taken == room) break; /* looking at the next slot would cost a cache miss */
        }
    }
    if (taken == room && group_taken == 0 && room > 0 && !lapped) {
        reader->partial = true;
        reader->next = seq;
        return taken;
    }
    reader->next = group_next;
    if (lapped && group_taken == 0) {
        uint64_t resume = mdring_resume_point(ring, seq + 1);
        reader->lost += resume - group_next;
        reader->laps++;
        reader->next = resume;
    }
    return group_taken;
}

/* ---- latency histogram -------------------------------------------------------------------------------- */

/* Log-linear: 16 buckets for each power of two, so a bucket is at most 1/16 of its value wide. */
enum { MDRING_HISTOGRAM_BUCKETS = 61 * 16 };

static inline uint64_t mdring_histogram_bucket(uint64_t value) {
    if (value < 16) return value;
    unsigned exponent = 63u - (unsigned)__builtin_clzll(value);
    return (uint64_t)(exponent - 3) * 16 + ((value >> (exponent - 4)) & 15);
}

static inline void mdring_histogram_record(uint64_t *buckets, uint64_t value) {
    uint64_t *bucket = buckets + mdring_histogram_bucket(value);
    store_relaxed_u64(bucket, load_relaxed_u64(bucket) + 1);
}

#endif
