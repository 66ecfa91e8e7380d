/* One side of a book: price levels in order, the best one at the end.
 *
 *   branches   low = -inf      low = k1        low = k2            one per leaf, the best leaf last
 *                 |               |               |
 *   leaves     [ . . . . ]     [ . . . ]       [ . . . . . ]       keys ascending, the best level last
 *
 * A level is stored under a key that rises with its rank: the price of a bid, the bitwise complement of the
 * price of an ask (~p reverses the order of all 64-bit integers and, unlike -p, cannot overflow). So both
 * sides are the same code, and most changes, being near the best price, move a few words at the end of the
 * last leaf. A change far from the best price moves at most one leaf. A leaf that is full is split and one that
 * has become small is joined with its neighbour; the branches move only then, at most once in
 * MDRING_LEAF_LEVELS / 4 changes of a leaf.
 *
 * Branch i holds the keys in [low of i, low of i + 1). low is a bound, not the first key: a deletion leaves it.
 * Only the leaf of a side's single branch may be empty.
 *
 * What the size of a leaf was chosen from: ns per delta of mdring_books_apply, deltas as in benchmarks/book.py,
 * 5,000 levels a side, batches of 2,048 in cache, on a virtual AMD EPYC at 2.6 GHz. One leaf for all is a flat
 * sorted array.
 *
 *   levels of a leaf (-DMDRING_LEAF_LEVELS)     16    32    64   128   256   all
 *   one book                                    34    31    29    29    29    36
 *   100 books in turn                           53    45    43    44    44    82
 *   one book, changes at any level alike        56    54    55    55    57   175
 *   the same with 50,000 levels a side          94    83    82    77    79  2000
 *   a snapshot that comes best first, a level   53    51    59    69    82   520
 *
 * Sizes in a window of prices, with a bitmap to find the best, would save some 20 ns while all prices lie in
 * the window; but it needs the tick size, half a megabyte a side for 65,536 ticks, a second structure for what
 * lies outside, and must move with the market. Search by AVX2 would save 5 ns where there is AVX2.
 */
#ifndef MDRING_BOOK_SIDE_H
#define MDRING_BOOK_SIDE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifndef MDRING_LEAF_LEVELS
#define MDRING_LEAF_LEVELS 64
#endif
enum {
    MDRING_NEAR_LEVELS = 16, /* a power of two: most changes of a leaf are among so many best levels */
    MDRING_SLAB_LEAVES = 64,
    MDRING_FIRST_BRANCHES = 4,
};

#define MDRING_LIKELY(x) __builtin_expect(!!(x), 1)
#define MDRING_UNLIKELY(x) __builtin_expect(!!(x), 0)

/* ---- leaves ------------------------------------------------------------------------------------------- */

typedef union mdring_leaf {
    struct {
        int64_t keys[MDRING_LEAF_LEVELS];
        int64_t sizes[MDRING_LEAF_LEVELS];
    };
    union mdring_leaf *next; /* of a free leaf */
} mdring_leaf;

typedef struct mdring_slab {
    struct mdring_slab *next;
    mdring_leaf *leaves; /* MDRING_SLAB_LEAVES of them, aligned to a cache line */
} mdring_slab;

/* Where leaves come from and go to; memory returns to the system with the pool only. */
typedef struct {
    mdring_leaf *free;
    mdring_slab *slabs;
} mdring_pool;

static bool mdring_pool_grow(mdring_pool *pool) {
    mdring_slab *slab = malloc(sizeof *slab);
    void *leaves;
    if (slab == NULL) return false;
    if (posix_memalign(&leaves, 64, MDRING_SLAB_LEAVES * sizeof(mdring_leaf)) != 0) {
        free(slab);
        return false;
    }
    *slab = (mdring_slab){.next = pool->slabs, .leaves = leaves};
    pool->slabs = slab;
    for (mdring_leaf *leaf = slab->leaves + MDRING_SLAB_LEAVES; leaf-- > slab->leaves;) {
        leaf->next = pool->free;
        pool->free = leaf;
    }
    return true;
}

