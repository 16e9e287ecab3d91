"""Devices as rows, against plain dictionaries; and what each takes in memory."""

from __future__ import annotations

import tracemalloc
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec import structs

from appliance.domain import ids
from appliance.domain.device import Outdated
from appliance.domain.entities import Baseline
from appliance.domain.tiers import Tier
from appliance.store.rows.device_rows import DeviceRows
from tests.support.unit.a_device import A_DEVICE

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.domain.device import Device

MOST = 2**63 - 1
MANY = 20_000
ROWS_TAKE = 240  # bytes a device: its row and its places in indices
PYTHON_TAKES = 150  # and its share of its account, of which each has four devices

numbers = st.sampled_from((0, 1, 2**31, 2**32, MOST)) | st.integers(0, MOST)
texts = st.sampled_from(("", "boot", "\ud800")) | st.text(max_size=8)
names = st.sampled_from(("a" * 24, "a" * 25, "ä" * 12, "\U0001f44b" * 64, "a\0", "\0")) | st.text(max_size=64)
devices = st.builds(
    structs.replace,
    st.just(A_DEVICE),
    id=st.sampled_from([f"dev_{n:024x}" for n in (0, 1, 0xABC << 84)] + ["dev_1", "dev_" + "AB" * 12, "", f"{1:024x}"]),
    account_id=st.sampled_from(("acc_1", "acc_2")),
    account=texts,
    account_tier=st.sampled_from(Tier),
    account_disabled=st.booleans(),
    name=names,
    region=texts,
    public_key=st.integers(0, 6).map(lambda n: bytes([n]) * 32),
    address_offset=numbers,
    ipv6=st.booleans(),
    created_at=numbers,
    paused=st.booleans(),
    installed=st.booleans(),
    endpoint=texts,
    bytes_in=numbers,
    bytes_out=numbers,
    counted_ms=numbers,
    last_handshake_at=st.none() | numbers,
    handshake_seen_ns=numbers,
    unfinished_rx=numbers,
    unfinished_tx=numbers,
    outdated=st.integers(0, 7).map(Outdated),
    baseline=st.none() | st.builds(Baseline, texts, numbers, numbers, numbers),
)


class RowsBesideDictionary(RuleBasedStateMachine):
    """Whatever is put and dropped, what is asked is answered as by a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = DeviceRows()
        self.known: dict[bytes, Device] = {}

    @rule(device=devices)
    def put(self, device: Device) -> None:
        if any(d.id == device.id and d.public_key != device.public_key for d in self.known.values()):
            with pytest.raises(ValueError, match="two devices have the id"):
                self.rows.put(device)
            return
        self.rows.put(device)
        self.known[device.public_key] = device

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.known)))
        assert self.rows.drop(key) == self.known.pop(key)

    @invariant()
    def answers(self) -> None:
        assert dict(self.rows) == self.known
        assert len(self.rows) == len(self.known)
        for device in self.known.values():
            assert self.rows.by_id(device.id) == device
        assert sorted(self.rows.address_offsets()) == sorted(d.address_offset for d in self.known.values())
        assert self.rows.paused == sum(d.paused and not d.account_disabled for d in self.known.values())
        owners = {d.account_id for d in self.known.values()}
        assert self.rows.accounts() == owners
        for account_id in ("acc_1", "acc_2"):
            own = [d for d in self.known.values() if d.account_id == account_id]
            assert sorted(self.rows.of_account(account_id), key=lambda d: d.public_key) == sorted(
                own, key=lambda d: d.public_key
            )
        assert bytes(32) in self.rows or self.rows.get(bytes(32)) is None
        assert self.rows.by_id("dev_none") is None


RowsBesideDictionary.TestCase.settings = settings(deadline=None, max_examples=60, stateful_step_count=25)
TestRowsBesideDictionary = RowsBesideDictionary.TestCase


def test_what_a_device_takes(show: Callable[[str], None]) -> None:
    """Its row and its places in indices, and its share of what it has in common with others."""
    random = Random(1)  # noqa: S311 (not secrets)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        rows = DeviceRows(a_device(number, random) for number in range(MANY))
        python = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    show(f"a device: {rows.nbytes / MANY:.0f} bytes of rows, {python / MANY:.0f} of Python's")
    assert rows.nbytes <= ROWS_TAKE * MANY
    assert python <= PYTHON_TAKES * MANY


def a_device(number: int, random: Random) -> Device:
    account = number // 4
    return structs.replace(
        A_DEVICE,
        id=ids.device_id(),
        account_id=f"acc_{account:024x}",
        account=f"account {account}",
        name=f"phone {number}",
        public_key=random.randbytes(32),
        address_offset=number,
        installed=True,
        baseline=Baseline("boot", 4, 5, 6),
    )
