/* What the book keeper knows of each instrument besides its book: its newest BBO, TRADE and STATUS, the state of the
 * connection over which it comes, and since when a record of it may be missing.
 *
 * A venue with one connection speaks for all its instruments by a STATUS of the whole venue. One with several tells
 * each instrument's own connection besides, and the whole venue's state is then only the worst of them. So a STATUS of
 * the instrument's own governs, until one of the whole venue says that the worker begins or ends.
 *
 * A BBO or trade from before the last interruption may not be the newest: doubt_seq is when that was told.
 */
#ifndef MDRING_BOOK_KEPT_H
#define MDRING_BOOK_KEPT_H

#include "book.h"

enum { MDRING_KEPT_RECORD_WORDS = 16 };

/* An image of the book table's rows; the first thing that a reader sees of an instrument. */
typedef struct {
    uint64_t seq; /* all that the tape says of the instrument up to here is in it */
    uint64_t book_seq;
    uint32_t instrument_id;
    uint8_t venue_id;
    uint8_t book_valid;
    uint8_t book_reason;
    uint8_t book_crossed;
    uint8_t connection_state; /* State, NONE if unknown */
    uint8_t connection_reason;
    uint8_t venue_state; /* of the whole venue: the worst of its connections */
    uint8_t venue_reason;
    uint8_t trading_state; /* TRADING, HALTED, or NONE if the venue never said */
    uint8_t doubt_reason;  /* of the STATUS at doubt_seq */
    uint8_t pad0[2];
    uint64_t connection_seq; /* of the STATUS of the instrument's own connection; 0 if its venue's governs */
    uint64_t doubt_seq;      /* what is older may not be the newest: a record in between may be missing */
    uint32_t bid_depth, ask_depth; /* levels of the book */
    uint32_t bid_count, ask_count; /* levels in this row */
    uint64_t bbo[MDRING_KEPT_RECORD_WORDS]; /* records; seq 0 if there is none */
    uint64_t trade[MDRING_KEPT_RECORD_WORDS];
    uint64_t status[MDRING_KEPT_RECORD_WORDS];
    uint64_t venue_status[MDRING_KEPT_RECORD_WORDS];
    mdring_level levels[]; /* room for as many bids as asks, best first, zeros behind */
} mdring_row_content;

enum {
    MDRING_ROW_FIXED_WORDS = sizeof(mdring_row_content) / 8,
    MDRING_ROW_HEAD_WORDS = offsetof(mdring_row_content, trade) / 8, /* all that a BBO needs */
};

_Static_assert(sizeof(mdring_row_content) == 72 * 8, "a row consists of whole cache lines");

/* Values of enumerations and field offsets that book.h does not need; given at run time, from mdring.record. */
typedef struct {
    int64_t ts_event;
    uint8_t kind_trade, kind_bbo;
    uint8_t flag_recovered;
    uint8_t state_none, state_connected;
    uint8_t data_type_bbo;
    uint8_t reason_lapped, reason_unknown_instrument;
    uint64_t connection_states;   /* bit per State that a connection can be in */
    uint64_t trading_states;      /* bit per State of trading */
    uint64_t doubtful_states;     /* bit per State which says that records may be missing */
    uint64_t whole_venue_reasons; /* bit per Reason for which a venue's STATUS speaks for all its connections */
} mdring_kept_layout;

typedef struct {
    uint64_t bbo[MDRING_KEPT_RECORD_WORDS];
    uint64_t trade[MDRING_KEPT_RECORD_WORDS];
    uint64_t status[MDRING_KEPT_RECORD_WORDS];
    uint64_t seq; /* records up to here are in it already */
    uint64_t connection_seq;
    uint64_t doubt_seq;
    uint8_t connection_state;
    uint8_t connection_reason;
    uint8_t trading_state;
    uint8_t doubt_reason;
    uint8_t venue_id;
    bool is_known;       /* a record named it */
    bool is_row_changed; /* and it stands in the list of changed rows */
    bool is_dirty;       /* its book has changed since the last checkpoint, and it stands in the queue */
    bool has_no_room;
    uint32_t next_dirty;
    uint64_t dirty_since; /* all up to here is in the last checkpoint */
} mdring_kept;

typedef struct {
    uint64_t status[MDRING_KEPT_RECORD_WORDS];
    uint8_t connection_state;
    uint8_t connection_reason;
} mdring_kept_venue;

static inline bool mdring_has_bit(uint64_t set, uint8_t bit) {
    return bit < 64 && set >> bit & 1;
}

static inline void mdring_doubt(mdring_kept *kept, uint64_t seq, uint8_t reason) {
    kept->doubt_seq = seq;
    kept->doubt_reason = reason;
}

/* What a STATUS says of one instrument: of its connection, its trading, and of BBOs and trades that may be missing.
 * (A venue that refuses one instrument speaks as a whole, for the refused one has no id: that costs no record.) */
static inline void mdring_kept_take_status(const mdring_kept_layout *layout, const mdring_layout *fields,
                                           mdring_kept *kept, const uint8_t *record, bool of_venue) {
    uint64_t seq = mdring_u64(record, fields->seq);
    uint8_t state = mdring_u8(record, fields->status_state);
    uint8_t reason = mdring_u8(record, fields->status_reason);
    uint8_t data_type = mdring_u8(record, fields->status_data_type);
    if (data_type == fields->data_type_all && mdring_has_bit(layout->connection_states, state)) {
        if (of_venue && mdring_has_bit(layout->whole_venue_reasons, reason)) kept->connection_seq = 0;
        if (of_venue && kept->connection_seq != 0) return;
        if (!of_venue) kept->connection_seq = seq;
        kept->connection_state = state;
        kept->connection_reason = reason;
        if (state != layout->state_connected) mdring_doubt(kept, seq, reason);
    } else if (mdring_has_bit(layout->trading_states, state)) {
        kept->trading_state = state;
    } else if (mdring_has_bit(layout->doubtful_states, state) && reason != layout->reason_unknown_instrument &&
               (data_type == fields->data_type_all || data_type == layout->data_type_bbo)) {
        mdring_doubt(kept, seq, reason);
    }
}

/* Whether a trade is history that was fetched after a newer one had come. */
static inline bool mdring_is_history(const mdring_kept_layout *layout, const mdring_layout *fields,
                                     const mdring_kept *kept, const uint8_t *record) {
    if (!(mdring_u8(record, fields->flags) & layout->flag_recovered) || kept->trade[0] == 0) return false;
    int64_t newest = (int64_t)mdring_u64((const uint8_t *)kept->trade, layout->ts_event);
    return (int64_t)mdring_u64(record, layout->ts_event) < newest;
}

#endif
