/*
 * Compares two whole dumps of one device: finds peers that were added, removed or changed.
 *
 * The kernel lists its peers in the order in which they were added, so that usually both dumps have
 * the same peer at the same index, and comparing is reading two arrays side by side. Only if the
 * peers at an index differ is one looked up.
 */
#include <errno.h>
#include <string.h>

#include "appliance.h"

#define KEY_LEN 32

struct comparison {
	const struct wga_dump *before;
	const struct wga_dump *after;
	struct wga_key *out;
	size_t count;
	size_t capacity;
	size_t matched;		/* peers of `before` that are in `after` */
};

static int same_key(const struct wga_peer *one, const struct wga_peer *other)
{
	return memcmp(one->public_key, other->public_key, KEY_LEN) == 0;
}

int wga_dump_same_order(const struct wga_dump *before, const struct wga_dump *after)
{
	size_t at;

	if (before->peer_count != after->peer_count)
		return 0;
	for (at = 0; at < after->peer_count; at++) {
		if (!same_key(&before->peers[at], &after->peers[at]))
			return 0;
	}
	return 1;
}

static int same_allowed_ips(const struct comparison *c, const struct wga_peer *was, const struct wga_peer *is)
{
	if (was->allowed_ip_count != is->allowed_ip_count)
		return 0;
	return is->allowed_ip_count == 0 ||
	       memcmp(&c->before->allowed_ips[was->first_allowed_ip], &c->after->allowed_ips[is->first_allowed_ip],
		      is->allowed_ip_count * sizeof(*c->after->allowed_ips)) == 0;
}

static int say(struct comparison *c, const struct wga_peer *peer)
{
	if (c->count == c->capacity)
		return -ENOSPC;
	memcpy(c->out[c->count++].bytes, peer->public_key, KEY_LEN);
	return 0;
}

/* The endpoint apart: a client that moves sends, and so its counters differ too. */
static int is_as_it_was(const struct comparison *c, const struct wga_peer *was, const struct wga_peer *is)
{
	return was->rx_bytes == is->rx_bytes && was->tx_bytes == is->tx_bytes &&
	       was->last_handshake_ns == is->last_handshake_ns && was->keepalive_s == is->keepalive_s &&
	       same_allowed_ips(c, was, is);
}

static int compare_all(struct comparison *c, const struct wga_peer_index *index)
{
	const struct wga_peer *is;
	size_t next = 0;	/* in `before`: where the peer is as a rule */
	size_t at;
	long was_at;
	int result = 0;

	for (at = 0; at < c->after->peer_count && result == 0; at++) {
		is = &c->after->peers[at];
		if (next < c->before->peer_count && same_key(&c->before->peers[next], is))
			was_at = (long)next;
		else
			was_at = wga_peer_index_find(index, c->before, is->public_key);
		if (was_at >= 0) {
			next = (size_t)was_at + 1;
			c->matched++;
		}
		if (was_at < 0 || !is_as_it_was(c, &c->before->peers[was_at], is))
			result = say(c, is);
	}
	return result;
}

static int find_gone(struct comparison *c, const struct wga_peer_index *index)
{
	size_t at;
	int result = 0;

	if (c->matched == c->before->peer_count)
		return 0;
	for (at = 0; at < c->before->peer_count && result == 0; at++) {
		if (wga_peer_index_find(index, c->after, c->before->peers[at].public_key) < 0)
			result = say(c, &c->before->peers[at]);
	}
	return result;
}

long wga_dump_compare(const struct wga_dump *before, const struct wga_peer_index *before_index,
		      const struct wga_dump *after, const struct wga_peer_index *after_index,
		      struct wga_key *out, size_t capacity)
{
	struct comparison c = { .before = before, .after = after, .out = out, .capacity = capacity };
	int result;

	result = compare_all(&c, before_index);
	if (result == 0)
		result = find_gone(&c, after_index);
	return result < 0 ? result : (long)c.count;
}
