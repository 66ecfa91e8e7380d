/* The L2 books of a set of instruments: the state of each, and how a batch of records changes them.
 *
 *                 CLEAR                    LEVEL|SNAPSHOT, or CLEAR|SNAPSHOT        end of the event group
 *   INVALID ---------------->  CLEARED  ------------------------------->  LOADING ------------------------> VALID
 *      ^                          ^ CLEAR, from any state                                                     |
 *      +---------------------------- a LEVEL that cannot be, no memory, invalidate() -------------------------+
 *
 * INVALID     nothing is known: no CLEAR has come since the set was made (or since it was invalidated).
 * CLEARED     the book is known to be empty of what the tape says; deltas are ignored and counted.
 * LOADING     a snapshot is being applied; what follows it in the same event group is applied too.
 * VALID       deltas are applied.
 *
 * A book is empty unless it is LOADING or VALID. Readers see no LOADING book as long as whole event groups are
 * applied. An event group ends with the first record that has LAST, whatever its kind and instrument; the books
 * that it touched become valid, are looked at for a crossed top, and are reported as changed at that record.
 *
 * STATUS never changes levels or validity: the CLEAR of each affected book that follows it does. It only says
 * anew why a book that is invalid still is.
 *
 * Field offsets and all values of enumerations are given at run time, from mdring.record.
 */
#ifndef MDRING_BOOK_BOOK_H
#define MDRING_BOOK_BOOK_H

#include "side.h"

/* Where the fields stand in a record and what their values mean. */
typedef struct {
    int64_t record_size;
    int64_t seq, instrument_id, kind, flags, side, venue_id, price, size;
    int64_t clear_reason, status_state, status_reason, status_data_type;
    uint8_t kind_level, kind_clear, kind_status;
    uint8_t flag_last, flag_snapshot;
    uint8_t side_bid, side_ask;
    uint8_t data_type_all, data_type_book;
    uint8_t reason_none, reason_bad_message, reason_buffer_full;
    uint64_t explaining_states; /* bit per State that says why a book is invalid */
} mdring_layout;

typedef enum { MDRING_INVALID, MDRING_CLEARED, MDRING_LOADING, MDRING_VALID } mdring_book_state;

enum { MDRING_BIDS = 0, MDRING_ASKS = 1, MDRING_VENUES = 256 };

/* Why a book is invalid, and when that was said: an ordinal of records applied, so that the newer one wins. */
typedef struct {
    uint64_t ordinal;
    uint8_t reason;
} mdring_explanation;

typedef struct {
    mdring_side sides[2];
    uint64_t seq;        /* of the last record applied */
    uint64_t joined_seq; /* records up to here are in the image that was loaded */
    uint64_t group;      /* the last event group that touched the book */
    uint64_t batch;      /* the last batch that reported it as changed */
    uint32_t instrument_id;
    uint8_t state;
    uint8_t venue_id; /* 0 until a record named it */
    bool is_crossed;
    uint64_t crossed; /* event groups that left the book crossed */
    uint64_t ignored; /* LEVEL records that came while the book was invalid */
    mdring_explanation explanation;
} mdring_book;

typedef struct {
    mdring_layout layout;
    mdring_pool pool;
    mdring_book **by_id;
    int64_t capacity; /* of by_id, touched and changed */
    int64_t book_count;
    int64_t max_instruments;
    int64_t max_levels; /* per side */
    bool wants_all;
    bool out_of_memory;    /* since this was last reset: a book is invalid for want of memory, */
    bool id_out_of_range; /* or a record named an id that is not below max_instruments */
    uint64_t ordinal; /* records applied before this batch */
    uint64_t group;   /* the event group that is being applied; from 1 */
    uint64_t batch;   /* from 1 */
    mdring_book **touched; /* by the event group */
    int64_t touched_count;
    uint32_t *changed; /* ids reported by the batch */
    int64_t changed_count;
    mdring_explanation venues[MDRING_VENUES];
} mdring_books;

/* ---- the set ------------------------------------------------------------------------------------------ */

static inline bool mdring_books_reserve(mdring_books *books, int64_t capacity) {
    mdring_book **by_id = realloc(books->by_id, (size_t)capacity * sizeof *by_id);
    if (by_id == NULL) return false;
    memset(by_id + books->capacity, 0, (size_t)(capacity - books->capacity) * sizeof *by_id);
    books->by_id = by_id;
    mdring_book **touched = realloc(books->touched, (size_t)capacity * sizeof *touched);
    if (touched == NULL) return false;
    books->touched = touched;
    uint32_t *changed = realloc(books->changed, (size_t)capacity * sizeof *changed);
    if (changed == NULL) return false;
    books->changed = changed;
    books->capacity = capacity;
    return true;
}