static inline mdring_leaf *mdring_pool_take(mdring_pool *pool) {
    if (pool->free == NULL && !mdring_pool_grow(pool)) return NULL;
    mdring_leaf *leaf = pool->free;
    pool->free = leaf->next;
    return leaf;
}

static inline void mdring_pool_give(mdring_pool *pool, mdring_leaf *leaf) {
    leaf->next = pool->free;
    pool->free = leaf;
}

static inline void mdring_pool_destroy(mdring_pool *pool) {
    while (pool->slabs != NULL) {
        mdring_slab *slab = pool->slabs;
        pool->slabs = slab->next;
        free(slab->leaves);
        free(slab);
    }
    pool->free = NULL;
}

/* ---- a side ------------------------------------------------------------------------------------------- */

typedef struct {
    int64_t low;
    mdring_leaf *leaf;
    int64_t count; /* levels in the leaf */
} mdring_branch;

typedef struct {
    mdring_branch top;    /* of the best levels; its leaf is NULL until the first level comes */
    mdring_branch *lower; /* the others, ascending */
    int32_t lower_count;
    int32_t lower_capacity;
    int64_t level_count;
    int64_t flip; /* price = key ^ flip: 0 for bids, -1 for asks */
} mdring_side;

/* The best key of a side that is not empty. */
static inline int64_t mdring_best_key(const mdring_side *side) {
    return side->top.leaf->keys[side->top.count - 1];
}

static inline int64_t mdring_best_size(const mdring_side *side) {
    return side->top.leaf->sizes[side->top.count - 1];
}

/* Branches are numbered from the lowest; lower_count is the top. */
static inline mdring_branch *mdring_branch_at(mdring_side *side, int64_t index) {
    return index == side->lower_count ? &side->top : side->lower + index;
}

/* Number of the branch that holds `key` if the side has it: the last one whose low is not above it.
 * Looks from the best: a change is the rarer the farther it is. */
static inline int64_t mdring_branch_of(const mdring_side *side, int64_t key) {
    int64_t above = side->lower_count;
    if (MDRING_LIKELY(side->top.low <= key)) return above;
    int64_t step = 1; /* here and below: the low of branch `above` is above the key */
    while (step < above && side->lower[above - step].low > key) {
        above -= step;
        step *= 2;
    }
    int64_t found = step < above ? above - step : 0;
    while (above - found > 1) {
        int64_t middle = found + (above - found) / 2;
        if (side->lower[middle].low <= key) found = middle;
        else above = middle;
    }
    return found;
}

/* Number of keys below `key` among `count` ascending ones. The steps are free of branches, which nothing could
 * predict; the compiler would turn `condition ? a : b` into one, and a delta then takes 10 ns more. */
static inline int64_t mdring_rank(const int64_t *keys, int64_t count, int64_t key) {
    const int64_t *base = keys;
    if (MDRING_LIKELY(count > MDRING_NEAR_LEVELS && keys[count - MDRING_NEAR_LEVELS] < key)) {
        base += count - MDRING_NEAR_LEVELS;
        for (int64_t half = MDRING_NEAR_LEVELS / 2; half > 0; half /= 2) {
            base += half & -(int64_t)(base[half - 1] < key);
        }
        return base - keys + (*base < key);
    }
    while (count > 1) {
        int64_t half = count / 2;
        base += half & -(int64_t)(base[half - 1] < key);
        count -= half;
    }
    return base - keys + (count == 1 && *base < key);
}

/* Fetch all keys of a leaf that is probably not cached at once; the search alone would wait for one line after
 * another, as each step needs the one before. */
