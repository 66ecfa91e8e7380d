/* Random changes of one side, compared with a sorted array after each, and the promises of side.h looked at.
 *
 *   side_harness SEED CHANGES DEPTH      exits 0, or names the first thing that is wrong and exits 1
 *
 * Meant to be compiled with sanitizers and with small leaves, so that splits and joins are common.
 */
#define _GNU_SOURCE
#include "side.h"

#include <stdio.h>

#define REQUIRE(condition)                                                                                     \
    do {                                                                                                       \
        if (!(condition)) {                                                                                    \
            fprintf(stderr, "line %d, change %ld: not true: %s\n", __LINE__, change, #condition);              \
            exit(1);                                                                                           \
        }                                                                                                      \
    } while (0)

static uint64_t random_state;

static uint64_t next_random(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static void check_structure(mdring_side *side, long change) {
    int64_t levels = 0;
    for (int64_t i = 0; i <= side->lower_count; i++) {
        const mdring_branch *branch = mdring_branch_at(side, i);
        REQUIRE(branch->count <= MDRING_LEAF_LEVELS);
        REQUIRE(branch->count > 0 || side->lower_count == 0);
        REQUIRE(i > 0 || branch->low == INT64_MIN);
        for (int64_t k = 0; k < branch->count; k++) {
            REQUIRE(branch->leaf->keys[k] >= branch->low);
            REQUIRE(k == 0 || branch->leaf->keys[k - 1] < branch->leaf->keys[k]);
        }
        if (i < side->lower_count) {
            const mdring_branch *above = mdring_branch_at(side, i + 1);
            REQUIRE(branch->leaf->keys[branch->count - 1] < above->low);
            REQUIRE(branch->count + above->count > MDRING_LEAF_LEVELS / 4);
        }
        levels += branch->count;
    }
    REQUIRE(levels == side->level_count);
}

static void check_levels(const mdring_side *side, const int64_t *sizes, long depth, mdring_level *out, long change) {
    int64_t count = mdring_copy_levels(side, side->level_count, out), expected = 0;
    REQUIRE(count == side->level_count);
    for (long key = depth - 1; key >= 0; key--) {
        if (sizes[key] == 0) continue;
        REQUIRE(expected < count && (out[expected].price ^ side->flip) == key && out[expected].size == sizes[key]);
        expected++;
    }
    REQUIRE(expected == count);
    REQUIRE(count == 0 || mdring_best_key(side) == (out[0].price ^ side->flip));
}

/* Every leaf is free again but the one that an empty side keeps. */
static void check_pool(mdring_pool *pool, mdring_side *side, long change) {
    int64_t leaves = 0;
    mdring_empty(pool, side);
    for (const mdring_slab *slab = pool->slabs; slab != NULL; slab = slab->next) leaves += MDRING_SLAB_LEAVES;
    for (const mdring_leaf *leaf = pool->free; leaf != NULL; leaf = leaf->next) leaves--;
    REQUIRE(leaves == 1);
}

int main(int argument_count, char **arguments) {
    if (argument_count != 4) return 2;
    random_state = strtoull(arguments[1], NULL, 10) * 2654435761u + 1;
    long changes = atol(arguments[2]), depth = atol(arguments[3]);
    int64_t *sizes = calloc((size_t)depth, sizeof *sizes);
    mdring_level *levels = calloc((size_t)depth, sizeof *levels);
    mdring_pool pool = {0};
    mdring_side side = {.flip = -1};
    long fill_percent = 50, change;
    for (change = 0; change < changes; change++) {
        if (change % 2000 == 0) fill_percent = (long)(next_random() % 101); /* grow for a while, then shrink */
        if (next_random() % 4000 == 0) {
            if (next_random() % 2) memset(sizes, 0, (size_t)depth * sizeof *sizes);
            int64_t count = mdring_copy_levels(&side, depth, levels);
            mdring_empty(&pool, &side);
            check_structure(&side, change);
            for (long i = count = 0; i < depth; i++) {
                if (sizes[depth - 1 - i]) levels[count++] = (mdring_level){(depth - 1 - i) ^ side.flip, sizes[depth - 1 - i]};
            }
            REQUIRE(mdring_load_levels(&pool, &side, levels, count));
        }
        int64_t key = (int64_t)(next_random() % (uint64_t)depth);
        if (next_random() % 2) key = depth - 1 - key * key / depth * key / depth; /* rather near the best */
        int64_t size = (long)(next_random() % 100) < fill_percent ? 1 + (int64_t)(next_random() % 1000) : 0;
        REQUIRE(mdring_set(&pool, &side, key, size));
        sizes[key] = size;
        REQUIRE(mdring_size_at(&side, key) == size);
        check_structure(&side, change);
        if (change % 64 == 0) check_levels(&side, sizes, depth, levels, change);
    }
    check_pool(&pool, &side, change);
    free(side.lower);
    mdring_pool_destroy(&pool);
    free(sizes);
    free(levels);
    return 0;
}