/* The book of an id below max_instruments, made if it is not there; NULL if there is no memory. */
static mdring_book *mdring_books_add(mdring_books *books, uint32_t instrument_id) {
    if (instrument_id >= books->capacity) {
        int64_t capacity = books->capacity > 0 ? books->capacity : 64;
        while (capacity <= instrument_id) capacity *= 2;
        if (!mdring_books_reserve(books, capacity)) return NULL;
    }
    mdring_book *book = books->by_id[instrument_id];
    if (book != NULL) return book;
    void *memory;
    if (posix_memalign(&memory, 64, sizeof *book) != 0) return NULL;
    book = memset(memory, 0, sizeof *book);
    book->instrument_id = instrument_id;
    book->sides[MDRING_ASKS].flip = -1;
    books->by_id[instrument_id] = book;
    books->book_count++;
    return book;
}

static inline mdring_book *mdring_books_get(const mdring_books *books, uint32_t instrument_id) {
    return instrument_id < books->capacity ? books->by_id[instrument_id] : NULL;
}

static inline void mdring_books_destroy(mdring_books *books) {
    for (int64_t id = 0; id < books->capacity; id++) {
        if (books->by_id[id] == NULL) continue;
        free(books->by_id[id]->sides[MDRING_BIDS].lower);
        free(books->by_id[id]->sides[MDRING_ASKS].lower);
        free(books->by_id[id]);
    }
    free(books->by_id);
    free(books->touched);
    free(books->changed);
    mdring_pool_destroy(&books->pool);
}

/* ---- one book ----------------------------------------------------------------------------------------- */

/* Bids at or above the asks: a matching engine leaves neither, so data is missing. */
static inline bool mdring_book_crosses(const mdring_book *book) {
    const mdring_side *bids = &book->sides[MDRING_BIDS];
    const mdring_side *asks = &book->sides[MDRING_ASKS];
    return bids->level_count > 0 && asks->level_count > 0 && mdring_best_key(bids) >= ~mdring_best_key(asks);
}

static inline void mdring_book_reset(
    mdring_books *books, mdring_book *book, mdring_book_state state, uint8_t reason, uint64_t ordinal) {
    mdring_empty(&books->pool, &book->sides[MDRING_BIDS]);
    mdring_empty(&books->pool, &book->sides[MDRING_ASKS]);
    book->state = state;
    book->is_crossed = false;
    book->explanation = (mdring_explanation){.ordinal = ordinal, .reason = reason};
}

/* Make a book what it was when its levels were copied, `seq` being the last record applied.
 * The levels are in order, best first. False if there is no memory: the book is invalid then. */
static inline bool mdring_book_load(
    mdring_books *books, mdring_book *book, const mdring_level *bids, int64_t bid_count, const mdring_level *asks,
    int64_t ask_count, uint64_t seq, bool valid, uint8_t reason) {
    mdring_book_reset(books, book, MDRING_CLEARED, reason, books->ordinal);
    book->seq = seq;
    book->joined_seq = seq;
    if (!mdring_load_levels(&books->pool, &book->sides[MDRING_BIDS], bids, bid_count) ||
        !mdring_load_levels(&books->pool, &book->sides[MDRING_ASKS], asks, ask_count)) {
        mdring_book_reset(books, book, MDRING_INVALID, books->layout.reason_buffer_full, books->ordinal);
        return false;
    }
    if (valid) book->state = MDRING_VALID;
    book->is_crossed = valid && mdring_book_crosses(book);
    return true;
}

/* Forget all that is known: records are missing. Only a CLEAR and a snapshot, or a load, help. */
static inline void mdring_book_invalidate(mdring_books *books, mdring_book *book, uint8_t reason) {
    mdring_book_reset(books, book, MDRING_INVALID, reason, books->ordinal);
}

/* The newest explanation for an invalid book: its own, or one for its whole venue. */
static inline const mdring_explanation *mdring_book_explanation(const mdring_books *books, const mdring_book *book) {
    const mdring_explanation *venue = &books->venues[book->venue_id];
    bool venue_is_newer = book->venue_id != 0 && venue->ordinal > book->explanation.ordinal;
    return venue_is_newer ? venue : &book->explanation;
}

/* ---- applying records --------------------------------------------------------------------------------- */

static inline uint8_t mdring_u8(const uint8_t *record, int64_t offset) {
    return record[offset];
}

static inline uint32_t mdring_u32(const uint8_t *record, int64_t offset) {
    uint32_t value;
    memcpy(&value, record + offset, sizeof value);
    return value;
}

static inline uint64_t mdring_u64(const uint8_t *record, int64_t offset) {
    uint64_t value;
    memcpy(&value, record + offset, sizeof value);
    return value;
}

static inline void mdring_touch(mdring_books *books, mdring_book *book) {
    if (book->group == books->group) return;
    book->group = books->group;
    books->touched[books->touched_count++] = book;
}

/* The book that a record is about, or NULL if it is not wanted or already contains the record. */
static inline mdring_book *mdring_book_of(mdring_books *books, const uint8_t *record) {
    uint32_t instrument_id = mdring_u32(record, books->layout.instrument_id);
    mdring_book *book = mdring_books_get(books, instrument_id);
    if (MDRING_UNLIKELY(book == NULL)) {
        if (!books->wants_all || instrument_id == 0) return NULL;
        if (instrument_id >= books->max_instruments) {
            books->id_out_of_range = true;
            return NULL;
        }
        book = mdring_books_add(books, instrument_id);
        if (book == NULL) {
            books->out_of_memory = true;
            return NULL;
        }
    }
    /* seq 0 (records that no ring has numbered) is never contained: 0 - 1 is the largest integer */
    if (MDRING_UNLIKELY(mdring_u64(record, books->layout.seq) - 1 < book->joined_seq)) return NULL;
    return book;
}