static inline void mdring_prefetch_keys(const mdring_branch *branch) {
    for (int64_t i = 0; i < branch->count; i += 64 / (int64_t)sizeof(int64_t)) {
        __builtin_prefetch(branch->leaf->keys + i);
    }
}

static bool mdring_insert_lower(mdring_side *side, int64_t index, mdring_branch branch) {
    if (side->lower_count == side->lower_capacity) {
        int32_t capacity = side->lower_capacity ? 2 * side->lower_capacity : MDRING_FIRST_BRANCHES;
        mdring_branch *grown = realloc(side->lower, (size_t)capacity * sizeof *grown);
        if (grown == NULL) return false;
        side->lower = grown;
        side->lower_capacity = capacity;
    }
    mdring_branch *place = side->lower + index;
    memmove(place + 1, place, (size_t)(side->lower_count - index) * sizeof *place);
    *place = branch;
    side->lower_count++;
    return true;
}

static void mdring_remove_branch(mdring_pool *pool, mdring_side *side, int64_t index) {
    mdring_pool_give(pool, mdring_branch_at(side, index)->leaf);
    side->lower_count--;
    if (index > side->lower_count) {
        side->top = side->lower[side->lower_count];
    } else {
        mdring_branch *place = side->lower + index;
        memmove(place, place + 1, (size_t)(side->lower_count - index) * sizeof *place);
    }
    mdring_branch_at(side, 0)->low = INT64_MIN;
}

/* Make room in the full leaf of branch `index`, where a level will be inserted at `rank`: its lower half goes to
 * a new leaf below it. Below all other levels only a quarter goes: a snapshot that comes best first then leaves
 * its leaves three quarters full. */
static bool mdring_split(mdring_pool *pool, mdring_side *side, int64_t index, int64_t rank) {
    int64_t given = index == 0 && rank == 0 ? MDRING_LEAF_LEVELS / 4 : MDRING_LEAF_LEVELS / 2;
    int64_t kept = MDRING_LEAF_LEVELS - given;
    mdring_branch below = {
        .low = mdring_branch_at(side, index)->low, .leaf = mdring_pool_take(pool), .count = given};
    if (below.leaf == NULL) return false;
    if (!mdring_insert_lower(side, index, below)) {
        mdring_pool_give(pool, below.leaf);
        return false;
    }
    mdring_branch *full = mdring_branch_at(side, index + 1);
    memcpy(below.leaf->keys, full->leaf->keys, (size_t)given * sizeof(int64_t));
    memcpy(below.leaf->sizes, full->leaf->sizes, (size_t)given * sizeof(int64_t));
    memmove(full->leaf->keys, full->leaf->keys + given, (size_t)kept * sizeof(int64_t));
    memmove(full->leaf->sizes, full->leaf->sizes + given, (size_t)kept * sizeof(int64_t));
    full->count = kept;
    full->low = full->leaf->keys[0];
    return true;
}

/* Join branch `index` and the one above it if they are small; returns whether they were. */
static bool mdring_join(mdring_pool *pool, mdring_side *side, int64_t index) {
    mdring_branch *below = mdring_branch_at(side, index);
    const mdring_branch *above = mdring_branch_at(side, index + 1);
    if (below->count + above->count > MDRING_LEAF_LEVELS / 2) return false;
    memcpy(below->leaf->keys + below->count, above->leaf->keys, (size_t)above->count * sizeof(int64_t));
    memcpy(below->leaf->sizes + below->count, above->leaf->sizes, (size_t)above->count * sizeof(int64_t));
    below->count += above->count;
    mdring_remove_branch(pool, side, index + 1);
    return true;
}

/* Join or free a leaf that a deletion has left small. */
static void mdring_tidy(mdring_pool *pool, mdring_side *side, int64_t index) {
    if (side->lower_count == 0) return;
    if (mdring_branch_at(side, index)->count == 0) {
        mdring_remove_branch(pool, side, index);
    } else if (index == side->lower_count || !mdring_join(pool, side, index)) {
        if (index > 0) mdring_join(pool, side, index - 1);
    }
}

