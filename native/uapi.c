/*
 * Parses wireguard-go's answers into tables (https://www.wireguard.com/xplatform/).
 *
 * An answer is `key=value` lines, `errno=N` and an empty line; a peer's lines follow its public_key.
 * wireguard-go writes keys as hex and numbers as decimals, and unlike the kernel all of a peer in one
 * piece. A line is taken whole or not at all: what is left of a buffer is fed again in front of what
 * comes next, and so is a line for which an array had no room.
 */
#include <errno.h>
#include <string.h>

#include "appliance.h"
#include "uapi_text.h"

#define NSEC_PER_SEC 1000000000
#define MAX_DEVICE_ERROR 65536

struct line {
	struct wga_text key;
	struct wga_text value;
};

/* A peer's numbers; each may come once, and all up to KEEPALIVE must. */
enum { RX_BYTES, TX_BYTES, HANDSHAKE_SEC, HANDSHAKE_NSEC, KEEPALIVE, NUMBERS };

#define ENDPOINT NUMBERS	/* its place among what was found of a peer */

#define WHOLE_NUMBER " is not a whole number, or too large"

static const struct number {
	const char *key;
	uint64_t most;
	const char *malformed;
	const char *repeated;
	const char *missing;
} numbers[NUMBERS] = {
#define NUMBER(key, most) { key, most, key WHOLE_NUMBER, "a peer with two " key, "a peer without " key }
	[RX_BYTES] = NUMBER("rx_bytes", UINT64_MAX),
	[TX_BYTES] = NUMBER("tx_bytes", UINT64_MAX),
	[HANDSHAKE_SEC] = NUMBER("last_handshake_time_sec", INT64_MAX / NSEC_PER_SEC - 1),
	[HANDSHAKE_NSEC] = NUMBER("last_handshake_time_nsec", NSEC_PER_SEC - 1),
	[KEEPALIVE] = NUMBER("persistent_keepalive_interval", UINT16_MAX),
};

static int malformed(struct wga_uapi *uapi, const char *fault)
{
	uapi->fault = fault;
	return -EBADMSG;
}

/* A missing counter is not a zero: taken for one, it would look like a reset. */
static int finish_peer(struct wga_uapi *uapi)
{
	struct wga_dump *dump = uapi->dump;
	struct wga_peer *peer;
	size_t at;

	if (dump->peer_count == 0)
		return 0;
	for (at = 0; at < KEEPALIVE; at++) {
		if (!(uapi->found & 1u << at))
			return malformed(uapi, numbers[at].missing);
	}
	peer = &dump->peers[dump->peer_count - 1];
	peer->rx_bytes = uapi->numbers[RX_BYTES];
	peer->tx_bytes = uapi->numbers[TX_BYTES];
	peer->last_handshake_ns =
		(int64_t)(uapi->numbers[HANDSHAKE_SEC] * NSEC_PER_SEC + uapi->numbers[HANDSHAKE_NSEC]);
	if (uapi->found & 1u << KEEPALIVE)
		peer->keepalive_s = (uint16_t)uapi->numbers[KEEPALIVE];
	return 0;
}

static int read_public_key(struct wga_uapi *uapi, struct wga_text value)
{
	struct wga_dump *dump = uapi->dump;
	struct wga_peer *peer;
	int result;

	if (dump->peer_count >= dump->peer_capacity)
		return -ENOSPC;
	result = finish_peer(uapi);
	if (result < 0)
		return result;
	peer = &dump->peers[dump->peer_count];
	memset(peer, 0, sizeof(*peer));
	if (wga_read_key(value, peer->public_key) < 0)
		return malformed(uapi, "public_key is not 32 bytes of hex");
	peer->first_allowed_ip = (uint32_t)dump->allowed_ip_count;
	dump->peer_count++;
	uapi->found = 0;
	return 0;
}

static int read_allowed_ip(struct wga_uapi *uapi, struct wga_text value)
{
	struct wga_dump *dump = uapi->dump;

	if (dump->allowed_ip_count >= dump->allowed_ip_capacity)
		return -ENOSPC;
	if (wga_read_prefix(value, &dump->allowed_ips[dump->allowed_ip_count]) < 0)
		return malformed(uapi, "allowed_ip is not an address and a prefix length");
	dump->allowed_ip_count++;
	dump->peers[dump->peer_count - 1].allowed_ip_count++;
	return 0;
}

