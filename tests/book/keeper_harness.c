/* The book keeper, its readers and its late joiners over the real headers, on a tape whose truth is known at any seq.
 *
 *   keeper_harness threads RECORDS SEED    a writer, a keeper that dies now and then between two duty cycles, two
 *                                          readers of rows and a joiner, all at once
 *   keeper_harness killed                  a keeper dies after every single instruction (ptrace); after each that
 *                                          changed the shared memory readers and joiners look at what it left, and a
 *                                          successor takes over; exit code 77: ptrace is not allowed here
 *
 * Record s is about instrument 1 + (s - 1) % INSTRUMENTS. The first ones are snapshots of empty books, then each
 * instrument has a LEVEL and a BBO by turns; a LEVEL sets one of PRICES prices in turn to the size s. So the newest
 * BBO and every level at any seq are known by arithmetic. The first forbidden outcome ends the program with status 1.
 */
#include "../../mdring/book/keeper.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

enum {
    INSTRUMENTS = 5, PRICES = 9, LEVELS = 4, TOP = 1000, RECORD_WORDS = 16, BATCH = 12, ROOM = 5,
    TAPE_SLOTS = 256, SPAN = 24, PAGES = 32,
    BID = 1, LEVEL = 3, BBO = 2, TRADE = 1, CLEAR = 4, STATUS = 5, LAST = 1, SNAPSHOT = 2,
    IMAGE_WORDS = MDRING_ROW_FIXED_WORDS + 4 * LEVELS,
    ROW_WORDS = MDRING_ROW_HEADER_WORDS + 2 * IMAGE_WORDS,
    TAPE = 16, ROWS = TAPE + TAPE_SLOTS * RECORD_WORDS, INDEX = ROWS + (INSTRUMENTS + 1) * ROW_WORDS,
    FIRST_PAGE = INDEX + MDRING_PAGE_WORDS, TOTAL = FIRST_PAGE + PAGES * MDRING_PAGE_WORDS,
    CURSOR = 0, POSITION = 2, CURRENT = 4, FLOOR = 6, /* words before the tape */
};

_Static_assert(MDRING_PAGE_WORDS > INSTRUMENTS, "the index is one page");

static uint64_t *shared;

static void forbidden(const char *outcome, uint64_t seq, uint64_t found) {
    fprintf(stderr, "FORBIDDEN: %s at seq %llu (found %llu)\n", outcome, (unsigned long long)seq,
            (unsigned long long)found);
    _exit(1);
}

static void require(bool condition, const char *outcome, uint64_t seq, uint64_t found) {
    if (!condition) forbidden(outcome, seq, found);
}

static uint64_t mixed(uint64_t value) {
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
    value = (value ^ value >> 27) * 0x94d049bb133111ebu;
    return value ^ value >> 31;
}

/* ---- the tape ----------------------------------------------------------------------------------------- */

static const mdring_layout LAYOUT = {
    .record_size = 8 * RECORD_WORDS, .seq = 0, .instrument_id = 24, .kind = 28, .flags = 29, .side = 30, .venue_id = 31,
    .price = 32, .size = 40, .clear_reason = 72, .status_state = 72, .status_reason = 73, .status_data_type = 74,
    .kind_level = LEVEL, .kind_clear = CLEAR, .kind_status = STATUS, .flag_last = LAST, .flag_snapshot = SNAPSHOT,
    .side_bid = BID, .side_ask = 2, .data_type_book = 3, .reason_bad_message = 15, .reason_buffer_full = 24,
};

static mdring_ring tape(void) {
    return (mdring_ring){shared + TAPE, shared + CURSOR, TAPE_SLOTS, RECORD_WORDS, 29, LAST};
}

