/*
 * The socket address at which the kernel has last seen a peer (linux/wireguard.h, WGPEER_A_ENDPOINT).
 *
 * Of a link-local address the kernel tells the interface, and never a flow label.
 */
#ifndef WGA_SOCKADDR_H
#define WGA_SOCKADDR_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include "appliance.h"
#include "attr.h"

/* Returns -EBADMSG where the attribute is no such address. */
static inline int wga_read_sockaddr(const struct wga_attr *attr, struct wga_peer *peer)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
	struct sockaddr_in6 in6;
	struct sockaddr_in in;
	sa_family_t family;

	memcpy(&family, attr->data, sizeof(family));
	if (family == AF_INET && attr->len == sizeof(in)) {
		memcpy(&in, attr->data, sizeof(in));
		memcpy(peer->endpoint_address, mapped, sizeof(mapped));
		memcpy(peer->endpoint_address + sizeof(mapped), &in.sin_addr, sizeof(in.sin_addr));
		peer->endpoint_port = ntohs(in.sin_port);
	} else if (family == AF_INET6 && attr->len == sizeof(in6)) {
		memcpy(&in6, attr->data, sizeof(in6));
		memcpy(peer->endpoint_address, &in6.sin6_addr, sizeof(in6.sin6_addr));
		peer->endpoint_scope_id = in6.sin6_scope_id;
		peer->endpoint_port = ntohs(in6.sin6_port);
	} else {
		return -EBADMSG;
	}
	return 0;
}

#endif
