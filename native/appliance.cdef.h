/*
 * Everything Python sees of the C side. cffi reads this file as it stands, so it holds plain
 * declarations and no preprocessor lines; the C sources include it through appliance.h.
 *
 * Functions return a value >= 0, or a negative errno. The caller owns all memory.
 */

/* Python unpacks arrays of these two as bytes: appliance/wireguard/dump.py knows their layout. */
struct wga_peer {
	uint8_t public_key[32];
	uint64_t rx_bytes;
	uint64_t tx_bytes;
	int64_t last_handshake_ns;	/* wall clock since the epoch; 0: none yet */
	uint32_t first_allowed_ip;	/* index into the dump's allowed_ips */
	uint32_t allowed_ip_count;
};

struct wga_allowed_ip {
	uint8_t address[16];		/* network order; IPv4 in the first 4 bytes, the rest zero */
	uint8_t address_len;		/* 4 or 16 */
	uint8_t prefix_len;
};

enum wga_dump_state {
	WGA_DUMP_IDLE,			/* in zeroed memory, before wga_dump_begin */
	WGA_DUMP_READING,
	WGA_DUMP_FINISHED,
	WGA_DUMP_FAILED
};

/* The caller sets the two arrays and their capacities (at most 2^32 - 1), then calls wga_dump_begin. */
struct wga_dump {
	uint16_t family_id;
	uint32_t seq;
	uint32_t port_id;
	enum wga_dump_state state;
	int kernel_error;		/* the kernel's negative errno, 0 where it reported none */

	int has_ifindex;
	int has_listen_port;
	int has_public_key;
	uint32_t ifindex;
	uint16_t listen_port;
	uint8_t public_key[32];		/* zero while the device has no private key */

	struct wga_peer *peers;
	size_t peer_capacity;
	size_t peer_count;
	struct wga_allowed_ip *allowed_ips;
	size_t allowed_ip_capacity;
	size_t allowed_ip_count;
};

/*
 * Start reading the answer to one WG_CMD_GET_DEVICE request. `family_id` is the resolved generic
 * netlink family; `seq` and `port_id` are the request's, and `port_id` 0 accepts any.
 */
void wga_dump_begin(struct wga_dump *dump, uint16_t family_id, uint32_t seq, uint32_t port_id);

/*
 * Read what one recv() gave. 0: more to come; 1: finished, the dump is whole.
 *   -EBADMSG  not what the protocol allows
 *   -ENOSPC   an array is full (its count equals its capacity): grow it and ask for the dump again
 *   -EINTR    the device changed under the dump: ask again
 *   -EINVAL   not reading: begin first
 *   other     what the kernel answered; then, and only then, kernel_error is set too
 * After any error the dump holds nothing of use. Messages of another seq or port id are passed over.
 */
int wga_dump_feed(struct wga_dump *dump, const uint8_t *buf, size_t len);

enum wga_difference_kind {
	WGA_NEW = 1,
	WGA_GONE = 2,			/* alone, with what was read of it last */
	WGA_COUNTERS = 4,
	WGA_HANDSHAKE = 8,
	WGA_ALLOWED_IPS = 16
};

/* One peer that is not as it was. Python unpacks arrays of these as bytes. */
struct wga_difference {
	uint8_t public_key[32];
	uint64_t rx_bytes;
	uint64_t tx_bytes;
	int64_t last_handshake_ns;
	uint32_t what;			/* of enum wga_difference_kind, or'ed */
	uint32_t peer;			/* its place in `after`; in `before` where it is gone */
};

/* Room to work in. What it holds between two calls is of no meaning, but for `secret`: random, once. */
struct wga_index {
	uint64_t secret[2];
	uint32_t *slots;
	size_t size;			/* a power of two, at least twice the peers of both dumps, 2^31 at most */
	uint8_t *met;
	size_t met_size;		/* at least the peers of `before` */
};

/*
 * Compare two finished dumps; `before` may hold no peers. Returns how many differences it wrote:
 * those of `after` in its order, then those that are gone.
 *   -ENOSPC   there are more than `capacity`: call again with more room
 *   -EBADMSG  a peer comes twice in `after`
 *   -EINVAL   `index` has too little room
 */
long wga_dump_compare(const struct wga_dump *before, const struct wga_dump *after, struct wga_index *index,
		      struct wga_difference *out, size_t capacity);

/* SipHash-1-3 of a public key, read in the machine's byte order. */
uint64_t wga_key_hash(const uint64_t secret[2], const uint8_t public_key[32]);

/* A set of taken indices, 0 to size - 1, in `words` (64 indices each). */
struct wga_pool {
	uint64_t *words;
	uint32_t size;
	uint32_t used;
	uint32_t cursor;		/* where the next search starts */
};

/* All free. `words` holds (size + 63) / 64 words. -ERANGE unless 1 <= size <= 65536. */
int wga_pool_init(struct wga_pool *pool, uint64_t *words, uint32_t size);

/*
 * Take the first free index at or after the cursor, wrapping, and leave the cursor behind it: an
 * index given back is handed out again only after the search has gone round. -ENOSPC when full.
 */
int wga_pool_allocate(struct wga_pool *pool);

/* Take this index; the cursor stays. -EEXIST: taken already. -ERANGE: no such index. */
int wga_pool_reserve(struct wga_pool *pool, uint32_t index);

/* Give an index back. -ENOENT: it is not taken. -ERANGE: no such index. */
int wga_pool_release(struct wga_pool *pool, uint32_t index);

/* 1: taken, 0: free. -ERANGE: no such index. */
int wga_pool_test(const struct wga_pool *pool, uint32_t index);
