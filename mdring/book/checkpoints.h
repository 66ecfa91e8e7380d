/* The checkpoints: complete books of any depth, from which a late joiner and a restarted keeper begin.
 *
 *   floor           a seq: every checkpoint contains all that the tape says of its instrument up to here
 *   index           one word per instrument: generation << 32 | number of the first page
 *   pages           | next | payload .. |   a checkpoint is a chain of pages, 0 ends it
 *
 * Who reads the floor first, then checkpoints, and then applies to each the records above the floor that it does not
 * contain yet, has all books as of one seq. An instrument without a checkpoint had no record up to the floor.
 *
 * A new checkpoint is written to free pages; then the word in the index changes, and only then the pages of the old
 * one become free. A reader is never kept waiting for it: if the word changed while it copied, it copies the new one.
 * A writer killed anywhere leaves every checkpoint as it was; what the index does not reach is free.
 *
 *   row  word     writer                               reader                            guarantees
 *   C1   index    release, when the pages are whole    acquire, before the copy          the checkpoint is whole
 *   C2   index    release fence, before pages are      relaxed, after an acquire fence,  a copy of pages that were
 *                 written anew                         after the copy                    written anew is recognised
 *   C3   floor    release, after the checkpoints that  acquire, before the index         no checkpoint misses a record
 *                 let it rise                                                            up to the floor
 */
#ifndef MDRING_BOOK_CHECKPOINTS_H
#define MDRING_BOOK_CHECKPOINTS_H

#include "atomics.h"

#include <stdbool.h>
#include <stdlib.h>

#ifndef MDRING_PAGE_WORDS
#define MDRING_PAGE_WORDS 512
#endif

enum {
    MDRING_PAYLOAD_WORDS = MDRING_PAGE_WORDS - 1,
    MDRING_CHECKPOINT_TRIES = 1 << 20,
};

/* In the index, in place of a page: the instrument has a book, but there was no room for it. */
static const uint32_t MDRING_NO_ROOM = UINT32_MAX;

typedef struct {
    uint64_t *floor; /* shared */
    uint64_t *index; /* shared */
    uint64_t *pages; /* shared; page 0 is never used */
    uint64_t instrument_count;
    uint64_t page_count;
} mdring_checkpoints;

static inline uint64_t *mdring_page(const mdring_checkpoints *store, uint64_t page) {
    return store->pages + page * MDRING_PAGE_WORDS;
}

static inline uint64_t mdring_pages_for(uint64_t words) {
    return (words + MDRING_PAYLOAD_WORDS - 1) / MDRING_PAYLOAD_WORDS;
}

/* ---- reader ------------------------------------------------------------------------------------------- */

typedef struct {
    uint64_t *words;
    uint64_t room;
} mdring_buffer;

static inline bool mdring_buffer_reserve(mdring_buffer *buffer, uint64_t words) {
    if (words <= buffer->room) return true;
    uint64_t *grown = realloc(buffer->words, words * sizeof *grown);
    if (grown == NULL) return false;
    buffer->words = grown;
    buffer->room = words;
    return true;
}

typedef enum {
    MDRING_CHECKPOINT_READ,
    MDRING_CHECKPOINT_ABSENT,
    MDRING_CHECKPOINT_NO_ROOM,
    MDRING_CHECKPOINT_BUSY,
    MDRING_CHECKPOINT_NO_MEMORY,
} mdring_checkpoint_result;

/* Copy `words` words of the chain that begins with `page`, whose number of words is its first one; false if it cannot
 * be a chain, for it was written anew meanwhile. */
static inline bool mdring_copy_chain(const mdring_checkpoints *store, uint64_t page, uint64_t *out, uint64_t words) {
    while (words > 0) {
        if (page == 0 || page >= store->page_count) return false;
        const uint64_t *shared = mdring_page(store, page);
        uint64_t part = words < MDRING_PAYLOAD_WORDS ? words : MDRING_PAYLOAD_WORDS;
        copy_words_from_shared(out, shared + 1, part);
        page = load_relaxed_u64(shared);
        out += part;
        words -= part;
    }
    return true;
}

/* Whether the checkpoint is still the one whose index word was `found`. */
static inline bool mdring_checkpoint_holds(const mdring_checkpoints *store, uint64_t instrument_id, uint64_t found) {
    fence_acquire();                                             /* sync: C2 */
    return load_relaxed_u64(store->index + instrument_id) == found; /* sync: C2 */
}

