/* The book keeper's duty cycle: the tape in, rows of the book table and checkpoints out.
 *
 *   tape ──▶ books of all instruments ──▶ rows        of what changed, once per batch that ends with an event group
 *                                    └──▶ checkpoints, a few per batch: those first that lag behind the tape most
 *
 * `position` is a seq: the rows contain all up to there. It is stored after them, so whoever reads the position and
 * then a row knows that the row is true at the larger of the position and the row's own seq.
 *
 * Books that changed since their checkpoint wait in a queue in the order of the first change that the checkpoint
 * lacks. So the head of the queue decides the floor. A queue that was `half` a span long is written once while half a
 * span of records goes by, so the floor stays within a span of the position, and a book that changes all the time is
 * written once per half a span, not more. A joiner replays what lies above the floor: where the tape is long, or books
 * are few, half a span is therefore no more than MDRING_CHECKPOINT_LAG records or MDRING_CHECKPOINT_EVERY for each book
 * in the queue, whichever is more, which bounds the keeper's work to one checkpoint for so many records.
 *
 * A keeper that was killed anywhere leaves whole rows and checkpoints. Its successor takes the records and connections
 * from the rows, the books from the checkpoints, and applies to each what the tape has above the floor and what it
 * does not contain yet; it writes rows only when it knows more than any of them.
 */
#ifndef MDRING_BOOK_KEEPER_H
#define MDRING_BOOK_KEEPER_H

#include "join.h"
#include "kept.h"
#include "rows.h"
#include "wait.h"

enum { MDRING_CHECKPOINT_LAG = 8192, MDRING_CHECKPOINT_EVERY = 8 };

typedef struct {
    mdring_kept_layout layout;
    mdring_books *books; /* of all instruments */
    mdring_ring tape;
    mdring_reader reader;
    uint64_t *batch; /* room for `room` records */
    uint64_t room;

    mdring_rows rows;
    uint64_t levels;         /* per side of a row */
    uint64_t *position_word; /* shared */
    uint64_t *current_word;  /* shared: when the rows last contained all of the tape; ns, CLOCK_MONOTONIC */
    uint64_t position;
    mdring_kept *kept; /* by instrument id; rows.row_count of them */
    mdring_kept_venue venues[MDRING_VENUES];
    uint32_t *changed_rows;
    uint64_t changed_row_count;
    mdring_row_content *content; /* of the row that is being made */

    mdring_checkpoint_writer checkpoints;
    mdring_buffer buffer;
    uint64_t span;      /* records that the floor may lag behind the position */
    uint64_t floor;
    uint32_t first_dirty, last_dirty; /* 0: the queue is empty */
    uint64_t dirty_count;

    uint64_t laps;
    uint64_t records;     /* applied */
    uint64_t written;     /* checkpoints */
    uint64_t without;     /* books that have none for want of room */
    uint64_t rowless;     /* records of instruments for which the table has no row */
    bool out_of_memory;
} mdring_keeper;

/* ---- what has changed --------------------------------------------------------------------------------- */

/* The instrument of a record if it has a row; made known. */
static inline mdring_kept *mdring_kept_of(mdring_keeper *keeper, uint32_t instrument_id, uint8_t venue_id) {
    if (MDRING_UNLIKELY(instrument_id >= keeper->rows.row_count)) {
        keeper->rowless++;
        return NULL;
    }
    mdring_kept *kept = keeper->kept + instrument_id;
    if (MDRING_UNLIKELY(!kept->is_known)) {
        const mdring_kept_venue *venue = keeper->venues + venue_id;
        kept->is_known = true;
        kept->venue_id = venue_id;
        kept->connection_state = venue->connection_state;
        kept->connection_reason = venue->connection_reason;
    }
    return kept;
}

static inline void mdring_row_changed(mdring_keeper *keeper, mdring_kept *kept) {
    if (kept->is_row_changed) return;
    kept->is_row_changed = true;
    keeper->changed_rows[keeper->changed_row_count++] = (uint32_t)(kept - keeper->kept);
}

/* The book is not what its checkpoint says any more. */
static inline void mdring_book_changed(mdring_keeper *keeper, mdring_kept *kept) {
    if (kept->is_dirty) return;
    uint32_t instrument_id = (uint32_t)(kept - keeper->kept);
    if (instrument_id >= keeper->checkpoints.store.instrument_count) return;
    kept->is_dirty = true;
    kept->dirty_since = keeper->position;
    kept->next_dirty = 0;
    if (keeper->first_dirty == 0) keeper->first_dirty = instrument_id;
    else keeper->kept[keeper->last_dirty].next_dirty = instrument_id;
    keeper->last_dirty = instrument_id;
    keeper->dirty_count++;
}