static void make_record(uint64_t *record, uint64_t seq, bool ends) {
    uint64_t turn = (seq - 1) / INSTRUMENTS;
    uint8_t *bytes = (uint8_t *)record;
    memset(record, 0, 8 * RECORD_WORDS);
    record[3] = 1 + (seq - 1) % INSTRUMENTS;
    bytes[31] = 1;
    bytes[29] = ends || turn == 0 || mixed(seq) % 3 == 0 ? LAST : 0;
    if (turn == 0) {
        bytes[28] = CLEAR;
        bytes[29] |= SNAPSHOT;
    } else if (turn % 2 == 1) {
        bytes[28] = LEVEL;
        bytes[30] = BID;
        record[4] = TOP - turn / 2 % PRICES;
        record[5] = seq;
    } else {
        bytes[28] = BBO;
        for (int word = 4; word < RECORD_WORDS; word++) record[word] = mixed(seq + (uint64_t)word);
    }
}

/* Publish the records after `cursor`; returns the new cursor. */
static uint64_t publish(const mdring_ring *ring, uint64_t cursor, uint64_t count) {
    uint64_t records[BATCH * RECORD_WORDS];
    for (uint64_t i = 0; i < count; i++) make_record(records + i * RECORD_WORDS, cursor + 1 + i, i + 1 == count);
    return mdring_publish(ring, cursor, records, count);
}

/* ---- the truth ---------------------------------------------------------------------------------------- */

/* The newest record of an instrument by its turn, the largest not above the one at `seq`; false if none came. */
static bool newest_turn(uint64_t instrument_id, uint64_t seq, uint64_t *turn) {
    if (seq < instrument_id) return false;
    *turn = (seq - instrument_id) / INSTRUMENTS;
    return true;
}

static uint64_t seq_of(uint64_t instrument_id, uint64_t turn) { return instrument_id + turn * INSTRUMENTS; }

/* Seq of the newest LEVEL at a place of the book, 0 if there is none yet. */
static uint64_t level_at(uint64_t instrument_id, uint64_t turn, uint64_t place) {
    uint64_t first = 2 * place + 1, period = 2 * PRICES;
    return turn < first ? 0 : seq_of(instrument_id, turn - (turn - first) % period);
}

static void check_levels(const mdring_level *levels, uint64_t count, uint64_t room, uint64_t instrument_id,
                         uint64_t turn, uint64_t seq) {
    uint64_t found = 0;
    for (uint64_t place = 0; place < PRICES && found < room; place++) {
        uint64_t size = level_at(instrument_id, turn, place);
        if (size == 0) continue;
        require(found < count, "a level is missing", seq, instrument_id);
        require(levels[found].price == (int64_t)(TOP - place), "a wrong price", seq, (uint64_t)levels[found].price);
        require(levels[found].size == (int64_t)size, "a wrong size", seq, (uint64_t)levels[found].size);
        found++;
    }
    require(found == count, "too many levels", seq, count);
}

static void check_row(const mdring_row_content *row, uint64_t instrument_id, uint64_t seq) {
    uint64_t turn = 0, record[RECORD_WORDS];
    require(newest_turn(instrument_id, seq, &turn), "a row of the future", seq, row->seq);
    require(row->instrument_id == instrument_id && row->venue_id == 1, "another instrument", seq, row->instrument_id);
    require(row->book_valid == 1, "an invalid book", seq, row->book_reason);
    uint64_t book_turn = turn % 2 == 1 || turn == 0 ? turn : turn - 1;
    require(row->book_seq == seq_of(instrument_id, book_turn), "a wrong book", seq, row->book_seq);
    check_levels(row->levels, row->bid_count, LEVELS, instrument_id, turn, seq);
    uint64_t bbo_turn = turn - turn % 2;
    memset(record, 0, sizeof record);
    if (bbo_turn > 0) {
        make_record(record, seq_of(instrument_id, bbo_turn), false);
        record[0] = seq_of(instrument_id, bbo_turn);
        ((uint8_t *)record)[29] = ((const uint8_t *)row->bbo)[29]; /* LAST depends on the batch */
    }
    require(memcmp(record, row->bbo, sizeof record) == 0, "a wrong BBO", seq, row->bbo[0]);
}

