/*
 * Allocates indices next fit from a bitmap: a set bit is an allocated index.
 *
 * At most 65536 indices are 1024 words, so the worst search reads 8 KiB and needs no summary level.
 */
#include <errno.h>
#include <string.h>

#include "appliance.h"

#define WORD_BITS 64
#define MAX_SIZE 65536

static uint64_t bit(uint32_t index)
{
	return UINT64_C(1) << (index % WORD_BITS);
}

static uint32_t word_count(const struct wga_pool *pool)
{
	return (pool->size + WORD_BITS - 1) / WORD_BITS;
}

static void take(struct wga_pool *pool, uint32_t index)
{
	pool->words[index / WORD_BITS] |= bit(index);
	pool->used++;
}

int wga_pool_init(struct wga_pool *pool, uint64_t *words, uint32_t size)
{
	if (size == 0 || size > MAX_SIZE)
		return -ERANGE;
	*pool = (struct wga_pool){ .words = words, .size = size };
	memset(words, 0, word_count(pool) * sizeof(*words));
	/* The bits past the end stay set, so that no search finds them. */
	if (size % WORD_BITS)
		words[size / WORD_BITS] = ~(bit(size) - 1);
	return 0;
}

int wga_pool_allocate(struct wga_pool *pool)
{
	uint32_t count = word_count(pool);
	uint32_t word = pool->cursor / WORD_BITS;
	/* In the first word only what lies at or after the cursor; the last round sees the rest of it. */
	uint64_t behind = bit(pool->cursor) - 1;
	uint32_t round;

	for (round = 0; round <= count; round++) {
		uint64_t vacant = ~pool->words[word] & ~behind;

		if (vacant) {
			uint32_t index = word * WORD_BITS + (uint32_t)__builtin_ctzll(vacant);

			take(pool, index);
			pool->cursor = (index + 1) % pool->size;
			return (int)index;
		}
		behind = 0;
		word = (word + 1) % count;
	}
	return -ENOSPC;
}

int wga_pool_reserve(struct wga_pool *pool, uint32_t index)
{
	if (index >= pool->size)
		return -ERANGE;
	if (pool->words[index / WORD_BITS] & bit(index))
		return -EEXIST;
	take(pool, index);
	return 0;
}

int wga_pool_release(struct wga_pool *pool, uint32_t index)
{
	if (index >= pool->size)
		return -ERANGE;
	if (!(pool->words[index / WORD_BITS] & bit(index)))
		return -ENOENT;
	pool->words[index / WORD_BITS] &= ~bit(index);
	pool->used--;
	return 0;
}

int wga_pool_test(const struct wga_pool *pool, uint32_t index)
{
	if (index >= pool->size)
		return -ERANGE;
	return !!(pool->words[index / WORD_BITS] & bit(index));
}
