"""The C extension as native/appliance.cdef.h declares it. Built by build.py; few modules import it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal, overload

from typing_extensions import Buffer

# Pointers and arrays are cffi's; what matters here is their use, so they are Any.

class Dump:
    state: int
    kernel_error: int
    ifindex: int
    listen_port: int
    public_key: Any
    peers: Any
    peer_capacity: int
    peer_count: int
    allowed_ips: Any
    allowed_ip_capacity: int
    allowed_ip_count: int

class Uapi:
    consumed: int
    fault: Any
    device_error: int
    has_private_key: int
    private_key: Any

class PeerIndex:
    secret: tuple[int, ...]
    slots: Any
    size: int

class Pool:
    size: int
    used: int

class Ffi:
    @overload
    def new(self, cdecl: Literal["struct wga_dump *"]) -> Dump: ...
    @overload
    def new(self, cdecl: Literal["struct wga_uapi *"]) -> Uapi: ...
    @overload
    def new(self, cdecl: Literal["struct wga_pool *"]) -> Pool: ...
    @overload
    def new(self, cdecl: Literal["struct wga_peer_index *"]) -> PeerIndex: ...
    @overload
    def new(
        self,
        cdecl: Literal["struct wga_peer[]", "struct wga_allowed_ip[]", "struct wga_key[]", "uint32_t[]", "uint64_t[]"],
        length: int,
    ) -> Any: ...
    def new_allocator(self, *, should_clear_after_alloc: bool) -> Callable[[str, int], Any]: ...
    def from_buffer(self, cdecl: Literal["uint8_t[]"], buffer: Buffer) -> AbstractContextManager[Any]: ...
    def buffer(self, cdata: Any, size: int = ...) -> memoryview: ...
    def string(self, cdata: Any) -> bytes: ...
    def sizeof(self, cdecl: str) -> int: ...

class Lib:
    WGA_DUMP_IDLE: int
    WGA_DUMP_READING: int
    WGA_DUMP_FINISHED: int
    WGA_DUMP_FAILED: int

    def wga_dump_begin(self, dump: Dump, family_id: int, seq: int, port_id: int) -> None: ...
    def wga_dump_feed(self, dump: Dump, buf: Any, length: int) -> int: ...
    def wga_uapi_begin(self, uapi: Uapi, dump: Dump) -> None: ...
    def wga_uapi_feed(self, uapi: Uapi, buf: Any, length: int) -> int: ...
    def wga_dump_same_order(self, before: Dump, after: Dump) -> int: ...
    def wga_dump_compare(
        self, before: Dump, before_index: PeerIndex, after: Dump, after_index: PeerIndex, out: Any, capacity: int
    ) -> int: ...
    def wga_peer_index_fill(self, index: PeerIndex, dump: Dump) -> int: ...
    def wga_peer_index_find(self, index: PeerIndex, dump: Dump, public_key: bytes) -> int: ...
    def wga_key_hash(self, secret: tuple[int, int], public_key: bytes) -> int: ...
    def wga_pool_init(self, pool: Pool, words: Any, size: int) -> int: ...
    def wga_pool_allocate(self, pool: Pool) -> int: ...
    def wga_pool_reserve(self, pool: Pool, index: int) -> int: ...
    def wga_pool_release(self, pool: Pool, index: int) -> int: ...
    def wga_pool_test(self, pool: Pool, index: int) -> int: ...

ffi: Ffi
lib: Lib