static mdring_rows table(void) {
    return (mdring_rows){shared + ROWS, ROW_WORDS, INSTRUMENTS + 1, IMAGE_WORDS};
}

/* Look at an instrument's row as a reader does; returns the seq at which it was true. */
static uint64_t look_at_row(uint64_t instrument_id, mdring_row_content *row) {
    mdring_rows rows = table();
    uint64_t seq = load_acquire_u64(shared + POSITION);
    mdring_row_result result = mdring_row_read(&rows, instrument_id, (uint64_t *)row, IMAGE_WORDS);
    require(result != MDRING_ROW_BUSY, "a row that cannot be read", seq, instrument_id);
    if (result == MDRING_ROW_EMPTY) {
        require(seq < instrument_id, "a row is missing", seq, instrument_id);
        return seq;
    }
    if (row->seq > seq) seq = row->seq;
    check_row(row, instrument_id, seq);
    return seq;
}

/* ---- late joins --------------------------------------------------------------------------------------- */

static mdring_checkpoints checkpoints(void) {
    return (mdring_checkpoints){shared + FLOOR, shared + INDEX, shared + FIRST_PAGE - MDRING_PAGE_WORDS,
                                MDRING_PAGE_WORDS, PAGES + 1};
}

static mdring_books new_books(void) {
    return (mdring_books){.layout = LAYOUT, .max_levels = 1000, .max_instruments = 1000, .wants_all = true, .group = 1};
}

/* Join all books and check them; returns the seq at which they are true, 0 if the tape lapped the joiner. */
static uint64_t join_all(void) {
    mdring_checkpoints store = checkpoints();
    mdring_ring ring = tape();
    mdring_books books = new_books();
    uint32_t without[MDRING_PAGE_WORDS];
    uint64_t batch[ROOM * RECORD_WORDS], turn;
    mdring_late_join join = {.without = without};
    mdring_reader reader = {.next = mdring_load_floor(&store) + 1};
    mdring_join_result result = mdring_join_load(&join, &books, &store);
    uint64_t target = load_acquire_u64(ring.cursor);
    if (target < join.position) target = join.position;
    if (result == MDRING_JOIN_DONE) result = mdring_join_replay(&ring, &reader, &books, batch, ROOM, target);
    require(result != MDRING_JOIN_NO_MEMORY && join.without_count == 0, "no memory, no room", target, result);
    uint64_t seq = result == MDRING_JOIN_DONE ? reader.next - 1 : 0;
    for (uint32_t id = 1; id <= INSTRUMENTS && seq > 0; id++) {
        const mdring_book *book = mdring_books_get(&books, id);
        if (!newest_turn(id, seq, &turn)) {
            require(book == NULL, "a book of the future", seq, id);
            continue;
        }
        require(book != NULL && book->state == MDRING_VALID, "an invalid book was joined", seq, id);
        mdring_level levels[PRICES + 1];
        check_levels(levels, (uint64_t)mdring_copy_levels(&book->sides[MDRING_BIDS], PRICES + 1, levels), PRICES, id,
                     turn, seq);
    }
    mdring_books_destroy(&books);
    free(join.buffer.words);
    return seq;
}

/* ---- the keeper --------------------------------------------------------------------------------------- */

typedef struct {
    mdring_keeper keeper;
    mdring_books books;
} owner;

