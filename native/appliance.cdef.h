/*
 * Everything Python sees of the C side. cffi reads this file as it stands, so it holds plain
 * declarations and no preprocessor lines; the C sources include it through appliance.h.
 *
 * Functions return a value >= 0, or a negative errno. The caller owns all memory.
 */

/* Python unpacks these two, and struct wga_key, as bytes: appliance/network/wireguard/peer_table.py knows their layout. */
struct wga_peer {
	uint8_t public_key[32];
	uint64_t rx_bytes;
	uint64_t tx_bytes;
	int64_t last_handshake_ns;	/* wall clock since the epoch; 0: none yet */
	uint32_t first_allowed_ip;	/* index into the dump's allowed_ips */
	uint32_t allowed_ip_count;
	uint8_t endpoint_address[16];	/* network order; IPv4 as ::ffff:a.b.c.d */
	uint32_t endpoint_scope_id;	/* the interface of a link-local address, else 0 */
	uint16_t endpoint_port;		/* host order; 0: the device knows no endpoint */
	uint16_t keepalive_s;		/* 0: none */
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

/* The answer of wireguard-go to one request. */
struct wga_uapi {
	struct wga_dump *dump;		/* the tables; its state too */
	size_t consumed;		/* of the buffer that was fed last */
	const char *fault;		/* after -EBADMSG: what is wrong, a constant text */

	int has_device_error;
	int device_error;		/* the answer's errno, made positive; 0: done as asked */
	int has_private_key;
	uint8_t private_key[32];	/* for the caller to derive the public key from, and to clear */

	uint32_t found;			/* of the peer being read: which of its numbers came, and they */
	uint64_t numbers[5];
};

/* Start reading the answer to one request. The caller has set the dump's two arrays and their capacities. */
void wga_uapi_begin(struct wga_uapi *uapi, struct wga_dump *dump);

/*
 * Read the whole lines of what has come. 0: more to come; 1: finished, the answer is whole. What
 * was not consumed must stand in front of the next buffer.
 *   -EBADMSG  not what the protocol allows; `fault` says why
 *   -ENOSPC   an array is full (its count equals its capacity): grow it, and feed what was not consumed
 *   -EINVAL   not reading: begin first
 * After any other error than -ENOSPC, and if `device_error` is not 0, the tables hold nothing of use. The dump's
 * ifindex and public key are not set: the answer does not have them.
 */
int wga_uapi_feed(struct wga_uapi *uapi, const uint8_t *buf, size_t len);

/* Maps public keys to the peers of one dump, by their position in `peers`. */
struct wga_peer_index {
	uint64_t secret[2];		/* random: clients choose their keys, and must not choose their slots */
	uint32_t *slots;
	size_t size;			/* a power of two, at least twice the dump's peers, 2^31 at most */
};

/*
 * Build the index of a finished dump. It is valid for every dump with the same peers in the same order.
 *   -EBADMSG  a peer appears twice in the dump
 *   -EINVAL   there are too few slots, or not a power of two
 */
int wga_peer_index_fill(struct wga_peer_index *index, const struct wga_dump *dump);

/* Return the position in `peers` of the peer with this key, in a dump that `index` is valid for. -ENOENT: none. */
long wga_peer_index_find(const struct wga_peer_index *index, const struct wga_dump *dump, const uint8_t public_key[32]);

/* SipHash-1-3 of a public key, read in the machine's byte order. */
uint64_t wga_key_hash(const uint64_t secret[2], const uint8_t public_key[32]);

/* 1: both dumps have the same peers in the same order, whatever their counters. */
int wga_dump_same_order(const struct wga_dump *before, const struct wga_dump *after);

struct wga_key {
	uint8_t bytes[32];
};

/*
 * Write the public keys of peers added, changed or removed; an endpoint alone is no change. Returns how many it wrote: those of
 * `after` in its order, then those removed. -ENOSPC: there are more than `capacity`.
 */
long wga_dump_compare(const struct wga_dump *before, const struct wga_peer_index *before_index,
		      const struct wga_dump *after, const struct wga_peer_index *after_index,
		      struct wga_key *out, size_t capacity);

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

/* Rows of one size, by number. What is in them is the caller's; nothing in them is aligned. */
struct wga_rows {
	uint8_t *bytes;
	size_t row_size;
	uint32_t capacity;		/* 2^31 - 1 at most */
};

/* Maps keys, `key_len` bytes at `key_at` of each row, to the numbers of rows. A key in the index must not change. */
struct wga_row_index {
	const struct wga_rows *rows;
	uint64_t secret[2];		/* random, as in wga_peer_index */
	size_t key_at;
	size_t key_len;
	uint32_t *slots;
	size_t size;			/* a power of two, 4 or more; a quarter of the slots stays vacant */
	uint32_t used;
};

/* Move to other slots: to the first ones too, with `size` 0 before. -EINVAL: too few, or not a power of two. */
int wga_row_index_move(struct wga_row_index *index, uint32_t *slots, size_t size);

/* Add a row. -EEXIST: one with the same key is there. -ENOSPC: move to more slots. -ERANGE: no such row. */
int wga_row_index_put(struct wga_row_index *index, uint32_t row);

/* Remove a row. -ENOENT: it is not there. -ERANGE: no such row. */
int wga_row_index_remove(struct wga_row_index *index, uint32_t row);

/* Return the number of the row with this key. -ENOENT: none. */
long wga_row_index_find(const struct wga_row_index *index, const uint8_t *key);

/*
 * Orders rows by an int64_t at `number_at` of each. A uint32_t at `place_at` says where the row stands: 0, in no heap.
 * Heaps may share both fields, if a row is in one of them at most.
 */
struct wga_row_heap {
	struct wga_rows *rows;
	size_t number_at;
	size_t place_at;
	uint32_t *order;
	uint32_t capacity;		/* of `order` */
	uint32_t count;
};

/* Set a row's number; add the row if it is in no heap. -EEXIST: it is in another. -ENOSPC: full. -ERANGE: no such row. */
int wga_row_heap_put(struct wga_row_heap *heap, uint32_t row, int64_t number);

/* Remove a row. -ENOENT: it is not there. -ERANGE: no such row. */
int wga_row_heap_remove(struct wga_row_heap *heap, uint32_t row);

/* Return the number of the row that is first. -ENOENT: there is none. */
long wga_row_heap_first(const struct wga_row_heap *heap);

/* Write the rows whose number is at most `limit`, in no order. Returns how many. -ENOSPC: more than `capacity`. */
long wga_row_heap_up_to(const struct wga_row_heap *heap, int64_t limit, uint32_t *out, size_t capacity);

/* Have the C library return large freed blocks to the operating system at once, always. 1: it does; 0: it cannot. */
int wga_return_freed_memory(void);

/* Return to it what lies free between blocks in use, this once. 1: something was; 0: nothing, or it cannot. */
int wga_trim_memory(void);