static int read_of_peer(struct wga_uapi *uapi, const struct line *line)
{
	size_t at;

	if (wga_text_is(line->key, "allowed_ip"))
		return read_allowed_ip(uapi, line->value);
	if (wga_text_is(line->key, "endpoint")) {
		if (uapi->found & 1u << ENDPOINT)
			return malformed(uapi, "a peer with two endpoint");
		if (wga_read_endpoint(line->value, &uapi->dump->peers[uapi->dump->peer_count - 1]) < 0)
			return malformed(uapi, "endpoint is not an address and a port");
		uapi->found |= 1u << ENDPOINT;
		return 0;
	}
	for (at = 0; at < NUMBERS; at++) {
		if (!wga_text_is(line->key, numbers[at].key))
			continue;
		if (uapi->found & 1u << at)
			return malformed(uapi, numbers[at].repeated);
		if (wga_read_number(line->value, numbers[at].most, &uapi->numbers[at]) < 0)
			return malformed(uapi, numbers[at].malformed);
		uapi->found |= 1u << at;
	}
	return 0;
}

static int read_of_device(struct wga_uapi *uapi, const struct line *line)
{
	struct wga_dump *dump = uapi->dump;
	uint64_t port;

	if (wga_text_is(line->key, "private_key")) {
		if (uapi->has_private_key)
			return malformed(uapi, "a device with two private_key");
		if (wga_read_key(line->value, uapi->private_key) < 0)
			return malformed(uapi, "private_key is not 32 bytes of hex");
		uapi->has_private_key = 1;
	} else if (wga_text_is(line->key, "listen_port")) {
		if (dump->has_listen_port)
			return malformed(uapi, "a device with two listen_port");
		if (wga_read_number(line->value, UINT16_MAX, &port) < 0)
			return malformed(uapi, "listen_port" WHOLE_NUMBER);
		dump->listen_port = (uint16_t)port;
		dump->has_listen_port = 1;
	}
	return 0;
}

/* What was listed before an error may be cut short anywhere. */
static int read_errno(struct wga_uapi *uapi, struct wga_text value)
{
	uint64_t number;

	/* wireguard-go writes its own negated. */
	if (value.len > 0 && *value.at == '-') {
		value.at++;
		value.len--;
	}
	if (wga_read_number(value, MAX_DEVICE_ERROR, &number) < 0)
		return malformed(uapi, "errno" WHOLE_NUMBER);
	uapi->device_error = (int)number;
	uapi->has_device_error = 1;
	return number ? 0 : finish_peer(uapi);
}

/* Keys that are not known are passed over, as the protocol asks for. */
static int read_line(struct wga_uapi *uapi, struct wga_text text)
{
	const char *equals = memchr(text.at, '=', text.len);
	struct line line;
	size_t at;

	for (at = 0; at < text.len; at++) {
		if ((uint8_t)text.at[at] > 0x7f)
			return malformed(uapi, "an answer that is not ASCII");
	}
	if (text.len == 0)
		return uapi->has_device_error ? 1 : malformed(uapi, "an answer without errno");
	if (!equals)
		return malformed(uapi, "a line that is not key=value");
	if (uapi->has_device_error)
		return malformed(uapi, "an answer that does not end after errno");
	line.key = (struct wga_text){ text.at, (size_t)(equals - text.at) };
	line.value = (struct wga_text){ equals + 1, text.len - line.key.len - 1 };
	if (wga_text_is(line.key, "errno"))
		return read_errno(uapi, line.value);
	if (wga_text_is(line.key, "public_key"))
		return read_public_key(uapi, line.value);
	return uapi->dump->peer_count ? read_of_peer(uapi, &line) : read_of_device(uapi, &line);
}

void wga_uapi_begin(struct wga_uapi *uapi, struct wga_dump *dump)
{
	*dump = (struct wga_dump){
		.state = WGA_DUMP_READING,
		.peers = dump->peers,
		.peer_capacity = dump->peer_capacity,
		.allowed_ips = dump->allowed_ips,
		.allowed_ip_capacity = dump->allowed_ip_capacity,
	};
	*uapi = (struct wga_uapi){ .dump = dump };
}

int wga_uapi_feed(struct wga_uapi *uapi, const uint8_t *buf, size_t len)
{
	const char *next, *end;
	int result = 0;

	if (!uapi->dump || uapi->dump->state != WGA_DUMP_READING)
		return -EINVAL;
	uapi->consumed = 0;
	while (result == 0 && uapi->consumed < len) {
		next = (const char *)buf + uapi->consumed;
		end = memchr(next, '\n', len - uapi->consumed);
		if (!end)
			return 0;
		result = read_line(uapi, (struct wga_text){ next, (size_t)(end - next) });
		if (result >= 0)
			uapi->consumed += (size_t)(end - next) + 1;
	}
	if (result == 1 && uapi->consumed < len)
		result = malformed(uapi, "an answer that does not end where its empty line is");
	if (result != 0 && result != -ENOSPC)
		uapi->dump->state = result < 0 ? WGA_DUMP_FAILED : WGA_DUMP_FINISHED;
	return result;
}