static inline void mdring_erase(mdring_pool *pool, mdring_side *side, int64_t index, int64_t rank) {
    mdring_branch *branch = mdring_branch_at(side, index);
    int64_t *key = branch->leaf->keys + rank, *size = branch->leaf->sizes + rank;
    branch->count--;
    memmove(key, key + 1, (size_t)(branch->count - rank) * sizeof *key);
    memmove(size, size + 1, (size_t)(branch->count - rank) * sizeof *size);
    side->level_count--;
    if (MDRING_UNLIKELY(branch->count <= MDRING_LEAF_LEVELS / 4)) mdring_tidy(pool, side, index);
}

/* Insert a level that the side does not have. False if there is no memory; nothing is changed then. */
static inline bool mdring_insert(
    mdring_pool *pool, mdring_side *side, int64_t index, int64_t rank, int64_t key, int64_t size) {
    mdring_branch *branch = mdring_branch_at(side, index);
    if (MDRING_UNLIKELY(branch->count == MDRING_LEAF_LEVELS)) {
        if (!mdring_split(pool, side, index, rank)) return false;
        branch = mdring_branch_at(side, index);
        if (rank > branch->count) {
            rank -= branch->count;
            branch = mdring_branch_at(side, index + 1);
        }
    }
    int64_t *keys = branch->leaf->keys + rank, *sizes = branch->leaf->sizes + rank;
    memmove(keys + 1, keys, (size_t)(branch->count - rank) * sizeof *keys);
    memmove(sizes + 1, sizes, (size_t)(branch->count - rank) * sizeof *sizes);
    *keys = key;
    *sizes = size;
    branch->count++;
    side->level_count++;
    return true;
}

/* Give a side its first leaf. */
static bool mdring_plant(mdring_pool *pool, mdring_side *side) {
    side->top = (mdring_branch){.low = INT64_MIN, .leaf = mdring_pool_take(pool), .count = 0};
    return side->top.leaf != NULL;
}

/* Set the absolute size at a key; 0 deletes the level. False if there is no memory; nothing is changed then. */
static inline bool mdring_set(mdring_pool *pool, mdring_side *side, int64_t key, int64_t size) {
    if (MDRING_UNLIKELY(side->top.leaf == NULL) && !mdring_plant(pool, side)) return false;
    int64_t index = mdring_branch_of(side, key);
    const mdring_branch *branch = mdring_branch_at(side, index);
    if (index < side->lower_count) mdring_prefetch_keys(branch);
    int64_t rank = mdring_rank(branch->leaf->keys, branch->count, key);
    if (rank < branch->count && branch->leaf->keys[rank] == key) {
        if (size != 0) branch->leaf->sizes[rank] = size;
        else mdring_erase(pool, side, index, rank);
        return true;
    }
    return size == 0 || mdring_insert(pool, side, index, rank, key, size);
}

static inline void mdring_empty(mdring_pool *pool, mdring_side *side) {
    for (int64_t i = 0; i < side->lower_count; i++) mdring_pool_give(pool, side->lower[i].leaf);
    side->lower_count = 0;
    side->top.low = INT64_MIN;
    side->top.count = 0;
    side->level_count = 0;
}

/* ---- reading ------------------------------------------------------------------------------------------ */

typedef struct {
    int64_t price;
    int64_t size;
} mdring_level;

__extension__ typedef __int128 mdring_wide; /* holds any price * size, and any sum of sizes */

static inline int64_t mdring_wide_high(mdring_wide value) {
    return (int64_t)(value >> 64);
}

static inline uint64_t mdring_wide_low(mdring_wide value) {
    return (uint64_t)value;
}

static inline const mdring_branch *mdring_branch_read(const mdring_side *side, int64_t index) {
    return index == side->lower_count ? &side->top : side->lower + index;
}

