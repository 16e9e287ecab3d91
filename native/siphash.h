/*
 * SipHash-1-3, J.-P. Aumasson and D. J. Bernstein, 2012: a hash with a secret key, for tables of keys that clients
 * choose. Words are read in the machine's byte order.
 */
#ifndef WGA_SIPHASH_H
#define WGA_SIPHASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t wga_rotate(uint64_t value, int bits)
{
	return value << bits | value >> (64 - bits);
}

static inline void wga_sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[2] += v[3];
	v[1] = wga_rotate(v[1], 13) ^ v[0];
	v[3] = wga_rotate(v[3], 16) ^ v[2];
	v[0] = wga_rotate(v[0], 32);
	v[2] += v[1];
	v[0] += v[3];
	v[1] = wga_rotate(v[1], 17) ^ v[2];
	v[3] = wga_rotate(v[3], 21) ^ v[0];
	v[2] = wga_rotate(v[2], 32);
}

static inline uint64_t wga_siphash(const uint64_t secret[2], const uint8_t *data, size_t len)
{
	uint64_t v[4] = {
		secret[0] ^ UINT64_C(0x736f6d6570736575),
		secret[1] ^ UINT64_C(0x646f72616e646f6d),
		secret[0] ^ UINT64_C(0x6c7967656e657261),
		secret[1] ^ UINT64_C(0x7465646279746573),
	};
	size_t at;

	for (at = 0; at <= len; at += sizeof(uint64_t)) {
		uint64_t word = 0;
		size_t left = len - at;

		memcpy(&word, data + at, left < sizeof(word) ? left : sizeof(word));
		if (left < sizeof(word))	/* the last one: the bytes left, and the length */
			word |= (uint64_t)len << 56;
		v[3] ^= word;
		wga_sip_round(v);
		v[0] ^= word;
	}
	v[2] ^= 0xff;
	wga_sip_round(v);
	wga_sip_round(v);
	wga_sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

#endif
