/* The rows of the book table: the newest state of each instrument, replaced as a whole, readable at any time.
 *
 *   row   | version | (padding to a cache line) | image 0 | image 1 |
 *
 * A row has two images and a version, which counts the images that were ever finished: the newest one is image
 * `version & 1`, and 0 means that there is none. The writer makes the other one and then raises the version. So a
 * reader is never kept waiting: it has to begin anew only if the writer finished an image during its copy, and
 * a writer that was killed amid an image leaves the newest one as it was, with nothing for its successor to repair.
 *
 *   row  word      writer                               reader                             guarantees
 *   R1   version   release, when the image is whole     acquire, before the copy           the image is whole
 *   R2   version   release fence, before the next       relaxed, after an acquire fence,   an image that was being
 *                  image is begun                       after the copy                     overwritten is recognised
 */
#ifndef MDRING_BOOK_ROWS_H
#define MDRING_BOOK_ROWS_H

#include "atomics.h"

#include <stdbool.h>

enum { MDRING_ROW_HEADER_WORDS = 8, MDRING_ROW_TRIES = 1 << 20 };

typedef struct {
    uint64_t *words; /* shared: row_count rows of row_words */
    uint64_t row_words;
    uint64_t row_count;
    uint64_t image_words;
} mdring_rows;

typedef enum { MDRING_ROW_READ, MDRING_ROW_EMPTY, MDRING_ROW_BUSY } mdring_row_result;

static inline uint64_t *mdring_row(const mdring_rows *rows, uint64_t index) {
    return rows->words + index * rows->row_words;
}

static inline uint64_t *mdring_row_image(const mdring_rows *rows, uint64_t *row, uint64_t version) {
    return row + MDRING_ROW_HEADER_WORDS + (version & 1) * rows->image_words;
}

/* Replace the image of a row; only the table's writer does. */
static inline void mdring_row_write(const mdring_rows *rows, uint64_t index, const uint64_t *image) {
    uint64_t *row = mdring_row(rows, index);
    uint64_t version = load_relaxed_u64(row) + 1;
    fence_release(); /* sync: R2 */
    copy_words_to_shared(mdring_row_image(rows, row, version), image, rows->image_words);
    store_release_u64(row, version); /* sync: R1 */
}

/* Copy the first `words` words of the newest image. BUSY if the writer finished one during each of very many tries. */
static inline mdring_row_result mdring_row_read(const mdring_rows *rows, uint64_t index, uint64_t *image,
                                                uint64_t words) {
    uint64_t *row = mdring_row(rows, index);
    for (int tries = 0; tries < MDRING_ROW_TRIES; tries++) {
        uint64_t version = load_acquire_u64(row); /* sync: R1 */
        if (version == 0) return MDRING_ROW_EMPTY;
        copy_words_from_shared(image, mdring_row_image(rows, row, version), words);
        fence_acquire();                                              /* sync: R2 */
        if (load_relaxed_u64(row) == version) return MDRING_ROW_READ; /* sync: R2 */
        cpu_relax();
    }
    return MDRING_ROW_BUSY;
}

#endif
