/*
 * Orders rows by a number that is part of them: a binary heap of the numbers of rows. Each row says where it stands in
 * the heap, so that it is moved or removed without a search.
 */
#include <errno.h>
#include <string.h>

#include "appliance.h"

static uint8_t *field(const struct wga_row_heap *heap, uint32_t row, size_t at)
{
	return heap->rows->bytes + (size_t)row * heap->rows->row_size + at;
}

/* Rows are packed: nothing in them is aligned. */
static int64_t number_of(const struct wga_row_heap *heap, uint32_t row)
{
	int64_t number;

	memcpy(&number, field(heap, row, heap->number_at), sizeof(number));
	return number;
}

/* 1 + the position; 0: it is in no heap. */
static uint32_t place_of(const struct wga_row_heap *heap, uint32_t row)
{
	uint32_t place;

	memcpy(&place, field(heap, row, heap->place_at), sizeof(place));
	return place;
}

static void set_place(struct wga_row_heap *heap, uint32_t row, uint32_t place)
{
	memcpy(field(heap, row, heap->place_at), &place, sizeof(place));
}

static void put_at(struct wga_row_heap *heap, size_t at, uint32_t row)
{
	heap->order[at] = row;
	set_place(heap, row, (uint32_t)at + 1);
}

static int is_valid(const struct wga_row_heap *heap, uint32_t row)
{
	const struct wga_rows *rows = heap->rows;

	return row < rows->capacity && heap->number_at + sizeof(int64_t) <= rows->row_size &&
	       heap->place_at + sizeof(uint32_t) <= rows->row_size;
}

static int is_here(const struct wga_row_heap *heap, uint32_t row)
{
	uint32_t place = place_of(heap, row);

	return place > 0 && place <= heap->count && heap->order[place - 1] == row;
}

/* Lets the row go to where it belongs from this position, which is free. */
static void settle(struct wga_row_heap *heap, size_t at, uint32_t row)
{
	int64_t number = number_of(heap, row);

	while (at > 0 && number < number_of(heap, heap->order[(at - 1) / 2])) {
		put_at(heap, at, heap->order[(at - 1) / 2]);
		at = (at - 1) / 2;
	}
	for (;;) {
		size_t child = 2 * at + 1;

		if (child + 1 < heap->count &&
		    number_of(heap, heap->order[child + 1]) < number_of(heap, heap->order[child]))
			child++;
		if (child >= heap->count || number <= number_of(heap, heap->order[child]))
			break;
		put_at(heap, at, heap->order[child]);
		at = child;
	}
	put_at(heap, at, row);
}

int wga_row_heap_put(struct wga_row_heap *heap, uint32_t row, int64_t number)
{
	size_t at;

	if (!is_valid(heap, row))
		return -ERANGE;
	if (is_here(heap, row)) {
		at = place_of(heap, row) - 1;
	} else {
		if (place_of(heap, row))
			return -EEXIST;
		if (heap->count == heap->capacity)
			return -ENOSPC;
		at = heap->count++;
		heap->order[at] = row;
	}
	memcpy(field(heap, row, heap->number_at), &number, sizeof(number));
	settle(heap, at, row);
	return 0;
}

int wga_row_heap_remove(struct wga_row_heap *heap, uint32_t row)
{
	size_t at;
	uint32_t last;

	if (!is_valid(heap, row))
		return -ERANGE;
	if (!is_here(heap, row))
		return -ENOENT;
	at = place_of(heap, row) - 1;
	set_place(heap, row, 0);
	last = heap->order[--heap->count];
	if (last != row)
		settle(heap, at, last);
	return 0;
}

long wga_row_heap_first(const struct wga_row_heap *heap)
{
	return heap->count ? (long)heap->order[0] : -ENOENT;
}

long wga_row_heap_up_to(const struct wga_row_heap *heap, int64_t limit, uint32_t *out, size_t capacity)
{
	size_t found = 0;
	size_t next, child;

	/* Positions first, each followed by its children's later on: none below one that is too high is looked at. */
	if (heap->count && number_of(heap, heap->order[0]) <= limit) {
		if (found == capacity)
			return -ENOSPC;
		out[found++] = 0;
	}
	for (next = 0; next < found; next++) {
		for (child = 2 * (size_t)out[next] + 1; child <= 2 * (size_t)out[next] + 2; child++) {
			if (child >= heap->count || number_of(heap, heap->order[child]) > limit)
				continue;
			if (found == capacity)
				return -ENOSPC;
			out[found++] = (uint32_t)child;
		}
	}
	for (next = 0; next < found; next++)
		out[next] = heap->order[out[next]];
	return (long)found;
}
