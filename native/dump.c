/*
 * Parses the answer to WG_CMD_GET_DEVICE into tables.
 *
 * The format is that of linux/wireguard.h; the kernel writes it in
 * drivers/net/wireguard/netlink.c. A dump is many messages. Where a peer's allowed-ips do not fit,
 * the next message repeats the peer with its public key and further allowed-ips and nothing else:
 * such a continuation has no counters, which is not the same as counters of zero. While the first
 * peer is being continued, the device's own attributes are repeated too.
 *
 * Nothing here copies the device's private key or a preshared key.
 */
#include <linux/genetlink.h>
#include <linux/wireguard.h>

#include "appliance.h"
#include "attr.h"
#include "sockaddr.h"

#define KEY_LEN 32
#define NSEC_PER_SEC 1000000000
#define MAX_ERRNO 4095		/* linux/err.h */

struct message {
	struct nlmsghdr header;
	struct wga_span payload;
};

/* struct __kernel_timespec of linux/time_types.h */
struct timespec64 {
	int64_t sec;
	int64_t nsec;
};

static const struct wga_attr_rule device_rules[] = {
	[WGDEVICE_A_IFINDEX] = { 4, 4 },
	[WGDEVICE_A_IFNAME] = { 1, 16 },
	[WGDEVICE_A_PRIVATE_KEY] = { KEY_LEN, KEY_LEN },
	[WGDEVICE_A_PUBLIC_KEY] = { KEY_LEN, KEY_LEN },
	[WGDEVICE_A_FLAGS] = { 4, 4 },
	[WGDEVICE_A_LISTEN_PORT] = { 2, 2 },
	[WGDEVICE_A_FWMARK] = { 4, 4 },
	[WGDEVICE_A_PEERS] = { 0, UINT16_MAX },
};

static const struct wga_attr_rule peer_rules[] = {
	[WGPEER_A_PUBLIC_KEY] = { KEY_LEN, KEY_LEN },
	[WGPEER_A_PRESHARED_KEY] = { KEY_LEN, KEY_LEN },
	[WGPEER_A_FLAGS] = { 4, 4 },
	[WGPEER_A_ENDPOINT] = { 16, 28 },	/* sockaddr_in to sockaddr_in6 */
	[WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL] = { 2, 2 },
	[WGPEER_A_LAST_HANDSHAKE_TIME] = { sizeof(struct timespec64), sizeof(struct timespec64) },
	[WGPEER_A_RX_BYTES] = { 8, 8 },
	[WGPEER_A_TX_BYTES] = { 8, 8 },
	[WGPEER_A_ALLOWEDIPS] = { 0, UINT16_MAX },
	[WGPEER_A_PROTOCOL_VERSION] = { 4, 4 },
};