static inline void mdring_keep_venue_status(mdring_keeper *keeper, const uint8_t *record) {
    const mdring_layout *fields = &keeper->books->layout;
    uint64_t seq = mdring_u64(record, fields->seq);
    uint8_t venue_id = mdring_u8(record, fields->venue_id), state = mdring_u8(record, fields->status_state);
    mdring_kept_venue *venue = keeper->venues + venue_id;
    if (seq > venue->status[0]) {
        memcpy(venue->status, record, sizeof venue->status);
        if (mdring_u8(record, fields->status_data_type) == fields->data_type_all &&
            mdring_has_bit(keeper->layout.connection_states, state)) {
            venue->connection_state = state;
            venue->connection_reason = mdring_u8(record, fields->status_reason);
        }
    }
    for (uint32_t id = 1; id < keeper->rows.row_count; id++) {
        mdring_kept *kept = keeper->kept + id;
        if (!kept->is_known || kept->venue_id != venue_id || seq <= kept->seq) continue;
        mdring_kept_take_status(&keeper->layout, fields, kept, record, true);
        mdring_row_changed(keeper, kept);
        const mdring_book *book = mdring_books_get(keeper->books, id);
        if (book != NULL && book->state != MDRING_VALID) mdring_book_changed(keeper, kept); /* maybe its reason */
    }
}

static inline void mdring_keep_record(mdring_keeper *keeper, const uint8_t *record, uint8_t kind) {
    const mdring_layout *fields = &keeper->books->layout;
    uint32_t instrument_id = mdring_u32(record, fields->instrument_id);
    if (instrument_id == 0) {
        if (kind == fields->kind_status) mdring_keep_venue_status(keeper, record);
        return;
    }
    mdring_kept *kept = mdring_kept_of(keeper, instrument_id, mdring_u8(record, fields->venue_id));
    if (kept == NULL || mdring_u64(record, fields->seq) <= kept->seq) return;
    if (kind == keeper->layout.kind_bbo) {
        memcpy(kept->bbo, record, sizeof kept->bbo);
    } else if (kind == keeper->layout.kind_trade) {
        if (mdring_is_history(&keeper->layout, fields, kept, record)) return;
        memcpy(kept->trade, record, sizeof kept->trade);
    } else if (kind == fields->kind_status) {
        memcpy(kept->status, record, sizeof kept->status);
        mdring_kept_take_status(&keeper->layout, fields, kept, record, false);
        mdring_book_changed(keeper, kept); /* maybe the reason why it is invalid */
    } else {
        return;
    }
    mdring_row_changed(keeper, kept);
}

/* Take a batch in: books, records, and what has changed by them. */
static inline void mdring_keeper_take(mdring_keeper *keeper, uint64_t count) {
    mdring_books *books = keeper->books;
    const int64_t size = books->layout.record_size;
    const uint8_t *batch = (const uint8_t *)keeper->batch;
    mdring_books_apply(books, batch, (int64_t)count);
    for (uint64_t i = 0; i < count; i++) {
        const uint8_t *record = batch + (int64_t)i * size;
        uint8_t kind = mdring_u8(record, books->layout.kind);
        if (kind == books->layout.kind_level || kind == books->layout.kind_clear) {
            mdring_kept_of(keeper, mdring_u32(record, books->layout.instrument_id),
                           mdring_u8(record, books->layout.venue_id));
        } else {
            mdring_keep_record(keeper, record, kind);
        }
    }
    for (int64_t i = 0; i < books->changed_count; i++) {
        if (books->changed[i] >= keeper->rows.row_count) continue;
        mdring_kept *kept = keeper->kept + books->changed[i];
        mdring_row_changed(keeper, kept);
        mdring_book_changed(keeper, kept);
    }
    keeper->out_of_memory |= books->out_of_memory;
    books->out_of_memory = false;
    keeper->records += count;
}

