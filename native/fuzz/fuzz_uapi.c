/*
 * libFuzzer harness for the parser of wireguard-go's answers. The input's first byte is the size of
 * the pieces in which the rest, an answer, comes. It is read whole, in these pieces, and from tables
 * that start with hardly any room; all must agree, and what is said to be whole must hang together.
 */
#include "../uapi.c"

#include <stdlib.h>

#define CHECK(condition)		\
	do {				\
		if (!(condition))	\
			abort();	\
	} while (0)

#define ROOM 1024

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct reading {
	struct wga_uapi uapi;
	struct wga_dump dump;
	int result;
};

/* In memory of exactly its size, so that a read past its end is seen. */
static void *copy_of(const void *data, size_t size, size_t room)
{
	void *copy = calloc(room ? room : 1, 1);

	CHECK(copy);
	if (size)
		memcpy(copy, data, size);
	return copy;
}

static void begin(struct reading *reading, size_t peers, size_t allowed_ips)
{
	reading->dump = (struct wga_dump){
		.peers = copy_of(NULL, 0, peers * sizeof(struct wga_peer)),
		.peer_capacity = peers,
		.allowed_ips = copy_of(NULL, 0, allowed_ips * sizeof(struct wga_allowed_ip)),
		.allowed_ip_capacity = allowed_ips,
	};
	wga_uapi_begin(&reading->uapi, &reading->dump);
	reading->result = 0;
}

static void release(struct reading *reading)
{
	free(reading->dump.peers);
	free(reading->dump.allowed_ips);
}

/* By one: more growing than any caller's. */
static void grow(struct wga_dump *dump)
{
	void *peers = dump->peers, *allowed_ips = dump->allowed_ips;

	CHECK(dump->peer_count == dump->peer_capacity || dump->allowed_ip_count == dump->allowed_ip_capacity);
	dump->peer_capacity += dump->peer_count == dump->peer_capacity;
	dump->allowed_ip_capacity += dump->allowed_ip_count == dump->allowed_ip_capacity;
	dump->peers = copy_of(peers, dump->peer_count * sizeof(*dump->peers),
			      dump->peer_capacity * sizeof(*dump->peers));
	dump->allowed_ips = copy_of(allowed_ips, dump->allowed_ip_count * sizeof(*dump->allowed_ips),
				    dump->allowed_ip_capacity * sizeof(*dump->allowed_ips));
	free(peers);
	free(allowed_ips);
}

/* Feed what is not consumed of the first `size` bytes. Returns how many of them are consumed. */
static size_t feed(struct reading *reading, const uint8_t *data, size_t consumed, size_t size)
{
	do {
		uint8_t *copy = copy_of(data + consumed, size - consumed, size - consumed);

		reading->result = wga_uapi_feed(&reading->uapi, copy, size - consumed);
		free(copy);
		CHECK(reading->uapi.consumed <= size - consumed);
		consumed += reading->uapi.consumed;
		if (reading->result == -ENOSPC)
			grow(&reading->dump);
	} while (reading->result == -ENOSPC);
	return consumed;
}

static void read_all(struct reading *reading, const uint8_t *data, size_t size, size_t piece)
{
	size_t end = 0, consumed = 0;

	while (reading->result == 0 && end < size) {
		end = size - end > piece ? end + piece : size;
		consumed = feed(reading, data, consumed, end);
	}
	/* What comes after the end of an answer is not read by pieces. */
	if (reading->result == 1 && end < size)
		reading->result = -EBADMSG;
}

static void check(const struct reading *reading)
{
	const struct wga_dump *dump = &reading->dump;
	size_t i, next = 0;

	CHECK(reading->result <= 1);
	CHECK(reading->result >= 0 || reading->uapi.fault || dump->state == WGA_DUMP_FINISHED);
	CHECK(reading->uapi.device_error >= 0 && reading->uapi.device_error <= MAX_DEVICE_ERROR);
	if (reading->result != 1)
		return;
	CHECK(dump->state == WGA_DUMP_FINISHED && reading->uapi.has_device_error);
	for (i = 0; i < dump->peer_count; i++) {
		CHECK(dump->peers[i].last_handshake_ns >= 0);
		CHECK(dump->peers[i].first_allowed_ip == next);
		next += dump->peers[i].allowed_ip_count;
	}
	CHECK(next == dump->allowed_ip_count);
	for (i = 0; i < next; i++) {
		const struct wga_allowed_ip *ip = &dump->allowed_ips[i];

		CHECK(ip->address_len == 4 || ip->address_len == 16);
		CHECK(ip->prefix_len <= 8 * ip->address_len);
	}
}

static void same(const struct reading *one, const struct reading *other)
{
	CHECK(one->result == other->result);
	if (one->result != 1)
		return;
	CHECK(one->uapi.device_error == other->uapi.device_error);
	CHECK(one->dump.peer_count == other->dump.peer_count);
	CHECK(one->dump.allowed_ip_count == other->dump.allowed_ip_count);
	CHECK(one->dump.listen_port == other->dump.listen_port);
	CHECK(memcmp(one->uapi.private_key, other->uapi.private_key, WGA_KEY_LEN) == 0);
	CHECK(memcmp(one->dump.peers, other->dump.peers, one->dump.peer_count * sizeof(struct wga_peer)) == 0);
	CHECK(memcmp(one->dump.allowed_ips, other->dump.allowed_ips,
		     one->dump.allowed_ip_count * sizeof(struct wga_allowed_ip)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct reading whole, pieces, cramped;
	size_t piece;

	if (size < 1)
		return 0;
	piece = 1 + data[0];
	data++;
	size--;
	begin(&whole, ROOM, ROOM);
	read_all(&whole, data, size, size);
	check(&whole);
	begin(&pieces, ROOM, ROOM);
	read_all(&pieces, data, size, piece);
	check(&pieces);
	same(&whole, &pieces);
	begin(&cramped, 0, 0);
	read_all(&cramped, data, size, piece);
	check(&cramped);
	same(&whole, &cramped);
	CHECK(whole.result == 0 || wga_uapi_feed(&whole.uapi, data, size) == -EINVAL);
	release(&whole);
	release(&pieces);
	release(&cramped);
	return 0;
}
