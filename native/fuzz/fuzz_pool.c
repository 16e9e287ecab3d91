/*
 * libFuzzer harness for the address pool, against a plain array of bytes. The input: two bytes of
 * size (less one), then operations of three bytes: what to do, and an index.
 */
#include "../pool.c"

#include <stdlib.h>

#define CHECK(condition)		\
	do {				\
		if (!(condition))	\
			abort();	\
	} while (0)

/* One more than the largest index and some, so that operations reach past the end. */
#define INDEX_SPAN(size) ((size) + 3)

struct model {
	uint8_t taken[MAX_SIZE];
	uint32_t size;
	uint32_t used;
	uint32_t cursor;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int model_allocate(struct model *model)
{
	uint32_t step;

	for (step = 0; step < model->size; step++) {
		uint32_t index = (model->cursor + step) % model->size;

		if (model->taken[index])
			continue;
		model->taken[index] = 1;
		model->used++;
		model->cursor = index + 1;
		return (int)index;
	}
	return -ENOSPC;
}

static int model_reserve(struct model *model, uint32_t index)
{
	if (index >= model->size)
		return -ERANGE;
	if (model->taken[index])
		return -EEXIST;
	model->taken[index] = 1;
	model->used++;
	return 0;
}

static int model_release(struct model *model, uint32_t index)
{
	if (index >= model->size)
		return -ERANGE;
	if (!model->taken[index])
		return -ENOENT;
	model->taken[index] = 0;
	model->used--;
	return 0;
}

/* Take everything, so that a full pool comes up however large it is. */
static void fill(struct wga_pool *pool, struct model *model)
{
	uint32_t i;

	for (i = 0; i < model->size; i++)
		CHECK(wga_pool_reserve(pool, i) == model_reserve(model, i));
}

static void operate(struct wga_pool *pool, struct model *model, uint8_t operation, uint32_t index)
{
	int expected;

	switch (operation % 8) {
	case 0:
	case 1:
	case 2:
		CHECK(wga_pool_allocate(pool) == model_allocate(model));
		break;
	case 3:
		CHECK(wga_pool_reserve(pool, index) == model_reserve(model, index));
		break;
	case 4:
	case 5:
		CHECK(wga_pool_release(pool, index) == model_release(model, index));
		break;
	case 6:
		expected = index < model->size ? model->taken[index] : -ERANGE;
		CHECK(wga_pool_test(pool, index) == expected);
		break;
	default:
		if (operation == 7)
			fill(pool, model);
	}
	CHECK(pool->used == model->used);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct model *model;
	struct wga_pool pool;
	uint64_t *words;
	uint32_t i;

	if (size < 2)
		return 0;
	model = calloc(1, sizeof(*model));
	CHECK(model);
	model->size = (uint32_t)(data[0] | data[1] << 8) + 1;
	words = malloc((model->size + WORD_BITS - 1) / WORD_BITS * sizeof(*words));
	CHECK(words);
	CHECK(wga_pool_init(&pool, words, model->size) == 0);

	for (i = 2; i + 3 <= size && i < 3000; i += 3)
		operate(&pool, model, data[i], (uint32_t)(data[i + 1] | data[i + 2] << 8) % INDEX_SPAN(model->size));
	for (i = 0; i < model->size; i++)
		CHECK(wga_pool_test(&pool, i) == model->taken[i]);

	free(words);
	free(model);
	return 0;
}