/* No BBO, no trade and no state is known to be the newest any more. */
static inline void mdring_keeper_doubt(mdring_keeper *keeper, uint64_t resumed) {
    for (uint32_t id = 1; id < keeper->rows.row_count; id++) {
        mdring_kept *kept = keeper->kept + id;
        if (!kept->is_known) continue;
        mdring_doubt(kept, resumed, keeper->layout.reason_lapped);
        kept->connection_seq = 0;
        kept->connection_state = keeper->layout.state_none;
        kept->trading_state = keeper->layout.state_none;
        mdring_row_changed(keeper, kept);
    }
    for (int venue = 0; venue < MDRING_VENUES; venue++) {
        keeper->venues[venue].connection_state = keeper->layout.state_none;
    }
}

/* The tape lapped the keeper: records are lost for good, and books are invalid until their next snapshot. */
static inline void mdring_keeper_lose(mdring_keeper *keeper) {
    uint64_t resumed = keeper->reader.next - 1;
    keeper->books->ordinal = resumed;
    for (uint32_t id = 1; id < keeper->rows.row_count; id++) {
        mdring_book *book = mdring_books_get(keeper->books, id);
        if (book == NULL) continue;
        mdring_book_invalidate(keeper->books, book, keeper->layout.reason_lapped);
        mdring_row_changed(keeper, keeper->kept + id);
        mdring_book_changed(keeper, keeper->kept + id);
    }
    /* not so if only the books, which begin at the floor, lag so far behind */
    if (load_relaxed_u64(keeper->position_word) < resumed) mdring_keeper_doubt(keeper, resumed);
    keeper->laps = keeper->reader.laps;
}

/* ---- rows --------------------------------------------------------------------------------------------- */

static inline uint32_t mdring_row_levels(mdring_level *out, const mdring_side *side, uint64_t levels) {
    int64_t count = mdring_copy_levels(side, (int64_t)levels, out);
    memset(out + count, 0, (levels - (uint64_t)count) * sizeof *out);
    return (uint32_t)count;
}

static inline void mdring_keeper_write_row(mdring_keeper *keeper, uint32_t instrument_id) {
    mdring_kept *kept = keeper->kept + instrument_id;
    const mdring_book *book = mdring_books_get(keeper->books, instrument_id);
    const mdring_kept_venue *venue = keeper->venues + kept->venue_id;
    mdring_row_content *content = keeper->content;
    kept->seq = keeper->position;
    memset(content, 0, sizeof *content);
    content->seq = keeper->position;
    content->instrument_id = instrument_id;
    content->venue_id = kept->venue_id;
    content->connection_state = kept->connection_state;
    content->connection_reason = kept->connection_reason;
    content->connection_seq = kept->connection_seq;
    content->trading_state = kept->trading_state;
    content->doubt_seq = kept->doubt_seq;
    content->doubt_reason = kept->doubt_reason;
    memcpy(content->bbo, kept->bbo, sizeof kept->bbo);
    memcpy(content->trade, kept->trade, sizeof kept->trade);
    memcpy(content->status, kept->status, sizeof kept->status);
    content->venue_state = venue->connection_state;
    content->venue_reason = venue->connection_reason;
    memcpy(content->venue_status, venue->status, sizeof content->venue_status);
    if (book == NULL) {
        memset(content->levels, 0, 2 * keeper->levels * sizeof *content->levels);
    } else {
        content->book_seq = book->seq;
        content->book_valid = book->state == MDRING_VALID;
        if (!content->book_valid) content->book_reason = mdring_book_explanation(keeper->books, book)->reason;
        content->book_crossed = book->is_crossed;
        content->bid_depth = (uint32_t)book->sides[MDRING_BIDS].level_count;
        content->ask_depth = (uint32_t)book->sides[MDRING_ASKS].level_count;
        content->bid_count = mdring_row_levels(content->levels, &book->sides[MDRING_BIDS], keeper->levels);
        content->ask_count =
            mdring_row_levels(content->levels + keeper->levels, &book->sides[MDRING_ASKS], keeper->levels);
    }
    mdring_row_write(&keeper->rows, instrument_id, (const uint64_t *)content);
}

/* Bring the rows up to the position, then say so. */
static inline void mdring_keeper_write_rows(mdring_keeper *keeper) {
    for (uint64_t i = 0; i < keeper->changed_row_count; i++) {
        keeper->kept[keeper->changed_rows[i]].is_row_changed = false;
        mdring_keeper_write_row(keeper, keeper->changed_rows[i]);
    }
    keeper->changed_row_count = 0;
    store_release_u64(keeper->position_word, keeper->position);
}

