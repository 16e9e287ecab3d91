/*
 * What differs between two whole dumps of one device: the peers that are new, gone or changed.
 *
 * The kernel lists its peers in the order in which they were added, so that as a rule the peer at
 * one place is the peer that stood there before, and comparing is reading two arrays side by side.
 * Only where that fails a peer is looked up, in an index by public key (open addressing, linear
 * probing) that is made at the first such look-up. Clients choose their public keys, therefore the
 * hash has a secret key: SipHash-1-3, J.-P. Aumasson and D. J. Bernstein, 2012.
 */
#include <errno.h>
#include <string.h>

#include "appliance.h"

#define KEY_LEN 32
#define VACANT 0	/* in the index; else 1 + the number of a peer, those of `after` behind those of `before` */

struct comparison {
	const struct wga_dump *before;
	const struct wga_dump *after;
	struct wga_difference *out;
	size_t count;
	size_t capacity;
	size_t matched;
	struct wga_index *index;
	int indexed;
};

static uint64_t rotate(uint64_t value, int bits)
{
	return value << bits | value >> (64 - bits);
}

static void sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[2] += v[3];
	v[1] = rotate(v[1], 13) ^ v[0];
	v[3] = rotate(v[3], 16) ^ v[2];
	v[0] = rotate(v[0], 32);
	v[2] += v[1];
	v[0] += v[3];
	v[1] = rotate(v[1], 17) ^ v[2];
	v[3] = rotate(v[3], 21) ^ v[0];
	v[2] = rotate(v[2], 32);
}

uint64_t wga_key_hash(const uint64_t secret[2], const uint8_t public_key[32])
{
	uint64_t v[4] = {
		secret[0] ^ UINT64_C(0x736f6d6570736575),
		secret[1] ^ UINT64_C(0x646f72616e646f6d),
		secret[0] ^ UINT64_C(0x6c7967656e657261),
		secret[1] ^ UINT64_C(0x7465646279746573),
	};
	uint64_t word;
	size_t at;

	for (at = 0; at <= KEY_LEN; at += sizeof(word)) {
		word = (uint64_t)KEY_LEN << 56;		/* the last one: the length, and no bytes left */
		if (at < KEY_LEN)
			memcpy(&word, public_key + at, sizeof(word));
		v[3] ^= word;
		sip_round(v);
		v[0] ^= word;
	}
	v[2] ^= 0xff;
	sip_round(v);
	sip_round(v);
	sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static const struct wga_peer *numbered(const struct comparison *c, size_t number)
{
	size_t before = c->before->peer_count;

	return number < before ? &c->before->peers[number] : &c->after->peers[number - before];
}

/* The slot that holds a peer with this key, or the vacant one that a peer with it belongs into. */
static uint32_t *slot_of(const struct comparison *c, const uint8_t *public_key)
{
	size_t mask = c->index->size - 1;
	size_t at = wga_key_hash(c->index->secret, public_key) & mask;

	while (c->index->slots[at] != VACANT) {
		if (memcmp(numbered(c, c->index->slots[at] - 1)->public_key, public_key, KEY_LEN) == 0)
			break;
		at = (at + 1) & mask;
	}
	return &c->index->slots[at];
}

static void make_index(struct comparison *c)
{
	size_t number;

	memset(c->index->slots, 0, c->index->size * sizeof(*c->index->slots));
	for (number = 0; number < c->before->peer_count; number++)
		*slot_of(c, c->before->peers[number].public_key) = (uint32_t)number + 1;
	c->indexed = 1;
}

static int same_allowed_ips(const struct comparison *c, const struct wga_peer *was, const struct wga_peer *is)
{
	if (was->allowed_ip_count != is->allowed_ip_count)
		return 0;
	return is->allowed_ip_count == 0 ||
	       memcmp(&c->before->allowed_ips[was->first_allowed_ip], &c->after->allowed_ips[is->first_allowed_ip],
		      is->allowed_ip_count * sizeof(*c->after->allowed_ips)) == 0;
}

static int say(struct comparison *c, const struct wga_peer *peer, size_t place, uint32_t what)
{
	struct wga_difference *out;

	if (c->count == c->capacity)
		return -ENOSPC;
	out = &c->out[c->count++];
	memcpy(out->public_key, peer->public_key, KEY_LEN);
	out->rx_bytes = peer->rx_bytes;
	out->tx_bytes = peer->tx_bytes;
	out->last_handshake_ns = peer->last_handshake_ns;
	out->what = what;
	out->peer = (uint32_t)place;
	return 0;
}

static int compare_peer(struct comparison *c, size_t was_at, size_t is_at)
{
	const struct wga_peer *was = &c->before->peers[was_at];
	const struct wga_peer *is = &c->after->peers[is_at];
	uint32_t what = 0;

	if (c->index->met[was_at])
		return -EBADMSG;
	c->index->met[was_at] = 1;
	c->matched++;
	if (was->rx_bytes != is->rx_bytes || was->tx_bytes != is->tx_bytes)
		what |= WGA_COUNTERS;
	if (was->last_handshake_ns != is->last_handshake_ns)
		what |= WGA_HANDSHAKE;
	if (!same_allowed_ips(c, was, is))
		what |= WGA_ALLOWED_IPS;
	return what ? say(c, is, is_at, what) : 0;
}

/* A peer that does not stand where it is expected. *next: where the one behind it is expected. */
static int compare_found(struct comparison *c, size_t is_at, size_t *next)
{
	const struct wga_peer *is = &c->after->peers[is_at];
	size_t before = c->before->peer_count;
	uint32_t *slot;
	size_t number;

	if (!c->indexed)
		make_index(c);
	slot = slot_of(c, is->public_key);
	if (*slot == VACANT) {
		*slot = (uint32_t)(before + is_at) + 1;
		return say(c, is, is_at, WGA_NEW);
	}
	number = *slot - 1;
	if (number >= before)
		return -EBADMSG;
	*next = number + 1;
	return compare_peer(c, number, is_at);
}

static int compare_all(struct comparison *c)
{
	size_t before = c->before->peer_count;
	size_t expected = 0;
	size_t at;
	int result = 0;

	for (at = 0; at < c->after->peer_count && result == 0; at++) {
		if (expected < before && memcmp(c->before->peers[expected].public_key, c->after->peers[at].public_key,
						KEY_LEN) == 0)
			result = compare_peer(c, expected++, at);
		else
			result = compare_found(c, at, &expected);
	}
	return result;
}

static int find_gone(struct comparison *c)
{
	size_t at;
	int result = 0;

	if (c->matched == c->before->peer_count)
		return 0;
	for (at = 0; at < c->before->peer_count && result == 0; at++) {
		if (!c->index->met[at])
			result = say(c, &c->before->peers[at], at, WGA_GONE);
	}
	return result;
}

long wga_dump_compare(const struct wga_dump *before, const struct wga_dump *after, struct wga_index *index,
		      struct wga_difference *out, size_t capacity)
{
	struct comparison c = {
		.before = before, .after = after, .out = out, .capacity = capacity, .index = index,
	};
	size_t peers = before->peer_count + after->peer_count;
	int result;

	if (index->size < 2 * peers || (index->size & (index->size - 1)) || index->met_size < before->peer_count)
		return -EINVAL;
	memset(index->met, 0, before->peer_count);
	result = compare_all(&c);
	if (result == 0)
		result = find_gone(&c);
	return result < 0 ? result : (long)c.count;
}