static void open_keeper(owner *owner) {
    memset(owner, 0, sizeof *owner);
    mdring_keeper *keeper = &owner->keeper;
    owner->books = new_books();
    *keeper = (mdring_keeper){
        .layout = {.ts_event = 8, .kind_trade = TRADE, .kind_bbo = BBO, .flag_recovered = 4, .state_connected = 2},
        .books = &owner->books, .tape = tape(), .batch = malloc(ROOM * 8 * RECORD_WORDS), .room = ROOM,
        .rows = table(), .levels = LEVELS, .position_word = shared + POSITION, .current_word = shared + CURRENT,
        .kept = calloc(INSTRUMENTS + 1, sizeof(mdring_kept)), .changed_rows = calloc(INSTRUMENTS + 1, 4),
        .content = calloc(IMAGE_WORDS, 8), .checkpoints = {.store = checkpoints()}, .span = SPAN,
    };
    require(mdring_checkpoints_open(&keeper->checkpoints) == MDRING_CHECKPOINTS_OPEN, "damaged checkpoints", 0, 0);
    require(mdring_keeper_recover(keeper) == MDRING_JOIN_DONE, "no recovery", keeper->position, 0);
    require(keeper->reader.lost == 0 && keeper->without == 0, "a loss", keeper->position, keeper->reader.lost);
}

static void close_keeper(owner *owner) {
    free(owner->keeper.batch);
    free(owner->keeper.kept);
    free(owner->keeper.changed_rows);
    free(owner->keeper.content);
    free(owner->keeper.buffer.words);
    free(owner->keeper.checkpoints.free_pages);
    mdring_books_destroy(&owner->books);
}

static void follow(owner *owner) {
    while (mdring_keeper_work(&owner->keeper) > 0) continue;
    require(owner->keeper.reader.lost == 0 && owner->keeper.without == 0, "a loss", owner->keeper.position, 0);
}

/* ---- threads ------------------------------------------------------------------------------------------ */

static uint64_t total, seed, looks[3];
static uint64_t is_over;

static void *write_tape(void *unused) {
    (void)unused;
    mdring_ring ring = tape();
    uint64_t cursor = 0, random = seed;
    while (cursor < total) {
        if (cursor - load_acquire_u64(shared + POSITION) > TAPE_SLOTS / 2 - BATCH) {
            sched_yield();
            continue;
        }
        uint64_t count = 1 + mixed(random++) % BATCH;
        cursor = publish(&ring, cursor, count < total - cursor ? count : total - cursor);
    }
    return NULL;
}

static void *keep(void *unused) {
    (void)unused;
    uint64_t random = seed + 1;
    while (load_acquire_u64(shared + POSITION) < total) {
        owner owner;
        open_keeper(&owner);
        for (uint64_t cycles = mixed(random++) % 500; cycles > 0 && owner.keeper.position < total; cycles--) {
            if (mdring_keeper_work(&owner.keeper) == 0) sched_yield();
        }
        require(owner.keeper.reader.lost == 0, "a loss", owner.keeper.position, owner.keeper.reader.lost);
        require(owner.keeper.position - owner.keeper.floor <= SPAN + BATCH, "a floor that stays behind",
                owner.keeper.position, owner.keeper.floor);
        close_keeper(&owner);
    }
    store_release_u64(&is_over, 1);
    return NULL;
}

static void *read_rows(void *number) {
    mdring_row_content *row = malloc(8 * IMAGE_WORDS);
    uint64_t random = seed + 2 + (uint64_t)(uintptr_t)number, newest[INSTRUMENTS + 1] = {0};
    while (!load_acquire_u64(&is_over)) {
        uint64_t instrument_id = 1 + mixed(random++) % INSTRUMENTS;
        uint64_t seq = look_at_row(instrument_id, row);
        require(seq >= newest[instrument_id], "a row fell back", seq, newest[instrument_id]);
        newest[instrument_id] = seq;
        looks[(uintptr_t)number]++;
    }
    free(row);
    return NULL;
}

static void *join_late(void *unused) {
    (void)unused;
    uint64_t newest = 0;
    while (!load_acquire_u64(&is_over)) {
        uint64_t seq = join_all();
        if (seq == 0) continue;
        require(seq >= newest, "a join fell back", seq, newest);
        newest = seq;
        looks[2]++;
    }
    return NULL;
}

