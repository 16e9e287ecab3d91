/*
 * Parses wireguard-go's answers into tables (https://www.wireguard.com/xplatform/).
 *
 * An answer is `key=value` lines, `errno=N` and an empty line; a peer's lines follow its public_key.
 * wireguard-go writes keys as hex and numbers as decimals, and unlike the kernel all of a peer in one
 * piece. A line is taken whole or not at all: what is left of a buffer is fed again in front of what
 * comes next, and so is a line for which an array had no room.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <string.h>

#include "appliance.h"

#define KEY_LEN 32
#define NSEC_PER_SEC 1000000000
#define MAX_DIGITS 20		/* of 2^64 - 1 */
#define MAX_DEVICE_ERROR 65536

struct text {
	const char *at;
	size_t len;
};

struct line {
	struct text key;
	struct text value;
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

static int is(struct text text, const char *word)
{
	return text.len == strlen(word) && memcmp(text.at, word, text.len) == 0;
}

static int read_hex_digit(char digit)
{
	if (digit >= '0' && digit <= '9')
		return digit - '0';
	if (digit >= 'a' && digit <= 'f')
		return digit - 'a' + 10;
	if (digit >= 'A' && digit <= 'F')
		return digit - 'A' + 10;
	return -EINVAL;
}

static int read_key(struct text text, uint8_t key[KEY_LEN])
{
	size_t at;

	if (text.len != 2 * KEY_LEN)
		return -EINVAL;
	for (at = 0; at < KEY_LEN; at++) {
		int high = read_hex_digit(text.at[2 * at]);
		int low = read_hex_digit(text.at[2 * at + 1]);

		if (high < 0 || low < 0)
			return -EINVAL;
		key[at] = (uint8_t)(high << 4 | low);
	}
	return 0;
}

static int read_number(struct text text, uint64_t most, uint64_t *number)
{
	uint64_t value = 0;
	size_t at;

	if (text.len == 0 || text.len > MAX_DIGITS)
		return -EINVAL;
	for (at = 0; at < text.len; at++) {
		uint64_t digit = (uint64_t)(text.at[at] - '0');

		if (text.at[at] < '0' || text.at[at] > '9' || value > (UINT64_MAX - digit) / 10)
			return -EINVAL;
		value = value * 10 + digit;
	}
	if (value > most)
		return -EINVAL;
	*number = value;
	return 0;
}

/* Take what stands before the first `mark` off a text. -EINVAL: there is no such mark. */
static int take_up_to(struct text *text, char mark, struct text *before)
{
	const char *at = memchr(text->at, mark, text->len);

	if (!at)
		return -EINVAL;
	*before = (struct text){ text->at, (size_t)(at - text->at) };
	text->at += before->len + 1;
	text->len -= before->len + 1;
	return 0;
}

/* Returns how many bytes an address has; the rest of `out` stays. */
static int read_address(struct text text, uint8_t out[16])
{
	char address[INET6_ADDRSTRLEN] = "";
	int family;

	/* inet_pton() reads up to the first NUL. */
	if (text.len >= sizeof(address) || memchr(text.at, '\0', text.len))
		return -EINVAL;
	memcpy(address, text.at, text.len);
	family = memchr(address, ':', text.len) ? AF_INET6 : AF_INET;
	if (inet_pton(family, address, out) != 1)
		return -EINVAL;
	return family == AF_INET6 ? 16 : 4;
}

static int read_prefix(struct text text, struct wga_allowed_ip *out)
{
	struct text address;
	uint64_t prefix_len;
	int address_len;

	memset(out, 0, sizeof(*out));
	if (take_up_to(&text, '/', &address) < 0)
		return -EINVAL;
	address_len = read_address(address, out->address);
	if (address_len < 0 || read_number(text, 8 * (uint64_t)address_len, &prefix_len) < 0)
		return -EINVAL;
	out->address_len = (uint8_t)address_len;
	out->prefix_len = (uint8_t)prefix_len;
	return 0;
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

static int read_public_key(struct wga_uapi *uapi, struct text value)
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
	if (read_key(value, peer->public_key) < 0)
		return malformed(uapi, "public_key is not 32 bytes of hex");
	peer->first_allowed_ip = (uint32_t)dump->allowed_ip_count;
	dump->peer_count++;
	uapi->found = 0;
	return 0;
}

static int read_allowed_ip(struct wga_uapi *uapi, struct text value)
{
	struct wga_dump *dump = uapi->dump;

	if (dump->allowed_ip_count >= dump->allowed_ip_capacity)
		return -ENOSPC;
	if (read_prefix(value, &dump->allowed_ips[dump->allowed_ip_count]) < 0)
		return malformed(uapi, "allowed_ip is not an address and a prefix length");
	dump->allowed_ip_count++;
	dump->peers[dump->peer_count - 1].allowed_ip_count++;
	return 0;
}

/* The interface of a link-local address, by name or number. 0: there is none of this name. */
static uint32_t read_zone(struct text text)
{
	char name[IF_NAMESIZE] = "";
	uint64_t number;

	if (read_number(text, UINT32_MAX, &number) == 0)
		return (uint32_t)number;
	if (text.len >= sizeof(name) || memchr(text.at, '\0', text.len))
		return 0;
	memcpy(name, text.at, text.len);
	return if_nametoindex(name);
}

/* `ADDRESS:PORT`, `[ADDRESS]:PORT` or `[ADDRESS%ZONE]:PORT`. One in a zone that is unknown here is as good as none. */
static int read_endpoint(struct wga_uapi *uapi, struct text text)
{
	struct wga_peer *peer = &uapi->dump->peers[uapi->dump->peer_count - 1];
	int bracketed = text.len > 0 && *text.at == '[';
	struct text address, zone = { NULL, 0 }, host;
	uint8_t *out = peer->endpoint_address;
	uint64_t port;

	if (take_up_to(&text, bracketed ? ']' : ':', &host) < 0)
		return -EINVAL;
	if (bracketed && (text.len == 0 || *text.at != ':'))
		return -EINVAL;
	text.at += bracketed;
	text.len -= (size_t)bracketed;
	host.at += bracketed;
	host.len -= (size_t)bracketed;
	if (!bracketed || take_up_to(&host, '%', &address) < 0)
		address = host;
	else
		zone = host;
	if (read_number(text, UINT16_MAX, &port) < 0 || read_address(address, out) != (bracketed ? 16 : 4))
		return -EINVAL;
	if (!bracketed) {
		memcpy(out + 12, out, 4);
		memset(out, 0, 10);
		memset(out + 10, 0xff, 2);
	}
	if (zone.at)
		peer->endpoint_scope_id = read_zone(zone);
	if (!zone.at || peer->endpoint_scope_id)
		peer->endpoint_port = (uint16_t)port;
	return 0;
}

static int read_of_peer(struct wga_uapi *uapi, const struct line *line)
{
	size_t at;

	if (is(line->key, "allowed_ip"))
		return read_allowed_ip(uapi, line->value);
	if (is(line->key, "endpoint")) {
		if (uapi->found & 1u << ENDPOINT)
			return malformed(uapi, "a peer with two endpoint");
		if (read_endpoint(uapi, line->value) < 0)
			return malformed(uapi, "endpoint is not an address and a port");
		uapi->found |= 1u << ENDPOINT;
		return 0;
	}
	for (at = 0; at < NUMBERS; at++) {
		if (!is(line->key, numbers[at].key))
			continue;
		if (uapi->found & 1u << at)
			return malformed(uapi, numbers[at].repeated);
		if (read_number(line->value, numbers[at].most, &uapi->numbers[at]) < 0)
			return malformed(uapi, numbers[at].malformed);
		uapi->found |= 1u << at;
	}
	return 0;
}

static int read_of_device(struct wga_uapi *uapi, const struct line *line)
{
	struct wga_dump *dump = uapi->dump;
	uint64_t port;

	if (is(line->key, "private_key")) {
		if (uapi->has_private_key)
			return malformed(uapi, "a device with two private_key");
		if (read_key(line->value, uapi->private_key) < 0)
			return malformed(uapi, "private_key is not 32 bytes of hex");
		uapi->has_private_key = 1;
	} else if (is(line->key, "listen_port")) {
		if (dump->has_listen_port)
			return malformed(uapi, "a device with two listen_port");
		if (read_number(line->value, UINT16_MAX, &port) < 0)
			return malformed(uapi, "listen_port" WHOLE_NUMBER);
		dump->listen_port = (uint16_t)port;
		dump->has_listen_port = 1;
	}
	return 0;
}

/* What was listed before an error may be cut short anywhere. */
static int read_errno(struct wga_uapi *uapi, struct text value)
{
	uint64_t number;

	/* wireguard-go writes its own negated. */
	if (value.len > 0 && *value.at == '-') {
		value.at++;
		value.len--;
	}
	if (read_number(value, MAX_DEVICE_ERROR, &number) < 0)
		return malformed(uapi, "errno" WHOLE_NUMBER);
	uapi->device_error = (int)number;
	uapi->has_device_error = 1;
	return number ? 0 : finish_peer(uapi);
}

/* Keys that are not known are passed over, as the protocol asks for. */
static int read_line(struct wga_uapi *uapi, struct text text)
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
	line.key = (struct text){ text.at, (size_t)(equals - text.at) };
	line.value = (struct text){ equals + 1, text.len - line.key.len - 1 };
	if (is(line.key, "errno"))
		return read_errno(uapi, line.value);
	if (is(line.key, "public_key"))
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
		result = read_line(uapi, (struct text){ next, (size_t)(end - next) });
		if (result >= 0)
			uapi->consumed += (size_t)(end - next) + 1;
	}
	if (result == 1 && uapi->consumed < len)
		result = malformed(uapi, "an answer that does not end where its empty line is");
	if (result != 0 && result != -ENOSPC)
		uapi->dump->state = result < 0 ? WGA_DUMP_FAILED : WGA_DUMP_FINISHED;
	return result;
}