/* ---- checkpoints -------------------------------------------------------------------------------------- */

static inline void mdring_keeper_write_checkpoint(mdring_keeper *keeper) {
    uint32_t instrument_id = keeper->first_dirty;
    mdring_kept *kept = keeper->kept + instrument_id;
    keeper->first_dirty = kept->next_dirty;
    keeper->dirty_count--;
    kept->is_dirty = false;
    const mdring_book *book = mdring_books_get(keeper->books, instrument_id);
    if (book == NULL) return; /* a STATUS about other things than a book */
    uint64_t words = mdring_checkpoint_of(keeper->books, book, keeper->position, &keeper->buffer);
    bool is_written = false;
    if (words > 0) {
        is_written = mdring_checkpoint_write(&keeper->checkpoints, instrument_id, keeper->buffer.words, words);
    } else {
        keeper->out_of_memory = true;
        mdring_checkpoint_replace(&keeper->checkpoints, instrument_id, MDRING_NO_ROOM);
    }
    keeper->without -= kept->has_no_room;
    keeper->without += !is_written;
    keeper->written += is_written;
    kept->has_no_room = !is_written;
}

/* Write what is due after `taken` more records, and let the floor rise. */
static inline void mdring_keeper_checkpoint(mdring_keeper *keeper, uint64_t taken) {
    uint64_t half = keeper->span / 2;
    uint64_t enough = MDRING_CHECKPOINT_EVERY * keeper->dirty_count;
    if (enough < MDRING_CHECKPOINT_LAG) enough = MDRING_CHECKPOINT_LAG;
    if (half > enough) half = enough;
    uint64_t allowed = 1 + keeper->dirty_count * taken / half;
    while (keeper->first_dirty != 0) {
        uint64_t lag = keeper->position - keeper->kept[keeper->first_dirty].dirty_since;
        if (lag <= half || (lag <= keeper->span && allowed == 0)) break;
        if (allowed > 0) allowed--;
        mdring_keeper_write_checkpoint(keeper);
    }
    keeper->floor =
        keeper->first_dirty == 0 ? keeper->position : keeper->kept[keeper->first_dirty].dirty_since;
    mdring_store_floor(&keeper->checkpoints.store, keeper->floor);
}

/* ---- duty cycle --------------------------------------------------------------------------------------- */

/* Returns the records taken; 0 also if the tape lapped the keeper, which then goes on where the tape lets it. */
static inline uint64_t mdring_keeper_work(mdring_keeper *keeper) {
    uint64_t count = mdring_poll(&keeper->tape, &keeper->reader, NULL, keeper->batch, keeper->room);
    bool is_lapped = keeper->reader.laps != keeper->laps;
    if (is_lapped) mdring_keeper_lose(keeper);
    else if (count == 0) return 0;
    else mdring_keeper_take(keeper, count);
    if (keeper->reader.partial) return count; /* amid an event group nothing is to be seen */
    uint64_t position = keeper->reader.next - 1, taken = position - keeper->position;
    keeper->position = position;
    mdring_keeper_write_rows(keeper);
    mdring_keeper_checkpoint(keeper, taken);
    return is_lapped ? taken : count;
}

/* Duty cycles for `slice_ns`, or until a signal comes; returns the records taken. After the end of the tape is reached
 * it sleeps `pause_ns` if there were any, so that records that follow closely are taken together, and else waits by the
 * idle strategy. */
static inline uint64_t mdring_keeper_run(mdring_keeper *keeper, mdring_idle idle, uint64_t spin_ns, uint64_t pause_ns,
                                         uint64_t slice_ns) {
    uint64_t start = mdring_clock_ns(CLOCK_MONOTONIC), total = 0;
    for (;;) {
        uint64_t now = mdring_clock_ns(CLOCK_MONOTONIC), count = mdring_keeper_work(keeper), taken = count;
        while (count > 0 && now - start < slice_ns) {
            now = mdring_clock_ns(CLOCK_MONOTONIC);
            count = mdring_keeper_work(keeper);
            taken += count;
        }
        total += taken;
        if (count == 0) store_release_u64(keeper->current_word, now); /* of before the look that found no more */
        if (now - start >= slice_ns) return total;
        uint64_t left = slice_ns - (now - start);
        if (taken > 0 && pause_ns > 0) {
            struct timespec pause = mdring_timespec(pause_ns < left ? pause_ns : left);
            if (nanosleep(&pause, NULL) != 0) return total;
        } else if (!mdring_wait(&keeper->tape, keeper->reader.next, idle, spin_ns, left)) {
            return total;
        }
    }
}

