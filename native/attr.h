/*
 * Netlink attributes (linux/netlink.h, struct nlattr), read strictly within bounds.
 *
 * The kernel aligns attributes to 4 bytes and no further, so values are copied out, never
 * dereferenced in place.
 */
#ifndef WGA_ATTR_H
#define WGA_ATTR_H

#include <errno.h>
#include <linux/netlink.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct wga_span {
	const uint8_t *at;
	const uint8_t *end;
};

struct wga_attr {
	const uint8_t *data;
	uint16_t type;		/* without NLA_F_NESTED and NLA_F_NET_BYTEORDER */
	uint16_t len;
};

/* The lengths an attribute may have. */
struct wga_attr_rule {
	uint16_t min;
	uint16_t max;
};

static inline size_t wga_span_len(struct wga_span span)
{
	return (size_t)(span.end - span.at);
}

/* Move past `len` bytes and their padding. What ends a span may come without its padding. */
static inline void wga_span_skip(struct wga_span *span, size_t len)
{
	size_t left = wga_span_len(*span);
	size_t padded = (len + 3) & ~(size_t)3;

	span->at += padded < left ? padded : left;
}

static inline struct wga_span wga_attr_span(const struct wga_attr *attr)
{
	return (struct wga_span){ attr->data, attr->data + attr->len };
}

/* 1: *attr is the next attribute, 0: none left, -EBADMSG: it does not fit what is left. */
static inline int wga_attr_next(struct wga_span *rest, struct wga_attr *attr)
{
	struct nlattr header;
	size_t left = wga_span_len(*rest);

	if (left == 0)
		return 0;
	if (left < sizeof(header))
		return -EBADMSG;
	memcpy(&header, rest->at, sizeof(header));
	if (header.nla_len < sizeof(header) || header.nla_len > left)
		return -EBADMSG;
	attr->type = header.nla_type & NLA_TYPE_MASK;
	attr->len = (uint16_t)(header.nla_len - sizeof(header));
	attr->data = rest->at + sizeof(header);
	wga_span_skip(rest, header.nla_len);
	return 1;
}

/*
 * Sort a set of attributes by type: found[type].data is NULL for an absent one. Type 0 is padding
 * and types from `count` up are a newer kernel's; both are passed over. -EBADMSG for a length
 * outside its rule, or for a type that comes twice.
 */
static inline int wga_attrs_collect(struct wga_span set, const struct wga_attr_rule *rules, size_t count,
				    struct wga_attr *found)
{
	struct wga_attr attr;
	int result;

	memset(found, 0, count * sizeof(*found));
	while ((result = wga_attr_next(&set, &attr)) > 0) {
		if (attr.type == 0 || attr.type >= count)
			continue;
		if (found[attr.type].data)
			return -EBADMSG;
		if (attr.len < rules[attr.type].min || attr.len > rules[attr.type].max)
			return -EBADMSG;
		found[attr.type] = attr;
	}
	return result;
}

#endif