static inline void mdring_apply_level(mdring_books *books, const uint8_t *record, uint64_t ordinal) {
    const mdring_layout *layout = &books->layout;
    mdring_book *book = mdring_book_of(books, record);
    if (book == NULL) return;
    if (MDRING_UNLIKELY(book->state < MDRING_LOADING)) {
        bool begins = book->state == MDRING_CLEARED && mdring_u8(record, layout->flags) & layout->flag_snapshot;
        if (!begins) {
            book->ignored++;
            return;
        }
        book->state = MDRING_LOADING;
    }
    mdring_touch(books, book);
    book->seq = mdring_u64(record, layout->seq);
    uint8_t which = mdring_u8(record, layout->side);
    int64_t size = (int64_t)mdring_u64(record, layout->size);
    if (MDRING_UNLIKELY((which != layout->side_bid && which != layout->side_ask) || size < 0)) {
        mdring_book_reset(books, book, MDRING_INVALID, layout->reason_bad_message, ordinal);
        return;
    }
    mdring_side *side = book->sides + (which == layout->side_ask); /* no branch: sides come at random */
    int64_t key = (int64_t)mdring_u64(record, layout->price) ^ side->flip;
    bool done = mdring_set(&books->pool, side, key, size);
    if (MDRING_UNLIKELY(!done || side->level_count > books->max_levels)) {
        books->out_of_memory |= !done;
        mdring_book_reset(books, book, MDRING_INVALID, layout->reason_buffer_full, ordinal);
    }
}

static inline void mdring_apply_clear(mdring_books *books, const uint8_t *record, uint64_t ordinal) {
    const mdring_layout *layout = &books->layout;
    mdring_book *book = mdring_book_of(books, record);
    if (book == NULL) return;
    bool begins = mdring_u8(record, layout->flags) & layout->flag_snapshot;
    mdring_book_reset(books, book, begins ? MDRING_LOADING : MDRING_CLEARED,
                      mdring_u8(record, layout->clear_reason), ordinal);
    mdring_touch(books, book);
    book->seq = mdring_u64(record, layout->seq);
    book->venue_id = mdring_u8(record, layout->venue_id);
}

static inline void mdring_apply_status(mdring_books *books, const uint8_t *record, uint64_t ordinal) {
    const mdring_layout *layout = &books->layout;
    uint8_t data_type = mdring_u8(record, layout->status_data_type);
    uint8_t state = mdring_u8(record, layout->status_state);
    uint8_t reason = mdring_u8(record, layout->status_reason);
    if (data_type != layout->data_type_all && data_type != layout->data_type_book) return;
    if (reason == layout->reason_none || state >= 64 || !(layout->explaining_states >> state & 1)) return;
    mdring_explanation *explanation;
    if (mdring_u32(record, layout->instrument_id) == 0) {
        explanation = &books->venues[mdring_u8(record, layout->venue_id)];
    } else {
        mdring_book *book = mdring_book_of(books, record);
        if (book == NULL) return;
        book->venue_id = mdring_u8(record, layout->venue_id);
        explanation = &book->explanation;
    }
    *explanation = (mdring_explanation){.ordinal = ordinal, .reason = reason};
}

static inline void mdring_end_group(mdring_books *books) {
    for (int64_t i = 0; i < books->touched_count; i++) {
        mdring_book *book = books->touched[i];
        if (book->state == MDRING_LOADING) book->state = MDRING_VALID;
        book->is_crossed = book->state == MDRING_VALID && mdring_book_crosses(book);
        book->crossed += book->is_crossed;
        if (book->batch != books->batch) {
            book->batch = books->batch;
            books->changed[books->changed_count++] = book->instrument_id;
        }
    }
    books->touched_count = 0;
    books->group++;
}

/* Apply a batch; changed and changed_count then name the books whose event groups ended in it. */
static inline void mdring_books_apply(mdring_books *books, const uint8_t *records, int64_t count) {
    const mdring_layout layout = books->layout;
    const uint8_t *end = records + count * layout.record_size;
    books->changed_count = 0;
    books->batch++;
    for (const uint8_t *record = records; record < end; record += layout.record_size) {
        uint8_t kind = mdring_u8(record, layout.kind);
        books->ordinal++;
        if (MDRING_LIKELY(kind == layout.kind_level)) mdring_apply_level(books, record, books->ordinal);
        else if (kind == layout.kind_clear) mdring_apply_clear(books, record, books->ordinal);
        else if (kind == layout.kind_status) mdring_apply_status(books, record, books->ordinal);
        if (mdring_u8(record, layout.flags) & layout.flag_last) mdring_end_group(books);
    }
}

#endif