/* ---- taking over -------------------------------------------------------------------------------------- */

/* What a predecessor knew besides the books; the highest seq of its rows is returned in `newest`. */
static inline void mdring_keeper_read_rows(mdring_keeper *keeper, uint64_t *newest) {
    mdring_row_content *content = keeper->content;
    for (uint32_t id = 1; id < keeper->rows.row_count; id++) {
        if (mdring_row_read(&keeper->rows, id, (uint64_t *)content, MDRING_ROW_FIXED_WORDS) != MDRING_ROW_READ) continue;
        mdring_kept *kept = keeper->kept + id;
        kept->is_known = true;
        kept->venue_id = content->venue_id;
        kept->seq = content->seq;
        kept->connection_state = content->connection_state;
        kept->connection_reason = content->connection_reason;
        kept->connection_seq = content->connection_seq;
        kept->trading_state = content->trading_state;
        kept->doubt_seq = content->doubt_seq;
        kept->doubt_reason = content->doubt_reason;
        memcpy(kept->bbo, content->bbo, sizeof kept->bbo);
        memcpy(kept->trade, content->trade, sizeof kept->trade);
        memcpy(kept->status, content->status, sizeof kept->status);
        mdring_kept_venue *venue = keeper->venues + content->venue_id;
        if (content->venue_status[0] > venue->status[0]) {
            memcpy(venue->status, content->venue_status, sizeof venue->status);
            venue->connection_state = content->venue_state;
            venue->connection_reason = content->venue_reason;
        }
        if (content->seq > *newest) *newest = content->seq;
        /* it has one, also if no checkpoint was made of it yet */
        if (content->book_seq != 0) keeper->out_of_memory |= mdring_books_add(keeper->books, id) == NULL;
    }
}

/* Become the keeper of segments that a predecessor may have left at any instruction: load the books, and replay the
 * tape to beyond all that is in the rows. Then all rows are written. */
static inline mdring_join_result mdring_keeper_recover(mdring_keeper *keeper) {
    uint64_t target = load_acquire_u64(keeper->position_word);
    mdring_late_join join = {.buffer = keeper->buffer};
    join.without = malloc(keeper->checkpoints.store.instrument_count * sizeof *join.without);
    if (join.without == NULL) return MDRING_JOIN_NO_MEMORY;
    mdring_keeper_read_rows(keeper, &target);
    keeper->floor = mdring_load_floor(&keeper->checkpoints.store);
    mdring_join_result result = mdring_join_load(&join, keeper->books, &keeper->checkpoints.store);
    for (uint64_t i = 0; i < join.without_count; i++) {
        if (join.without[i] < keeper->rows.row_count) keeper->kept[join.without[i]].has_no_room = true;
    }
    keeper->without = join.without_count;
    keeper->buffer = join.buffer;
    free(join.without);
    if (result != MDRING_JOIN_DONE) return result;
    if (join.position > target) target = join.position;
    uint64_t cursor = load_acquire_u64(keeper->tape.cursor);
    if (cursor > target) target = cursor;
    keeper->position = keeper->floor;
    keeper->books->ordinal = keeper->floor;
    keeper->reader = (mdring_reader){.next = keeper->floor + 1};
    keeper->laps = 0;
    while (keeper->reader.next <= target || keeper->reader.partial) {
        uint64_t count = mdring_poll(&keeper->tape, &keeper->reader, NULL, keeper->batch, keeper->room);
        if (keeper->reader.laps != keeper->laps) mdring_keeper_lose(keeper);
        else if (count == 0) return MDRING_JOIN_LAPPED; /* the tape is shorter than what was made of it */
        else mdring_keeper_take(keeper, count);
    }
    keeper->position = keeper->reader.next - 1;
    for (uint32_t id = 1; id < keeper->rows.row_count; id++) {
        mdring_kept *kept = keeper->kept + id;
        const mdring_book *book = mdring_books_get(keeper->books, id);
        if (book != NULL) mdring_kept_of(keeper, id, book->venue_id);
        if (kept->is_known) mdring_row_changed(keeper, kept);
    }
    mdring_keeper_write_rows(keeper);
    mdring_keeper_checkpoint(keeper, 0);
    return MDRING_JOIN_DONE;
}

#endif
