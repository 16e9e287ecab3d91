/*
 * libFuzzer harness for the dump parser. The input is a recording: recv() buffers, one after another.
 * It is read as one buffer, as one buffer a message, and with hardly any room; the first two must
 * agree, and what is said to be a whole dump must hang together.
 */
#include "../dump.c"

#include <stdlib.h>

#define CHECK(condition)		\
	do {				\
		if (!(condition))	\
			abort();	\
	} while (0)

#define ROOM 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void allocate(struct wga_dump *dump, size_t peers, size_t allowed_ips)
{
	*dump = (struct wga_dump){
		.peers = calloc(peers, sizeof(*dump->peers)),
		.peer_capacity = peers,
		.allowed_ips = calloc(allowed_ips, sizeof(*dump->allowed_ips)),
		.allowed_ip_capacity = allowed_ips,
	};
	CHECK(dump->peers && dump->allowed_ips);
}

static void release(struct wga_dump *dump)
{
	free(dump->peers);
	free(dump->allowed_ips);
}

/* The input's first message says which family and sequence number to expect: recordings replay as they are. */
static void begin(struct wga_dump *dump, const uint8_t *data, size_t size)
{
	struct nlmsghdr header = { .nlmsg_type = 0 };

	if (size >= sizeof(header))
		memcpy(&header, data, sizeof(header));
	wga_dump_begin(dump, header.nlmsg_type, header.nlmsg_seq, header.nlmsg_pid);
}

/* In memory of exactly its size, so that a read past its end is seen. */
static int feed_copy(struct wga_dump *dump, const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);
	int result;

	CHECK(copy);
	if (size)
		memcpy(copy, data, size);
	result = wga_dump_feed(dump, copy, size);
	free(copy);
	return result;
}

static int feed_by_message(struct wga_dump *dump, const uint8_t *data, size_t size)
{
	int result = 0;

	do {
		size_t len = size;
		uint32_t message_len;

		if (size >= sizeof(message_len)) {
			memcpy(&message_len, data, sizeof(message_len));
			if (message_len >= sizeof(struct nlmsghdr) && message_len < size) {
				len = ((size_t)message_len + 3) & ~(size_t)3;
				len = len < size ? len : size;
			}
		}
		result = feed_copy(dump, data, len);
		data += len;
		size -= len;
	} while (result == 0 && size);
	return result;
}

static void check(const struct wga_dump *dump, int result)
{
	size_t next = 0;
	size_t i;

	CHECK(result <= 1);
	CHECK(dump->state == (result < 0 ? WGA_DUMP_FAILED : result ? WGA_DUMP_FINISHED : WGA_DUMP_READING));
	CHECK(dump->kernel_error == 0 || dump->kernel_error == result);
	CHECK(dump->peer_count <= dump->peer_capacity);
	CHECK(dump->allowed_ip_count <= dump->allowed_ip_capacity);
	if (result == -ENOSPC && !dump->kernel_error)
		CHECK(dump->peer_count == dump->peer_capacity || dump->allowed_ip_count == dump->allowed_ip_capacity);
	if (result != 1)
		return;
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct wga_dump whole, split, cramped;
	int whole_result, split_result, cramped_result;

	allocate(&whole, ROOM, ROOM);
	begin(&whole, data, size);
	whole_result = feed_copy(&whole, data, size);
	check(&whole, whole_result);

	allocate(&split, ROOM, ROOM);
	begin(&split, data, size);
	split_result = feed_by_message(&split, data, size);
	check(&split, split_result);
	CHECK(whole_result == split_result);
	CHECK(whole.peer_count == split.peer_count && whole.allowed_ip_count == split.allowed_ip_count);
	CHECK(memcmp(whole.peers, split.peers, whole.peer_count * sizeof(*whole.peers)) == 0);

	allocate(&cramped, 1, 2);
	begin(&cramped, data, size);
	cramped_result = feed_copy(&cramped, data, size);
	check(&cramped, cramped_result);
	CHECK(cramped_result == whole_result || cramped_result == -ENOSPC);

	release(&whole);
	release(&split);
	release(&cramped);
	return 0;
}
