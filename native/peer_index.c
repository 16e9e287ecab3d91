/*
 * Maps public keys to peers of a dump: open addressing with linear probing. Clients choose
 * their public keys, therefore the hash has a secret key: SipHash-1-3, J.-P. Aumasson and
 * D. J. Bernstein, 2012.
 */
#include <errno.h>
#include <string.h>

#include "appliance.h"

#define KEY_LEN 32
#define VACANT 0	/* a slot; else 1 + the position of a peer */

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

/* The slot of the peer with this key, or the vacant one that it belongs into. */
static uint32_t *slot_of(const struct wga_peer_index *index, const struct wga_dump *dump, const uint8_t *public_key)
{
	size_t mask = index->size - 1;
	size_t at = wga_key_hash(index->secret, public_key) & mask;

	while (index->slots[at] != VACANT) {
		if (memcmp(dump->peers[index->slots[at] - 1].public_key, public_key, KEY_LEN) == 0)
			break;
		at = (at + 1) & mask;
	}
	return &index->slots[at];
}

int wga_peer_index_fill(struct wga_peer_index *index, const struct wga_dump *dump)
{
	uint32_t *slot;
	size_t at;

	if (index->size == 0 || index->size < 2 * dump->peer_count || index->size & (index->size - 1))
		return -EINVAL;
	memset(index->slots, 0, index->size * sizeof(*index->slots));
	for (at = 0; at < dump->peer_count; at++) {
		slot = slot_of(index, dump, dump->peers[at].public_key);
		if (*slot != VACANT)
			return -EBADMSG;
		*slot = (uint32_t)at + 1;
	}
	return 0;
}

long wga_peer_index_find(const struct wga_peer_index *index, const struct wga_dump *dump, const uint8_t public_key[32])
{
	uint32_t slot = *slot_of(index, dump, public_key);

	return slot == VACANT ? -ENOENT : (long)slot - 1;
}