/* Copy an instrument's newest checkpoint. BUSY if it was replaced during each of very many tries. */
static inline mdring_checkpoint_result mdring_checkpoint_read(const mdring_checkpoints *store, uint64_t instrument_id,
                                                              mdring_buffer *out) {
    for (int tries = 0; tries < MDRING_CHECKPOINT_TRIES; tries++) {
        uint64_t found = load_acquire_u64(store->index + instrument_id); /* sync: C1 */
        uint32_t page = (uint32_t)found;
        if (page == 0) return MDRING_CHECKPOINT_ABSENT;
        if (page == MDRING_NO_ROOM) return MDRING_CHECKPOINT_NO_ROOM;
        uint64_t words = load_relaxed_u64(mdring_page(store, page) + 1);
        if (!mdring_checkpoint_holds(store, instrument_id, found)) continue;
        if (!mdring_buffer_reserve(out, words)) return MDRING_CHECKPOINT_NO_MEMORY;
        bool copied = mdring_copy_chain(store, page, out->words, words);
        if (mdring_checkpoint_holds(store, instrument_id, found) && copied) return MDRING_CHECKPOINT_READ;
    }
    return MDRING_CHECKPOINT_BUSY;
}

/* ---- writer ------------------------------------------------------------------------------------------- */

typedef struct {
    mdring_checkpoints store;
    uint32_t *free_pages; /* a stack with room for all */
    uint64_t free_count;
} mdring_checkpoint_writer;

static inline uint32_t mdring_checkpoint_page(const mdring_checkpoints *store, uint64_t instrument_id) {
    return (uint32_t)load_relaxed_u64(store->index + instrument_id);
}

/* Mark the pages that the index reaches. False if the chains are none: somebody else wrote into the segment. */
static inline bool mdring_mark_used(const mdring_checkpoints *store, bool *used) {
    for (uint64_t id = 0; id < store->instrument_count; id++) {
        uint64_t page = mdring_checkpoint_page(store, id);
        while (page != 0 && page != MDRING_NO_ROOM) {
            if (page >= store->page_count || used[page]) return false;
            used[page] = true;
            page = load_relaxed_u64(mdring_page(store, page));
        }
    }
    return true;
}

typedef enum { MDRING_CHECKPOINTS_OPEN, MDRING_CHECKPOINTS_DAMAGED, MDRING_CHECKPOINTS_NO_MEMORY } mdring_open_result;

/* Take over from a writer that may have died at any instruction. */
static inline mdring_open_result mdring_checkpoints_open(mdring_checkpoint_writer *writer) {
    const mdring_checkpoints *store = &writer->store;
    bool *used = calloc(store->page_count, sizeof *used);
    writer->free_pages = malloc(store->page_count * sizeof *writer->free_pages);
    if (used == NULL || writer->free_pages == NULL) {
        free(used);
        return MDRING_CHECKPOINTS_NO_MEMORY;
    }
    bool sound = mdring_mark_used(store, used);
    writer->free_count = 0;
    for (uint64_t page = store->page_count; page-- > 1;) {
        if (!used[page]) writer->free_pages[writer->free_count++] = (uint32_t)page;
    }
    free(used);
    return sound ? MDRING_CHECKPOINTS_OPEN : MDRING_CHECKPOINTS_DAMAGED;
}

/* Let the index lead elsewhere, then take the old pages back. */
static inline void mdring_checkpoint_replace(mdring_checkpoint_writer *writer, uint64_t instrument_id, uint32_t first) {
    const mdring_checkpoints *store = &writer->store;
    uint64_t before = load_relaxed_u64(store->index + instrument_id);
    uint64_t generation = (before >> 32) + 1;
    store_release_u64(store->index + instrument_id, generation << 32 | first); /* sync: C1 */
    uint64_t page = (uint32_t)before;
    while (page != 0 && page != MDRING_NO_ROOM) {
        writer->free_pages[writer->free_count++] = (uint32_t)page;
        page = load_relaxed_u64(mdring_page(store, page));
    }
}

/* Write an instrument's checkpoint, whose first word is `words` itself, in place of the one before. False if there is
 * no room: the instrument has none then. */
static inline bool mdring_checkpoint_write(mdring_checkpoint_writer *writer, uint64_t instrument_id,
                                           const uint64_t *content, uint64_t words) {
    const mdring_checkpoints *store = &writer->store;
    uint64_t needed = mdring_pages_for(words);
    if (needed > writer->free_count) {
        mdring_checkpoint_replace(writer, instrument_id, MDRING_NO_ROOM);
        if (needed > writer->free_count) return false;
    }
    fence_release(); /* sync: C2 */
    uint32_t first = writer->free_pages[writer->free_count - 1];
    for (uint64_t i = 0; i < needed; i++) {
        uint64_t *shared = mdring_page(store, writer->free_pages[--writer->free_count]);
        uint64_t part = words < MDRING_PAYLOAD_WORDS ? words : MDRING_PAYLOAD_WORDS;
        copy_words_to_shared(shared + 1, content, part);
        store_relaxed_u64(shared, i + 1 < needed ? writer->free_pages[writer->free_count - 1] : 0);
        content += part;
        words -= part;
    }
    mdring_checkpoint_replace(writer, instrument_id, first);
    return true;
}

static inline void mdring_store_floor(const mdring_checkpoints *store, uint64_t floor) {
    store_release_u64(store->floor, floor); /* sync: C3 */
}

static inline uint64_t mdring_load_floor(const mdring_checkpoints *store) {
    return load_acquire_u64(store->floor); /* sync: C3 */
}

#endif
