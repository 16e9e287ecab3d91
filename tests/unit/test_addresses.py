"""The pool of client addresses, against a plain model and at the edges of its C bitmap."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from appliance._native import ffi, lib
from appliance.domain.errors import SubnetExhausted
from appliance.network.address_pool import AddressPool


def pool(prefix_length: int) -> AddressPool:
    return AddressPool(IPv4Network(("10.101.0.0", prefix_length), strict=False))


@pytest.mark.parametrize("prefix_length", range(16, 31))
def test_every_client_address_once(prefix_length: int) -> None:
    """A pool hands out every offset but the network's, the exit's own and the broadcast one, once, and then no more."""
    addresses = pool(prefix_length)
    size = 1 << (32 - prefix_length)
    assert addresses.capacity == size - 3
    assert [addresses.allocate() for _ in range(addresses.capacity)] == list(range(2, size - 1))
    assert addresses.in_use == addresses.capacity
    with pytest.raises(SubnetExhausted):
        addresses.allocate()
    addresses.release(2)
    assert addresses.allocate() == 2


@pytest.mark.parametrize("prefix_length", [15, 31, 32])
def test_subnets_are_30_to_16_bits_long(prefix_length: int) -> None:
    """Subnets are /30 to /16."""
    with pytest.raises(ValueError, match=r"is not a /30 to /16"):
        pool(prefix_length)


def test_an_address_is_reused_after_all_that_were_free_before_it() -> None:
    """An address given back is handed out again only after every address that was free before it."""
    addresses = pool(28)
    first = [addresses.allocate() for _ in range(3)]
    for offset in first:
        addresses.release(offset)
    assert [addresses.allocate() for _ in range(addresses.capacity)] == [*range(5, 15), 2, 3, 4]


def test_reserving_leaves_the_search_where_it_is() -> None:
    """Rebuilding the pool from the store takes what is held, and the next allocation passes over it."""
    addresses = pool(28)
    for offset in (2, 3, 9):
        addresses.reserve(offset)
    assert addresses.in_use == 3
    assert [addresses.allocate() for _ in range(6)] == [4, 5, 6, 7, 8, 10]


def test_wrong_reservations_and_releases_say_what_is_wrong() -> None:
    """Reserving a taken address, releasing a free one, and touching one that is no client's each say which."""
    addresses = pool(24)
    addresses.reserve(7)
    with pytest.raises(ValueError, match=r"10\.101\.0\.7 is taken"):
        addresses.reserve(7)
    with pytest.raises(ValueError, match=r"10\.101\.0\.8 is not taken"):
        addresses.release(8)
    for offset in (-1, 0, 1, 255, 256, 1 << 40):
        for method in (addresses.reserve, addresses.release):
            with pytest.raises(ValueError, match="is not a client's in"):
                method(offset)
        assert offset not in addresses
    assert addresses.in_use == 1


def test_the_last_free_address_is_found() -> None:
    """With one address free in a full /16, it is found wherever the search stands."""
    addresses = pool(16)
    for _ in range(addresses.capacity):
        addresses.allocate()
    for offset in (2, 63, 64, 65, 32767, 65534, 65472, 3):
        addresses.release(offset)
        assert addresses.allocate() == offset


@pytest.mark.parametrize("size", [0, 65537, (1 << 32) - 1])
def test_sizes_the_bitmap_refuses(size: int) -> None:
    """The C side checks the size before it touches the words."""
    words = ffi.new("uint64_t[]", 1)
    words[0] = 12345
    assert lib.wga_pool_init(ffi.new("struct wga_pool *"), words, size) < 0
    assert words[0] == 12345


OFFSETS = st.integers(-1, 130) | st.integers(-1, 515)


class PoolAgainstModel(RuleBasedStateMachine):
    """The pool does what a set and a cursor do."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: set[int] = set()
        self.cursor = 0

    @initialize(prefix_length=st.sampled_from([30, 29, 26, 25, 23]))
    def of_any_size(self, prefix_length: int) -> None:
        self.pool = pool(prefix_length)
        self.clients = range(2, (1 << (32 - prefix_length)) - 1)

    @rule(times=st.integers(1, 200))
    def allocate(self, times: int) -> None:
        for _ in range(times):
            order = sorted(set(self.clients) - self.taken, key=lambda offset: (offset < self.cursor, offset))
            if not order:
                with pytest.raises(SubnetExhausted):
                    self.pool.allocate()
                return
            assert self.pool.allocate() == order[0]
            self.taken.add(order[0])
            self.cursor = order[0] + 1

    @rule(offset=OFFSETS)
    def reserve(self, offset: int) -> None:
        if offset in self.clients and offset not in self.taken:
            self.pool.reserve(offset)
            self.taken.add(offset)
        else:
            with pytest.raises(ValueError, match="is"):
                self.pool.reserve(offset)

    @rule(offset=OFFSETS)
    def release(self, offset: int) -> None:
        if offset in self.taken:
            self.pool.release(offset)
            self.taken.remove(offset)
        else:
            with pytest.raises(ValueError, match="is"):
                self.pool.release(offset)

    @invariant()
    def holds_the_same(self) -> None:
        assert self.pool.in_use == len(self.taken)
        assert {offset for offset in range(-1, self.clients.stop + 2) if offset in self.pool} == self.taken


TestPoolAgainstModel = PoolAgainstModel.TestCase
TestPoolAgainstModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
