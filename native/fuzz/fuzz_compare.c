/*
 * libFuzzer harness for the comparison of two dumps. The input says which peers stand in each: two
 * bytes a peer, its key and its figures. What comes out must be what two nested loops find.
 */
#include "../peer_index.c"
#undef KEY_LEN
#include "../compare.c"

#include <stdlib.h>

#define CHECK(condition)		\
	do {				\
		if (!(condition))	\
			abort();	\
	} while (0)

#define MOST 256

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* In memory of exactly its size, so that a read past its end is seen. */
static void *allocate(size_t count, size_t size)
{
	void *memory = calloc(count ? count : 1, size);

	CHECK(memory);
	return memory;
}

/*
 * Two bytes a peer: key; two bits of rx, one of tx, one of keepalive, one of handshake time, one of what, and two of
 * how many allowed-ips. The endpoint goes by the position.
 */
static void fill(struct wga_dump *dump, const uint8_t *data, size_t count)
{
	size_t i, ip;

	*dump = (struct wga_dump){
		.peers = allocate(count, sizeof(*dump->peers)),
		.peer_count = count,
		.allowed_ips = allocate(count * 3, sizeof(*dump->allowed_ips)),
	};
	for (i = 0; i < count; i++) {
		struct wga_peer *peer = &dump->peers[i];

		memset(peer->public_key, data[2 * i], KEY_LEN);
		peer->rx_bytes = data[2 * i + 1] & 3;
		peer->tx_bytes = data[2 * i + 1] >> 2 & 1;
		peer->keepalive_s = data[2 * i + 1] >> 3 & 1;
		peer->endpoint_port = (uint16_t)i;
		peer->last_handshake_ns = data[2 * i + 1] >> 4 & 1;
		peer->allowed_ip_count = data[2 * i + 1] >> 6;
		peer->first_allowed_ip = (uint32_t)dump->allowed_ip_count;
		for (ip = 0; ip < peer->allowed_ip_count; ip++)
			dump->allowed_ips[dump->allowed_ip_count++].prefix_len =
				(uint8_t)(ip + (data[2 * i + 1] >> 5 & 1) * 8);
	}
}

static size_t times(const struct wga_dump *dump, const uint8_t *public_key, size_t *place)
{
	size_t i, found = 0;

	for (i = 0; i < dump->peer_count; i++) {
		if (memcmp(dump->peers[i].public_key, public_key, KEY_LEN) == 0) {
			*place = i;
			found++;
		}
	}
	return found;
}

static int comes_twice(const struct wga_dump *dump)
{
	size_t i, place;

	for (i = 0; i < dump->peer_count; i++) {
		if (times(dump, dump->peers[i].public_key, &place) > 1)
			return 1;
	}
	return 0;
}

static int is_changed(const struct wga_dump *before, const struct wga_dump *after, const struct wga_peer *is)
{
	const struct wga_peer *was;
	size_t place, ip;

	if (!times(before, is->public_key, &place))
		return 1;
	was = &before->peers[place];
	if (was->rx_bytes != is->rx_bytes || was->tx_bytes != is->tx_bytes ||
	    was->last_handshake_ns != is->last_handshake_ns || was->keepalive_s != is->keepalive_s ||
	    was->allowed_ip_count != is->allowed_ip_count)
		return 1;
	for (ip = 0; ip < is->allowed_ip_count; ip++) {
		if (before->allowed_ips[was->first_allowed_ip + ip].prefix_len !=
		    after->allowed_ips[is->first_allowed_ip + ip].prefix_len)
			return 1;
	}
	return 0;
}

static void check(const struct wga_dump *before, const struct wga_dump *after, const struct wga_key *found,
		  size_t count)
{
	size_t i, place, at = 0;

	for (i = 0; i < after->peer_count; i++) {
		if (!is_changed(before, after, &after->peers[i]))
			continue;
		CHECK(at < count && memcmp(found[at].bytes, after->peers[i].public_key, KEY_LEN) == 0);
		at++;
	}
	for (i = 0; i < before->peer_count; i++) {
		if (times(after, before->peers[i].public_key, &place))
			continue;
		CHECK(at < count && memcmp(found[at].bytes, before->peers[i].public_key, KEY_LEN) == 0);
		at++;
	}
	CHECK(at == count);
}

/* Filled, and every key that there can be is found where it stands and nowhere else. */
static struct wga_peer_index index_of(const struct wga_dump *dump)
{
	struct wga_peer_index index = { .secret = { 1, 2 }, .size = 1 };
	uint8_t key[KEY_LEN];
	size_t place;
	int byte;

	while (index.size < 2 * dump->peer_count)
		index.size *= 2;
	index.slots = allocate(index.size, sizeof(*index.slots));
	if (comes_twice(dump)) {
		CHECK(wga_peer_index_fill(&index, dump) == -EBADMSG);
		return index;
	}
	CHECK(wga_peer_index_fill(&index, dump) == 0);
	for (byte = 0; byte < MOST; byte++) {
		memset(key, byte, KEY_LEN);
		CHECK(wga_peer_index_find(&index, dump, key) ==
		      (times(dump, key, &place) ? (long)place : -ENOENT));
	}
	return index;
}

static int same_order(const struct wga_dump *before, const struct wga_dump *after)
{
	size_t i, place, same = 0;

	for (i = 0; i < after->peer_count; i++)
		same += times(before, after->peers[i].public_key, &place) && place == i;
	return same == after->peer_count && same == before->peer_count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct wga_peer_index before_index, after_index, *shared;
	struct wga_dump before, after;
	struct wga_key *found;
	size_t first, second;
	long count, exact;

	if (size < 1)
		return 0;
	first = data[0] < (size - 1) / 2 ? data[0] : (size - 1) / 2;
	second = (size - 1) / 2 - first;
	second = second < MOST ? second : MOST;
	fill(&before, data + 1, first);
	if (comes_twice(&before))
		before.peer_count = 0;	/* no dump that was taken over */
	fill(&after, data + 1 + 2 * first, second);
	before_index = index_of(&before);
	after_index = index_of(&after);
	if (!comes_twice(&after)) {
		CHECK(wga_dump_same_order(&before, &after) == same_order(&before, &after));
		/* A caller reuses the earlier dump's index for both dumps. */
		shared = same_order(&before, &after) ? &before_index : &after_index;
		found = allocate(first + second, sizeof(*found));
		count = wga_dump_compare(&before, &before_index, &after, shared, found, first + second);
		CHECK(count >= 0);
		check(&before, &after, found, (size_t)count);
		free(found);
		found = allocate((size_t)count, sizeof(*found));
		exact = wga_dump_compare(&before, &before_index, &after, shared, found, (size_t)count);
		CHECK(exact == count);
		CHECK(count == 0 || wga_dump_compare(&before, &before_index, &after, shared, found,
						     (size_t)count - 1) == -ENOSPC);
		free(found);
	}
	free(before_index.slots);
	free(after_index.slots);
	free(before.peers);
	free(before.allowed_ips);
	free(after.peers);
	free(after.allowed_ips);
	return 0;
}
