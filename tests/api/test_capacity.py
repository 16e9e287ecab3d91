"""Addresses and live sessions are limited; what ends makes room."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from appliance.domain.tiers import Tier
from tests.support.api.answers import refused
from tests.support.api.exit_under_test import ExitUnderTest, address, new_key, on_exit

SECONDS = 60.0  # how long many may wait for the store's writer on a busy machine


@on_exit('subnet = "10.101.0.0/30"\n')
async def test_a_30_has_room_for_one_client(exit_: ExitUnderTest) -> None:
    """A /30 has room for one client; the next is refused until it leaves."""
    ada = await exit_.client()
    opened = await ada.open()
    before = exit_.holdings()
    refused(await ada.post(), 503, "subnet exhausted")
    assert exit_.holdings() == before
    await ada.delete(opened["id"])
    assert address(await ada.open()) == address(opened) == "10.101.0.2"


@on_exit('subnet = "10.101.0.0/29"\n')
async def test_a_29_has_room_for_five_clients(exit_: ExitUnderTest) -> None:
    """A /29 has room for five; a freed address is the last to be handed out again."""
    ada = await exit_.client()
    opened = [await ada.open() for _ in range(5)]
    assert [address(o) for o in opened] == [f"10.101.0.{n}" for n in range(2, 7)]
    before = exit_.holdings()
    refused(await ada.post(), 503, "subnet exhausted")
    assert exit_.holdings() == before
    for number in (3, 1):
        await ada.delete(opened[number]["id"])
    first, second = await ada.open(), await ada.open()
    assert {address(first), address(second)} == {"10.101.0.5", "10.101.0.3"}
    refused(await ada.post(), 503, "subnet exhausted")


@on_exit('subnet = "10.101.0.0/29"\n')
async def test_a_freed_address_is_handed_out_last(exit_: ExitUnderTest) -> None:
    """Late packets for the last holder of an address seldom meet the next: all others are handed out before it."""
    ada = await exit_.client()
    opened = await ada.open()
    await ada.delete(opened["id"])
    assert [address(await ada.open()) for _ in range(5)][-1] == address(opened)


@on_exit("[tiers.free]\nmax_live_sessions = 2\n")
async def test_live_sessions_are_limited_an_account(exit_: ExitUnderTest) -> None:
    """The tier's live sessions are counted an account; another account has its own."""
    ada, eve = await exit_.client(tier=Tier.FREE), await exit_.client("eve", Tier.FREE)
    opened = [await ada.open(), await ada.open()]
    before = exit_.holdings()
    refused(await ada.post(), 403, "live session limit reached")
    assert exit_.holdings() == before
    await eve.open()
    await ada.delete(opened[0]["id"])
    await ada.open()


@on_exit('subnet = "10.101.0.0/30"\n[tiers.free]\nmax_live_sessions = 1\n')
async def test_replacement_needs_no_room(exit_: ExitUnderTest) -> None:
    """The session being replaced counts neither toward the limit nor toward the pool."""
    ada = await exit_.client(tier=Tier.FREE)
    text, raw = new_key()
    first = await ada.open(client_public_key=text)
    second = await ada.open(client_public_key=text)
    assert address(second) == address(first)
    assert exit_.state_of(first["id"]) == ("terminated", "replaced")
    assert exit_.state_of(second["id"]) == ("live", None)
    assert exit_.parts.pool.in_use == 1
    assert set(exit_.tunnel.peers) == {raw}
    refused(await ada.post(), 403, "live session limit reached")


@on_exit("[tiers.free]\nmax_live_sessions = 5\n")
async def test_many_at_once_do_not_pass_the_limit(exit_: ExitUnderTest) -> None:
    """Of fifty requests at once as many succeed as the limit allows, and no more."""
    exit_.store._patience_s = SECONDS
    ada = await exit_.client(tier=Tier.FREE)
    answers = await asyncio.gather(*(ada.post() for _ in range(50)))
    assert Counter(a.status_code for a in answers) == {201: 5, 403: 45}
    assert exit_.parts.pool.in_use == len(exit_.tunnel.peers) == 5
    assert len({address(a.json()) for a in answers if a.status_code == 201}) == 5


@on_exit('subnet = "10.101.0.0/29"\n')
async def test_many_into_a_small_subnet(exit_: ExitUnderTest) -> None:
    """No address is handed out twice, however many ask at once."""
    exit_.store._patience_s = SECONDS
    ada = await exit_.client()
    answers = await asyncio.gather(*(ada.post() for _ in range(20)))
    assert Counter(a.status_code for a in answers) == {201: 5, 503: 15}
    assert len({address(a.json()) for a in answers if a.status_code == 201}) == 5


@on_exit()
async def test_same_key_at_once(exit_: ExitUnderTest) -> None:
    """Twenty requests with one key all succeed, one after the other: one session is live in the end."""
    exit_.store._patience_s = SECONDS
    ada = await exit_.client()
    text, raw = new_key()
    answers = await asyncio.gather(*(ada.post(client_public_key=text) for _ in range(20)))
    assert {a.status_code for a in answers} == {201}
    assert len({address(a.json()) for a in answers}) == 1
    assert Counter(exit_.state_of(a.json()["id"]) for a in answers) == {
        ("live", None): 1,
        ("terminated", "replaced"): 19,
    }
    assert exit_.parts.pool.in_use == 1
    assert set(exit_.tunnel.peers) == {raw}


@pytest.mark.parametrize("first", ["delete", "post"])
@on_exit()
async def test_delete_and_post_at_once(exit_: ExitUnderTest, first: str) -> None:
    """Whoever comes first, the new session is live and the old one has ended."""
    ada = await exit_.client()
    text, raw = new_key()
    old = await ada.open(client_public_key=text)
    requests = [ada.delete(old["id"]), ada.post(client_public_key=text)]
    answers = await asyncio.gather(*(requests if first == "delete" else reversed(requests)))
    deleted, posted = answers if first == "delete" else reversed(answers)
    assert (deleted.status_code, posted.status_code) == (200, 201)
    assert deleted.json()["terminated_reason"] in ("closed", "replaced")
    assert exit_.state_of(posted.json()["id"]) == ("live", None)
    assert set(exit_.tunnel.peers) == {raw}
    assert exit_.parts.pool.in_use == 1


@on_exit()
async def test_delete_twice_at_once(exit_: ExitUnderTest) -> None:
    """Both are answered alike, and the address is given back once."""
    ada = await exit_.client()
    opened, other = await ada.open(), await ada.open()
    answers = await asyncio.gather(*(ada.delete(opened["id"]) for _ in range(5)))
    assert {a.status_code for a in answers} == {200}
    assert len({a.text for a in answers}) == 1
    assert exit_.parts.pool.in_use == 1
    assert set(exit_.tunnel.peers) == {exit_.key_of(other["id"])}


@on_exit()
async def test_ticks_between_requests_keep_new_peers(exit_: ExitUnderTest) -> None:
    """Ticks at the same time as requests neither remove a new peer nor restore an ended one."""
    ada = await exit_.client()
    text, _ = new_key()
    for _ in range(3):
        opened = [await ada.open(client_public_key=text), await ada.open()]
        work = [ada.delete(o["id"]) for o in opened] + [ada.post(client_public_key=text), ada.post()]
        await asyncio.gather(*(task for request in work for task in (request, exit_.tick())))
    live = {key for (key,) in exit_.rows("SELECT public_key FROM sessions WHERE state = 'live'")}
    assert set(exit_.tunnel.peers) == live == set(exit_.parts.live.public_keys())
    assert exit_.parts.pool.in_use == len(live)