static inline int64_t mdring_size_at(const mdring_side *side, int64_t key) {
    if (side->level_count == 0) return 0;
    const mdring_branch *branch = mdring_branch_read(side, mdring_branch_of(side, key));
    int64_t rank = mdring_rank(branch->leaf->keys, branch->count, key);
    return rank < branch->count && branch->leaf->keys[rank] == key ? branch->leaf->sizes[rank] : 0;
}

/* Copy up to `limit` levels, best first; returns their number. */
static inline int64_t mdring_copy_levels(const mdring_side *side, int64_t limit, mdring_level *out) {
    int64_t copied = 0;
    for (int64_t index = side->lower_count; index >= 0 && copied < limit; index--) {
        const mdring_branch *branch = mdring_branch_read(side, index);
        for (int64_t i = branch->count; i-- > 0 && copied < limit; copied++) {
            out[copied] = (mdring_level){branch->leaf->keys[i] ^ side->flip, branch->leaf->sizes[i]};
        }
    }
    return copied;
}

/* Sum of the sizes of the `limit` best levels. */
static inline mdring_wide mdring_sum_sizes(const mdring_side *side, int64_t limit) {
    mdring_wide sum = 0;
    for (int64_t index = side->lower_count; index >= 0 && limit > 0; index--) {
        const mdring_branch *branch = mdring_branch_read(side, index);
        for (int64_t i = branch->count; i-- > 0 && limit > 0; limit--) sum += branch->leaf->sizes[i];
    }
    return sum;
}

typedef struct {
    mdring_wide notional; /* at most 2^63 * 2^63 in magnitude: the filled size is a 64-bit integer */
    int64_t filled;
    int64_t worst_price; /* meaningless if nothing was filled */
} mdring_fill;

/* Take `size` from the best levels down. */
static inline mdring_fill mdring_take(const mdring_side *side, int64_t size) {
    mdring_fill fill = {0, 0, 0};
    for (int64_t index = side->lower_count; index >= 0 && fill.filled < size; index--) {
        const mdring_branch *branch = mdring_branch_read(side, index);
        for (int64_t i = branch->count; i-- > 0 && fill.filled < size;) {
            int64_t wanted = size - fill.filled;
            int64_t taken = branch->leaf->sizes[i] < wanted ? branch->leaf->sizes[i] : wanted;
            fill.worst_price = branch->leaf->keys[i] ^ side->flip;
            fill.notional += (mdring_wide)fill.worst_price * taken;
            fill.filled += taken;
        }
    }
    return fill;
}

/* ---- loading ------------------------------------------------------------------------------------------ */

/* Fill an empty side with levels that are in order, best first. False if there is no memory. */
static inline bool mdring_load_levels(mdring_pool *pool, mdring_side *side, const mdring_level *levels, int64_t count) {
    const int64_t leaf_levels = MDRING_LEAF_LEVELS * 3 / 4; /* room for what comes: the first insertion splits none */
    if (side->top.leaf == NULL && !mdring_plant(pool, side)) return false;
    while (count > 0) {
        int64_t taken = count < leaf_levels ? count : leaf_levels;
        if (side->level_count > 0) {
            mdring_branch full = side->top;
            mdring_leaf *leaf = mdring_pool_take(pool);
            if (leaf == NULL) return false;
            if (!mdring_insert_lower(side, side->lower_count, full)) {
                mdring_pool_give(pool, leaf);
                return false;
            }
            side->top.leaf = leaf;
        }
        for (int64_t i = 0; i < taken; i++) {
            side->top.leaf->keys[i] = levels[count - 1 - i].price ^ side->flip;
            side->top.leaf->sizes[i] = levels[count - 1 - i].size;
        }
        side->top.count = taken;
        if (side->lower_count > 0) side->top.low = side->top.leaf->keys[0];
        side->level_count += taken;
        count -= taken;
    }
    return true;
}

#endif
