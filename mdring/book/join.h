/* Joining late: books from their checkpoints, then the records of the tape above the floor.
 *
 * A checkpoint holds a book as it was at `position`, so it contains every record up to there and skips it in the
 * replay. Ordinals of a joined set are seqs: whether the reason of a book or that of its venue is the newer one is
 * then decided alike for what was loaded and for what is replayed.
 */
#ifndef MDRING_BOOK_JOIN_H
#define MDRING_BOOK_JOIN_H

#include "book.h"
#include "checkpoints.h"
#include "ring.h"

/* What a checkpoint consists of. */
typedef struct {
    uint64_t words; /* of all of it */
    uint32_t instrument_id;
    uint8_t venue_id;
    uint8_t state; /* mdring_book_state, never LOADING */
    uint8_t reason;
    uint8_t pad0;
    uint64_t position;     /* every record of the instrument up to here is in it */
    uint64_t seq;          /* of the last one */
    uint64_t explained_at; /* seq of the record that gave the reason */
    uint64_t bid_count;
    uint64_t ask_count;
    mdring_level levels[]; /* bids, then asks, best first */
} mdring_checkpoint;

enum { MDRING_CHECKPOINT_HEADER_WORDS = sizeof(mdring_checkpoint) / 8 };

_Static_assert(sizeof(mdring_checkpoint) == 56 && sizeof(mdring_level) == 16, "a checkpoint consists of whole words");

/* Make the checkpoint of a book in `out`, at the end of an event group; returns its words, 0 if there is no memory. */
static inline uint64_t mdring_checkpoint_of(const mdring_books *books, const mdring_book *book, uint64_t position,
                                            mdring_buffer *out) {
    const mdring_side *bids = &book->sides[MDRING_BIDS], *asks = &book->sides[MDRING_ASKS];
    uint64_t words = MDRING_CHECKPOINT_HEADER_WORDS + 2 * (uint64_t)(bids->level_count + asks->level_count);
    if (!mdring_buffer_reserve(out, words)) return 0;
    const mdring_explanation *explanation = mdring_book_explanation(books, book);
    mdring_checkpoint *made = (mdring_checkpoint *)out->words;
    *made = (mdring_checkpoint){
        .words = words,
        .instrument_id = book->instrument_id,
        .venue_id = book->venue_id,
        .state = book->state,
        .reason = explanation->reason,
        .position = position,
        .seq = book->seq,
        .explained_at = explanation->ordinal,
        .bid_count = (uint64_t)bids->level_count,
        .ask_count = (uint64_t)asks->level_count,
    };
    mdring_copy_levels(bids, bids->level_count, made->levels);
    mdring_copy_levels(asks, asks->level_count, made->levels + bids->level_count);
    return words;
}

/* Make a book what its checkpoint says. False if there is no memory, or if the book has more levels than the set
 * allows: it is invalid then. */
static inline bool mdring_book_resume(mdring_books *books, mdring_book *book, const mdring_checkpoint *from) {
    int64_t bid_count = (int64_t)from->bid_count, ask_count = (int64_t)from->ask_count;
    book->venue_id = from->venue_id;
    if (bid_count > books->max_levels || ask_count > books->max_levels) {
        mdring_book_invalidate(books, book, books->layout.reason_buffer_full);
        book->joined_seq = from->position;
        return true;
    }
    if (!mdring_book_load(books, book, from->levels, bid_count, from->levels + bid_count, ask_count, from->seq,
                          from->state == MDRING_VALID, from->reason))
        return false;
    book->state = from->state;
    book->joined_seq = from->position;
    book->explanation = (mdring_explanation){.ordinal = from->explained_at, .reason = from->reason};
    return true;
}

/* Empty all books and forget all that was said of venues. Counts of the books stay. */
static inline void mdring_books_forget(mdring_books *books) {
    for (int64_t id = 0; id < books->capacity; id++) {
        mdring_book *book = books->by_id[id];
        if (book == NULL) continue;
        mdring_book_reset(books, book, MDRING_INVALID, books->layout.reason_none, 0);
        book->seq = book->joined_seq = 0;
        book->venue_id = 0;
    }
    memset(books->venues, 0, sizeof books->venues);
    books->ordinal = 0;
    books->touched_count = 0;
    books->group++;
}

typedef enum {
    MDRING_JOIN_DONE,
    MDRING_JOIN_LAPPED,
    MDRING_JOIN_NO_MEMORY,
} mdring_join_result;

typedef struct {
    mdring_buffer buffer;
    uint64_t position; /* the highest one of the checkpoints loaded */
    uint32_t *without; /* instruments whose book had no room; room for instrument_count */
    uint64_t without_count;
} mdring_late_join;

/* The book of an instrument from its checkpoint, if there is one. */
static inline mdring_join_result mdring_join_book(mdring_late_join *join, mdring_books *books,
                                                  const mdring_checkpoints *store, uint32_t instrument_id) {
    mdring_checkpoint_result result = mdring_checkpoint_read(store, instrument_id, &join->buffer);
    if (result == MDRING_CHECKPOINT_ABSENT) return MDRING_JOIN_DONE;
    if (result == MDRING_CHECKPOINT_BUSY) return MDRING_JOIN_LAPPED;
    mdring_book *book = mdring_books_add(books, instrument_id);
    if (result == MDRING_CHECKPOINT_NO_MEMORY || book == NULL) return MDRING_JOIN_NO_MEMORY;
    if (result == MDRING_CHECKPOINT_NO_ROOM) {
        mdring_book_invalidate(books, book, books->layout.reason_buffer_full);
        join->without[join->without_count++] = instrument_id;
        return MDRING_JOIN_DONE;
    }
    const mdring_checkpoint *found = (const mdring_checkpoint *)join->buffer.words;
    if (found->position > join->position) join->position = found->position;
    return mdring_book_resume(books, book, found) ? MDRING_JOIN_DONE : MDRING_JOIN_NO_MEMORY;
}

/* Begin with the checkpoints: of the books of the set, or of all instruments if it wants all. */
static inline mdring_join_result mdring_join_load(mdring_late_join *join, mdring_books *books,
                                                  const mdring_checkpoints *store) {
    mdring_books_forget(books);
    join->position = join->without_count = 0;
    uint64_t end = store->instrument_count;
    if ((uint64_t)books->max_instruments < end) end = (uint64_t)books->max_instruments;
    for (uint32_t id = 1; id < end; id++) {
        if (!books->wants_all && mdring_books_get(books, id) == NULL) continue;
        mdring_join_result result = mdring_join_book(join, books, store, id);
        if (result != MDRING_JOIN_DONE) return result;
    }
    return MDRING_JOIN_DONE;
}

/* Apply what the tape has from the reader's position to the end of the first event group at or above `target`. */
static inline mdring_join_result mdring_join_replay(const mdring_ring *tape, mdring_reader *reader, mdring_books *books,
                                                    uint64_t *batch, uint64_t room, uint64_t target) {
    uint64_t laps = reader->laps;
    books->ordinal = reader->next - 1;
    while (reader->next <= target || reader->partial) {
        uint64_t count = mdring_poll(tape, reader, NULL, batch, room);
        if (count == 0 || reader->laps != laps) return MDRING_JOIN_LAPPED;
        mdring_books_apply(books, (const uint8_t *)batch, (int64_t)count);
    }
    return books->out_of_memory ? MDRING_JOIN_NO_MEMORY : MDRING_JOIN_DONE;
}

#endif