static const struct wga_attr_rule allowed_ip_rules[] = {
	[WGALLOWEDIP_A_FAMILY] = { 2, 2 },
	[WGALLOWEDIP_A_IPADDR] = { 4, 16 },
	[WGALLOWEDIP_A_CIDR_MASK] = { 1, 1 },
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static int read_allowed_ip(struct wga_dump *dump, struct wga_span set)
{
	struct wga_attr found[COUNT(allowed_ip_rules)];
	const struct wga_attr *address = &found[WGALLOWEDIP_A_IPADDR];
	struct wga_allowed_ip *out;
	uint16_t family;
	uint8_t prefix_len;
	int result;

	result = wga_attrs_collect(set, allowed_ip_rules, COUNT(found), found);
	if (result < 0)
		return result;
	if (!found[WGALLOWEDIP_A_FAMILY].data || !address->data || !found[WGALLOWEDIP_A_CIDR_MASK].data)
		return -EBADMSG;
	memcpy(&family, found[WGALLOWEDIP_A_FAMILY].data, sizeof(family));
	prefix_len = *found[WGALLOWEDIP_A_CIDR_MASK].data;
	if (!(family == AF_INET && address->len == 4 && prefix_len <= 32) &&
	    !(family == AF_INET6 && address->len == 16 && prefix_len <= 128))
		return -EBADMSG;

	if (dump->allowed_ip_count >= dump->allowed_ip_capacity)
		return -ENOSPC;
	out = &dump->allowed_ips[dump->allowed_ip_count++];
	memset(out, 0, sizeof(*out));
	memcpy(out->address, address->data, address->len);
	out->address_len = (uint8_t)address->len;
	out->prefix_len = prefix_len;
	return 0;
}

/* The allowed-ips of the last peer in the table. */
static int read_allowed_ips(struct wga_dump *dump, struct wga_span list)
{
	struct wga_attr element;
	int result;

	while ((result = wga_attr_next(&list, &element)) > 0) {
		result = read_allowed_ip(dump, wga_attr_span(&element));
		if (result < 0)
			return result;
		dump->peers[dump->peer_count - 1].allowed_ip_count++;
	}
	return result;
}

static int read_handshake_time(const struct wga_attr *attr, int64_t *nanoseconds)
{
	struct timespec64 time;

	memcpy(&time, attr->data, sizeof(time));
	if (time.sec < 0 || time.nsec < 0 || time.nsec >= NSEC_PER_SEC)
		return -EBADMSG;
	if (time.sec > (INT64_MAX - time.nsec) / NSEC_PER_SEC)
		return -EBADMSG;
	*nanoseconds = time.sec * NSEC_PER_SEC + time.nsec;
	return 0;
}

static int add_peer(struct wga_dump *dump, const struct wga_attr *found)
{
	const struct wga_attr *keepalive = &found[WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL];
	struct wga_peer *peer;
	int result = 0;

	if (dump->peer_count >= dump->peer_capacity)
		return -ENOSPC;
	peer = &dump->peers[dump->peer_count];
	memset(peer, 0, sizeof(*peer));
	memcpy(peer->public_key, found[WGPEER_A_PUBLIC_KEY].data, KEY_LEN);
	memcpy(&peer->rx_bytes, found[WGPEER_A_RX_BYTES].data, sizeof(peer->rx_bytes));
	memcpy(&peer->tx_bytes, found[WGPEER_A_TX_BYTES].data, sizeof(peer->tx_bytes));
	if (keepalive->data)
		memcpy(&peer->keepalive_s, keepalive->data, sizeof(peer->keepalive_s));
	if (found[WGPEER_A_ENDPOINT].data)
		result = wga_read_sockaddr(&found[WGPEER_A_ENDPOINT], peer);
	if (result < 0)
		return result;
	peer->first_allowed_ip = (uint32_t)dump->allowed_ip_count;
	dump->peer_count++;
	return read_handshake_time(&found[WGPEER_A_LAST_HANDSHAKE_TIME], &peer->last_handshake_ns);
}

static int is_last_peer(const struct wga_dump *dump, const uint8_t *public_key)
{
	return dump->peer_count > 0 && memcmp(dump->peers[dump->peer_count - 1].public_key, public_key, KEY_LEN) == 0;
}

/*
 * The kernel writes counters and handshake time together, at a peer's first appearance, and leaves
 * all of them out of a continuation. So a peer without them that is not the last one continued has
 * unknown counters, and any other mixture is malformed.
 */
static int read_peer(struct wga_dump *dump, struct wga_span set)
{
	struct wga_attr found[COUNT(peer_rules)];
	int figures;
	int result;

	result = wga_attrs_collect(set, peer_rules, COUNT(found), found);
	if (result < 0)
		return result;
	if (!found[WGPEER_A_PUBLIC_KEY].data)
		return -EBADMSG;
	figures = !!found[WGPEER_A_RX_BYTES].data + !!found[WGPEER_A_TX_BYTES].data +
		  !!found[WGPEER_A_LAST_HANDSHAKE_TIME].data;
	if (figures != (is_last_peer(dump, found[WGPEER_A_PUBLIC_KEY].data) ? 0 : 3))
		return -EBADMSG;
	if (figures) {
		result = add_peer(dump, found);
		if (result < 0)
			return result;
	}
	if (!found[WGPEER_A_ALLOWEDIPS].data)
		return 0;
	return read_allowed_ips(dump, wga_attr_span(&found[WGPEER_A_ALLOWEDIPS]));
}

static int read_peers(struct wga_dump *dump, struct wga_span list)
{
	struct wga_attr element;
	int result;

	while ((result = wga_attr_next(&list, &element)) > 0) {
		result = read_peer(dump, wga_attr_span(&element));
		if (result < 0)
			return result;
	}
	return result;
}

static int read_device(struct wga_dump *dump, struct wga_span payload)
{
	struct wga_attr found[COUNT(device_rules)];
	struct genlmsghdr header;
	int result;

	if (wga_span_len(payload) < GENL_HDRLEN)
		return -EBADMSG;
	memcpy(&header, payload.at, sizeof(header));
	if (header.cmd != WG_CMD_GET_DEVICE)
		return -EBADMSG;
	wga_span_skip(&payload, GENL_HDRLEN);

	result = wga_attrs_collect(payload, device_rules, COUNT(found), found);
	if (result < 0)
		return result;
	if (found[WGDEVICE_A_IFINDEX].data) {
		memcpy(&dump->ifindex, found[WGDEVICE_A_IFINDEX].data, sizeof(dump->ifindex));
		dump->has_ifindex = 1;
	}
	if (found[WGDEVICE_A_LISTEN_PORT].data) {
		memcpy(&dump->listen_port, found[WGDEVICE_A_LISTEN_PORT].data, sizeof(dump->listen_port));
		dump->has_listen_port = 1;
	}
	if (found[WGDEVICE_A_PUBLIC_KEY].data) {
		memcpy(dump->public_key, found[WGDEVICE_A_PUBLIC_KEY].data, KEY_LEN);
		dump->has_public_key = 1;
	}
	if (!found[WGDEVICE_A_PEERS].data)
		return 0;
	return read_peers(dump, wga_attr_span(&found[WGDEVICE_A_PEERS]));
}

/* The errno at the start of NLMSG_ERROR's and NLMSG_DONE's payload: 0, or what the kernel refused with. */
static int read_errno(struct wga_dump *dump, struct wga_span payload)
{
	int32_t error;

	if (wga_span_len(payload) < sizeof(error))
		return -EBADMSG;
	memcpy(&error, payload.at, sizeof(error));
	if (error > 0 || error < -MAX_ERRNO)
		return -EBADMSG;
	dump->kernel_error = error;
	return error;
}

static int read_done(struct wga_dump *dump, struct wga_span payload)
{
	if (wga_span_len(payload) > 0) {
		int result = read_errno(dump, payload);

		if (result < 0)
			return result;
	}
	/* Every dump that was not cut short has said these in its first message. */
	if (!dump->has_ifindex || !dump->has_listen_port)
		return -EBADMSG;
	return 1;
}

static int read_message(struct wga_dump *dump, const struct message *message)
{
	const struct nlmsghdr *header = &message->header;

	if (header->nlmsg_seq != dump->seq)
		return 0;
	if (dump->port_id && header->nlmsg_pid != dump->port_id)
		return 0;
	/* Before the content: a dump that lost its place may well look malformed. */
	if (header->nlmsg_flags & NLM_F_DUMP_INTR)
		return -EINTR;

	switch (header->nlmsg_type) {
	case NLMSG_NOOP:
		return 0;
	case NLMSG_ERROR:	/* with 0 in it: an acknowledgement */
		return read_errno(dump, message->payload);
	case NLMSG_DONE:
		return read_done(dump, message->payload);
	default:
		return header->nlmsg_type == dump->family_id ? read_device(dump, message->payload) : -EBADMSG;
	}
}

static int next_message(struct wga_span *rest, struct message *message)
{
	size_t left = wga_span_len(*rest);
	size_t len;

	if (left < sizeof(message->header))
		return -EBADMSG;
	memcpy(&message->header, rest->at, sizeof(message->header));
	len = message->header.nlmsg_len;
	if (len < sizeof(message->header) || len > left)
		return -EBADMSG;
	message->payload.at = rest->at + sizeof(message->header);
	message->payload.end = rest->at + len;
	wga_span_skip(rest, len);
	return 0;
}

static int read_buffer(struct wga_dump *dump, struct wga_span rest)
{
	struct message message;
	int result;

	do {
		result = next_message(&rest, &message);
		if (result == 0)
			result = read_message(dump, &message);
	} while (result == 0 && rest.at != rest.end);
	return result;
}

void wga_dump_begin(struct wga_dump *dump, uint16_t family_id, uint32_t seq, uint32_t port_id)
{
	*dump = (struct wga_dump){
		.family_id = family_id,
		.seq = seq,
		.port_id = port_id,
		.state = WGA_DUMP_READING,
		.peers = dump->peers,
		.peer_capacity = dump->peer_capacity,
		.allowed_ips = dump->allowed_ips,
		.allowed_ip_capacity = dump->allowed_ip_capacity,
	};
}

int wga_dump_feed(struct wga_dump *dump, const uint8_t *buf, size_t len)
{
	int result;

	if (dump->state != WGA_DUMP_READING)
		return -EINVAL;
	result = len ? read_buffer(dump, (struct wga_span){ buf, buf + len }) : -EBADMSG;
	if (result != 0)
		dump->state = result < 0 ? WGA_DUMP_FAILED : WGA_DUMP_FINISHED;
	return result;
}
