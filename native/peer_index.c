/*
 * Maps public keys to peers of a dump: open addressing with linear probing. Clients choose
 * their public keys, therefore the hash has a secret key.
 */
#include <errno.h>
#include <string.h>

#include "appliance.h"
#include "siphash.h"

#define KEY_LEN 32
#define VACANT 0	/* a slot; else 1 + the position of a peer */

uint64_t wga_key_hash(const uint64_t secret[2], const uint8_t public_key[32])
{
	return wga_siphash(secret, public_key, KEY_LEN);
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
