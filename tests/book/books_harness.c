/* Random records applied to a set of books in random batches, for the sanitizers and for what always holds.
 *
 *   books_harness SEED BATCHES      exits 0, or names the first thing that is wrong and exits 1
 *
 * The layout of a record is one of its own: book.h knows none.
 */
#define _GNU_SOURCE
#include "book.h"

#include <stdio.h>

#define REQUIRE(condition)                                                                                     \
    do {                                                                                                       \
        if (!(condition)) {                                                                                    \
            fprintf(stderr, "line %d, batch %ld: not true: %s\n", __LINE__, number, #condition);               \
            exit(1);                                                                                           \
        }                                                                                                      \
    } while (0)

typedef struct {
    uint8_t reason, state, data_type, venue_id, side, flags, kind, unused;
    uint32_t instrument_id, unused_too;
    int64_t size, price;
    uint64_t seq;
} harness_record;

enum { BATCH = 300, INSTRUMENTS = 70, MAX_LEVELS = 40 };

static uint64_t random_state;

static uint64_t below(uint64_t bound) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % bound;
}

static harness_record random_record(uint64_t seq) {
    static const uint8_t kinds[] = {3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4, 5, 1, 200};
    harness_record record = {.kind = kinds[below(sizeof kinds)], .seq = seq};
    record.reason = (uint8_t)below(256);
    record.state = (uint8_t)below(256);
    record.data_type = (uint8_t)below(4);
    record.venue_id = (uint8_t)below(256);
    record.side = below(200) == 0 ? (uint8_t)below(256) : (uint8_t)(1 + below(2));
    record.flags = (uint8_t)below(256);
    record.instrument_id = below(100) == 0 ? (uint32_t)random_state : (uint32_t)below(INSTRUMENTS + 5);
    record.size = below(200) == 0 ? -1 : (int64_t)below(3);
    record.price = (int64_t)below(MAX_LEVELS + 10) * (below(2) ? 1 : INT64_MAX / 64);
    return record;
}

static void check_book(const mdring_books *books, mdring_book *book, long number) {
    const mdring_side *bids = &book->sides[MDRING_BIDS], *asks = &book->sides[MDRING_ASKS];
    REQUIRE(book->state >= MDRING_LOADING || bids->level_count + asks->level_count == 0);
    REQUIRE(bids->level_count <= MAX_LEVELS && asks->level_count <= MAX_LEVELS);
    REQUIRE(mdring_book_explanation(books, book)->ordinal <= books->ordinal);
    mdring_level levels[MAX_LEVELS];
    REQUIRE(mdring_copy_levels(asks, MAX_LEVELS, levels) == asks->level_count);
    REQUIRE(mdring_take(asks, INT64_MAX).filled == (int64_t)mdring_sum_sizes(asks, INT64_MAX));
    for (int64_t i = 0; i < asks->level_count; i++) {
        REQUIRE(mdring_size_at(asks, ~levels[i].price) == levels[i].size && levels[i].size > 0);
        REQUIRE(i == 0 || levels[i].price > levels[i - 1].price);
    }
    if (book->state == MDRING_VALID && below(4) == 0) {
        REQUIRE(mdring_book_load((mdring_books *)books, book, NULL, 0, levels, asks->level_count, book->seq, true, 0));
    }
}

int main(int argument_count, char **arguments) {
    if (argument_count != 3) return 2;
    random_state = strtoull(arguments[1], NULL, 10) * 2654435761u + 1;
    long batches = atol(arguments[2]);
    mdring_books books = {
        .layout = {.record_size = sizeof(harness_record), .seq = offsetof(harness_record, seq),
                   .instrument_id = offsetof(harness_record, instrument_id), .kind = offsetof(harness_record, kind),
                   .flags = offsetof(harness_record, flags), .side = offsetof(harness_record, side),
                   .venue_id = offsetof(harness_record, venue_id), .price = offsetof(harness_record, price),
                   .size = offsetof(harness_record, size), .clear_reason = offsetof(harness_record, reason),
                   .status_state = offsetof(harness_record, state), .status_reason = offsetof(harness_record, reason),
                   .status_data_type = offsetof(harness_record, data_type), .kind_level = 3, .kind_clear = 4,
                   .kind_status = 5, .flag_last = 1, .flag_snapshot = 2, .side_bid = 1, .side_ask = 2,
                   .data_type_all = 0, .data_type_book = 3, .reason_bad_message = 9, .reason_buffer_full = 8,
                   .explaining_states = 0xff},
        .max_levels = MAX_LEVELS, .max_instruments = INSTRUMENTS, .wants_all = true, .group = 1};
    static harness_record batch[BATCH];
    uint64_t seq = 0, changes = 0;
    for (long number = 0; number < batches; number++) {
        int64_t count = (int64_t)below(BATCH + 1);
        for (int64_t i = 0; i < count; i++) batch[i] = random_record(++seq);
        mdring_books_apply(&books, (const uint8_t *)batch, count);
        changes += (uint64_t)books.changed_count;
        bool seen[INSTRUMENTS] = {false};
        for (int64_t i = 0; i < books.changed_count; i++) {
            REQUIRE(books.changed[i] < INSTRUMENTS && !seen[books.changed[i]]);
            seen[books.changed[i]] = true;
        }
        for (uint32_t id = 0; id < INSTRUMENTS; id++) {
            mdring_book *book = mdring_books_get(&books, id);
            if (book == NULL) continue;
            check_book(&books, book, number);
            if (below(500) == 0) mdring_book_invalidate(&books, book, 7);
        }
    }
    long number = batches;
    REQUIRE(!books.out_of_memory && books.id_out_of_range && changes > (uint64_t)batches);
    mdring_books_destroy(&books);
    return 0;
}
