/*
 * The values of wireguard-go's answers (https://www.wireguard.com/xplatform/): keys, numbers, addresses.
 *
 * A text is a part of a buffer, without a NUL at its end. Functions that read one return -EINVAL where it is none.
 */
#ifndef WGA_UAPI_TEXT_H
#define WGA_UAPI_TEXT_H

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdint.h>
#include <string.h>

#include "appliance.h"

#define WGA_KEY_LEN 32
#define WGA_MAX_DIGITS 20	/* of 2^64 - 1 */

struct wga_text {
	const char *at;
	size_t len;
};

static inline int wga_text_is(struct wga_text text, const char *word)
{
	return text.len == strlen(word) && memcmp(text.at, word, text.len) == 0;
}

static inline int wga_read_hex_digit(char digit)
{
	if (digit >= '0' && digit <= '9')
		return digit - '0';
	if (digit >= 'a' && digit <= 'f')
		return digit - 'a' + 10;
	if (digit >= 'A' && digit <= 'F')
		return digit - 'A' + 10;
	return -EINVAL;
}

static inline int wga_read_key(struct wga_text text, uint8_t key[WGA_KEY_LEN])
{
	size_t at;

	if (text.len != 2 * WGA_KEY_LEN)
		return -EINVAL;
	for (at = 0; at < WGA_KEY_LEN; at++) {
		int high = wga_read_hex_digit(text.at[2 * at]);
		int low = wga_read_hex_digit(text.at[2 * at + 1]);

		if (high < 0 || low < 0)
			return -EINVAL;
		key[at] = (uint8_t)(high << 4 | low);
	}
	return 0;
}

static inline int wga_read_number(struct wga_text text, uint64_t most, uint64_t *number)
{
	uint64_t value = 0;
	size_t at;

	if (text.len == 0 || text.len > WGA_MAX_DIGITS)
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
static inline int wga_take_up_to(struct wga_text *text, char mark, struct wga_text *before)
{
	const char *at = memchr(text->at, mark, text->len);

	if (!at)
		return -EINVAL;
	*before = (struct wga_text){ text->at, (size_t)(at - text->at) };
	text->at += before->len + 1;
	text->len -= before->len + 1;
	return 0;
}

/* Returns how many bytes an address has; the rest of `out` stays. */
static inline int wga_read_address(struct wga_text text, uint8_t out[16])
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

static inline int wga_read_prefix(struct wga_text text, struct wga_allowed_ip *out)
{
	struct wga_text address;
	uint64_t prefix_len;
	int address_len;

	memset(out, 0, sizeof(*out));
	if (wga_take_up_to(&text, '/', &address) < 0)
		return -EINVAL;
	address_len = wga_read_address(address, out->address);
	if (address_len < 0 || wga_read_number(text, 8 * (uint64_t)address_len, &prefix_len) < 0)
		return -EINVAL;
	out->address_len = (uint8_t)address_len;
	out->prefix_len = (uint8_t)prefix_len;
	return 0;
}

/* The interface of a link-local address, by name or number. 0: there is none of this name. */
static inline uint32_t wga_read_zone(struct wga_text text)
{
	char name[IF_NAMESIZE] = "";
	uint64_t number;

	if (wga_read_number(text, UINT32_MAX, &number) == 0)
		return (uint32_t)number;
	if (text.len >= sizeof(name) || memchr(text.at, '\0', text.len))
		return 0;
	memcpy(name, text.at, text.len);
	return if_nametoindex(name);
}

/* `ADDRESS:PORT`, `[ADDRESS]:PORT` or `[ADDRESS%ZONE]:PORT`. One in a zone that is unknown here is as good as none. */
static inline int wga_read_endpoint(struct wga_text text, struct wga_peer *peer)
{
	int bracketed = text.len > 0 && *text.at == '[';
	struct wga_text address, zone = { NULL, 0 }, host;
	uint8_t *out = peer->endpoint_address;
	uint64_t port;

	if (wga_take_up_to(&text, bracketed ? ']' : ':', &host) < 0)
		return -EINVAL;
	if (bracketed && (text.len == 0 || *text.at != ':'))
		return -EINVAL;
	text.at += bracketed;
	text.len -= (size_t)bracketed;
	host.at += bracketed;
	host.len -= (size_t)bracketed;
	if (!bracketed || wga_take_up_to(&host, '%', &address) < 0)
		address = host;
	else
		zone = host;
	if (wga_read_number(text, UINT16_MAX, &port) < 0 || wga_read_address(address, out) != (bracketed ? 16 : 4))
		return -EINVAL;
	if (!bracketed) {
		memcpy(out + 12, out, 4);
		memset(out, 0, 10);
		memset(out + 10, 0xff, 2);
	}
	if (zone.at)
		peer->endpoint_scope_id = wga_read_zone(zone);
	if (!zone.at || peer->endpoint_scope_id)
		peer->endpoint_port = (uint16_t)port;
	return 0;
}

#endif