static int run_threads(void) {
    pthread_t threads[5];
    pthread_create(threads, NULL, write_tape, NULL);
    pthread_create(threads + 1, NULL, keep, NULL);
    pthread_create(threads + 2, NULL, read_rows, (void *)0);
    pthread_create(threads + 3, NULL, read_rows, (void *)1);
    pthread_create(threads + 4, NULL, join_late, NULL);
    for (int i = 0; i < 5; i++) pthread_join(threads[i], NULL);
    require(join_all() == total, "the last join is not at the end", total, 0);
    printf("{\"rows\": %llu, \"joins\": %llu}\n", (unsigned long long)(looks[0] + looks[1]),
           (unsigned long long)looks[2]);
    return 0;
}

/* ---- death after every instruction -------------------------------------------------------------------- */

enum { BEFORE = 60, AFTER = 130 };

/* The victim: takes over, and follows a tape that it writes itself. */
static void live(void) {
    owner owner;
    mdring_ring ring = tape();
    uint64_t cursor = load_acquire_u64(ring.cursor);
    open_keeper(&owner);
    for (uint64_t round = 0; cursor < AFTER; round++) {
        cursor = publish(&ring, cursor, 1 + mixed(round) % BATCH);
        follow(&owner);
    }
    close_keeper(&owner);
}

static void look_at_all(void) {
    mdring_row_content *row = malloc(8 * IMAGE_WORDS);
    for (uint64_t id = 1; id <= INSTRUMENTS; id++) look_at_row(id, row);
    free(row);
    require(join_all() >= load_acquire_u64(shared + POSITION), "a join behind the rows", join_all(), 0);
}

static void succeed(void) {
    owner owner;
    open_keeper(&owner);
    look_at_all();
    mdring_ring ring = tape();
    uint64_t cursor = mdring_resume(&ring);
    follow(&owner);
    require(owner.keeper.position == cursor, "a successor behind the tape", owner.keeper.position, cursor);
    for (uint64_t i = 0; i < 3; i++) {
        cursor = publish(&ring, cursor, BATCH);
        follow(&owner);
        look_at_all();
    }
    require(join_all() == cursor, "a join before the end", cursor, 0);
    close_keeper(&owner);
}

static pid_t start_stopped(void) {
    pid_t child = fork();
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) _exit(77);
        raise(SIGSTOP);
        live();
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
    require(WEXITSTATUS(status) == 0, "the victim failed by itself", 0, (uint64_t)WEXITSTATUS(status));
    return false;
}

static int run_killed(void) {
    uint64_t instructions = 0, deaths = 0, *left_behind = malloc(8 * TOTAL);
    mdring_ring ring = tape();
    owner owner;
    open_keeper(&owner);
    for (uint64_t cursor = 0; cursor < BEFORE;) {
        cursor = publish(&ring, cursor, 1 + mixed(cursor) % BATCH);
        follow(&owner);
    }
    close_keeper(&owner);
    memset(left_behind, 0xff, 8 * TOTAL);
    pid_t child = start_stopped();
    for (bool alive = true; alive; instructions++) {
        alive = step(child);
        if (memcmp(left_behind, shared, 8 * TOTAL) == 0) continue; /* the same death as one instruction before */
        memcpy(left_behind, shared, 8 * TOTAL);
        look_at_all();
        succeed();
        memcpy(shared, left_behind, 8 * TOTAL); /* the victim lives on, until its next instruction */
        deaths++;
    }
    free(left_behind);
    printf("%llu instructions, %llu different deaths\n", (unsigned long long)instructions, (unsigned long long)deaths);
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    shared = mmap(NULL, 8 * TOTAL, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) return 2;
    if (strcmp(argv[1], "killed") == 0) return run_killed();
    if (argc < 4) return 2;
    total = strtoull(argv[2], NULL, 10);
    seed = strtoull(argv[3], NULL, 10) * 1000003;
    return run_threads();
}
