/*
 * libFuzzer harness for the index and the heaps of rows, against plain arrays. The input is operations of three bytes:
 * what to do, to which row, and a key, a number or a limit. Two heaps share their fields, as a row may be in one of them.
 */
#include "../row_heap.c"
#include "../row_index.c"

#include <stdlib.h>

#define CHECK(condition)		\
	do {				\
		if (!(condition))	\
			abort();	\
	} while (0)

#define ROWS 48
#define HEAP_CAPACITY 40	/* so that one is full at times */
#define KEY_LEN 5
#define ROW_SIZE 19		/* key, number and place, with a byte between; nothing is aligned */
#define KEY_AT 1
#define NUMBER_AT 7
#define PLACE_AT 15

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct model {
	int in_index[ROWS];
	uint8_t key[ROWS];
	int heap[ROWS];		/* 1 + which; 0: none */
	int64_t number[ROWS];
};

struct subject {
	struct wga_rows rows;
	struct wga_row_index index;
	struct wga_row_heap heaps[2];
};

/* In memory of exactly its size, so that an access past its end is seen. */
static void *allocate(size_t count, size_t size)
{
	void *memory = calloc(count, size);

	CHECK(memory);
	return memory;
}

/* Few keys, so that rows often have the same one; and few hashes, as `size` is small. */
static void write_key(uint8_t *out, uint8_t key)
{
	memset(out, key % 32, KEY_LEN);
}

static int holder_of(const struct model *model, uint8_t key)
{
	int row;

	for (row = 0; row < ROWS; row++) {
		if (model->in_index[row] && model->key[row] % 32 == key % 32)
			return row;
	}
	return -ENOENT;
}

static void move_index(struct subject *s, size_t size)
{
	uint32_t *before = s->index.slots;
	uint32_t *slots = allocate(size, sizeof(*slots));
	int result = wga_row_index_move(&s->index, slots, size);

	CHECK(result == (size < 4 || size & (size - 1) || s->index.used > size / 4 * 3 ? -EINVAL : 0));
	free(result ? slots : before);
}

static void put_in_index(struct subject *s, struct model *model, uint32_t row, uint8_t key)
{
	int expected;

	if (row >= ROWS) {
		CHECK(wga_row_index_put(&s->index, row) == -ERANGE);
		return;
	}
	if (!model->in_index[row]) {
		model->key[row] = key;
		write_key(s->rows.bytes + row * ROW_SIZE + KEY_AT, key);
	}
	expected = holder_of(model, model->key[row]) >= 0 ? -EEXIST : 0;
	if (s->index.used + 1 > s->index.size / 4 * 3)
		expected = -ENOSPC;
	CHECK(wga_row_index_put(&s->index, row) == expected);
	if (!expected)
		model->in_index[row] = 1;
}

static void remove_from_index(struct subject *s, struct model *model, uint32_t row)
{
	int expected = row >= ROWS ? -ERANGE : model->in_index[row] ? 0 : -ENOENT;

	CHECK(wga_row_index_remove(&s->index, row) == expected);
	if (!expected)
		model->in_index[row] = 0;
}

static void put_in_heap(struct subject *s, struct model *model, int which, uint32_t row, int64_t number)
{
	struct wga_row_heap *heap = &s->heaps[which];
	int expected = 0;

	if (row >= ROWS)
		expected = -ERANGE;
	else if (model->heap[row] && model->heap[row] != which + 1)
		expected = -EEXIST;
	else if (!model->heap[row] && heap->count == HEAP_CAPACITY)
		expected = -ENOSPC;
	CHECK(wga_row_heap_put(heap, row, number) == expected);
	if (expected)
		return;
	model->heap[row] = which + 1;
	model->number[row] = number;
}

static void remove_from_heap(struct subject *s, struct model *model, int which, uint32_t row)
{
	int expected = row >= ROWS ? -ERANGE : model->heap[row] == which + 1 ? 0 : -ENOENT;

	CHECK(wga_row_heap_remove(&s->heaps[which], row) == expected);
	if (!expected)
		model->heap[row] = 0;
}

static void check_heap(struct subject *s, const struct model *model, int which, int64_t limit)
{
	const struct wga_row_heap *heap = &s->heaps[which];
	uint32_t *found = allocate(ROWS, sizeof(*found));
	uint8_t seen[ROWS] = { 0 };
	long first = wga_row_heap_first(heap);
	size_t row, expected = 0, all = 0;
	long count = wga_row_heap_up_to(heap, limit, found, ROWS);

	for (row = 0; row < ROWS; row++) {
		if (model->heap[row] != which + 1)
			continue;
		all++;
		expected += model->number[row] <= limit;
		CHECK(first >= 0 && model->number[first] <= model->number[row]);
	}
	CHECK(heap->count == all && (all ? first >= 0 && model->heap[first] == which + 1 : first == -ENOENT));
	CHECK(count == (long)expected);
	for (row = 0; row < expected; row++) {
		CHECK(found[row] < ROWS && !seen[found[row]]++);
		CHECK(model->heap[found[row]] == which + 1 && model->number[found[row]] <= limit);
	}
	if (expected)
		CHECK(wga_row_heap_up_to(heap, limit, found, expected - 1) == -ENOSPC);
	free(found);
}

static void operate(struct subject *s, struct model *model, const uint8_t *operation)
{
	uint32_t row = operation[1] % (ROWS + 2);
	int which = operation[1] >> 7;
	int64_t number = operation[2] == 0 ? INT64_MIN : operation[2] == 255 ? INT64_MAX : operation[2] - 128;
	uint8_t key[KEY_LEN];

	switch (operation[0] % 8) {
	case 0:
	case 1:
		put_in_index(s, model, row, operation[2]);
		break;
	case 2:
		remove_from_index(s, model, row);
		break;
	case 3:
		move_index(s, operation[2] % 8 ? (size_t)1 << operation[2] % 8 : operation[2]);
		break;
	case 4:
	case 5:
		put_in_heap(s, model, which, row, number);
		break;
	case 6:
		remove_from_heap(s, model, which, row);
		break;
	default:
		write_key(key, operation[2]);
		CHECK(wga_row_index_find(&s->index, key) == holder_of(model, operation[2]));
		check_heap(s, model, which, number);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct model model = { 0 };
	struct subject s = { .rows = { allocate(ROWS, ROW_SIZE), ROW_SIZE, ROWS } };
	uint32_t row;
	size_t at;
	int which;

	s.index = (struct wga_row_index){ .rows = &s.rows, .secret = { 1, 2 }, .key_at = KEY_AT, .key_len = KEY_LEN };
	move_index(&s, 4);
	for (which = 0; which < 2; which++)
		s.heaps[which] = (struct wga_row_heap){
			.rows = &s.rows,
			.number_at = NUMBER_AT,
			.place_at = PLACE_AT,
			.order = allocate(HEAP_CAPACITY, sizeof(uint32_t)),
			.capacity = HEAP_CAPACITY,
		};
	for (at = 0; at + 3 <= size && at < 3000; at += 3)
		operate(&s, &model, data + at);
	for (row = 0; row < ROWS; row++) {
		if (model.in_index[row])
			CHECK(wga_row_index_find(&s.index, s.rows.bytes + row * ROW_SIZE + KEY_AT) == (long)row);
	}
	check_heap(&s, &model, 0, INT64_MAX);
	check_heap(&s, &model, 1, INT64_MAX);
	free(s.heaps[0].order);
	free(s.heaps[1].order);
	free(s.index.slots);
	free(s.rows.bytes);
	return 0;
}
