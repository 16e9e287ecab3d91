/*
 * Maps the keys of rows to the rows: open addressing with linear probing. A key is part of its row, so that a slot is
 * the row's number and nothing else. What is removed leaves no mark: the slots behind it move up.
 */
#include <errno.h>
#include <string.h>

#include "appliance.h"
#include "siphash.h"

#define VACANT 0	/* a slot; else 1 + the number of a row */

static const uint8_t *key_of(const struct wga_row_index *index, uint32_t row)
{
	return index->rows->bytes + (size_t)row * index->rows->row_size + index->key_at;
}

static size_t home_of(const struct wga_row_index *index, const uint8_t *key)
{
	return wga_siphash(index->secret, key, index->key_len) & (index->size - 1);
}

/* The position of the slot of the row with this key, or of the vacant one that it belongs into. */
static size_t position_of(const struct wga_row_index *index, const uint8_t *key)
{
	size_t at = home_of(index, key);

	while (index->slots[at] != VACANT) {
		if (memcmp(key_of(index, index->slots[at] - 1), key, index->key_len) == 0)
			break;
		at = (at + 1) & (index->size - 1);
	}
	return at;
}

/* Searches end at a vacant slot, and are short while there are many. */
static int has_room(size_t size, size_t used)
{
	return used <= size / 4 * 3;
}

static int has_key(const struct wga_row_index *index, uint32_t row)
{
	return row < index->rows->capacity && index->key_at + index->key_len <= index->rows->row_size;
}

int wga_row_index_put(struct wga_row_index *index, uint32_t row)
{
	size_t at;

	if (!has_key(index, row))
		return -ERANGE;
	if (!has_room(index->size, (size_t)index->used + 1))
		return -ENOSPC;
	at = position_of(index, key_of(index, row));
	if (index->slots[at] != VACANT)
		return -EEXIST;
	index->slots[at] = row + 1;
	index->used++;
	return 0;
}

long wga_row_index_find(const struct wga_row_index *index, const uint8_t *key)
{
	uint32_t slot = index->slots[position_of(index, key)];

	return slot == VACANT ? -ENOENT : (long)slot - 1;
}

int wga_row_index_remove(struct wga_row_index *index, uint32_t row)
{
	size_t mask = index->size - 1;
	size_t gap, at;

	if (!has_key(index, row))
		return -ERANGE;
	gap = position_of(index, key_of(index, row));
	if (index->slots[gap] != row + 1)
		return -ENOENT;
	for (at = (gap + 1) & mask; index->slots[at] != VACANT; at = (at + 1) & mask) {
		size_t home = home_of(index, key_of(index, index->slots[at] - 1));

		/* It is found from its home on, so it may move into the gap unless that is before its home. */
		if (((at - home) & mask) >= ((at - gap) & mask)) {
			index->slots[gap] = index->slots[at];
			gap = at;
		}
	}
	index->slots[gap] = VACANT;
	index->used--;
	return 0;
}

int wga_row_index_move(struct wga_row_index *index, uint32_t *slots, size_t size)
{
	uint32_t *before = index->slots;
	size_t before_size = index->size;
	size_t at;

	if (size < 4 || size & (size - 1) || !has_room(size, index->used))
		return -EINVAL;
	memset(slots, 0, size * sizeof(*slots));
	index->slots = slots;
	index->size = size;
	for (at = 0; at < before_size; at++) {
		if (before[at] != VACANT)
			slots[position_of(index, key_of(index, before[at] - 1))] = before[at];
	}
	return 0;
}
