"""What exits ask of each other and answer: errors arrive as they were raised, and no text becomes a line of a file."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import msgspec
import pytest
from msgspec.structs import replace

from appliance.domain import ids
from appliance.domain.errors import (
    ApplianceError,
    CutOff,
    DeviceLimitReached,
    DeviceNameTaken,
    DeviceNotFound,
    FleetError,
    InvalidRequest,
    InvalidToken,
    KeyInUse,
    LiveSessionLimitReached,
    NoActiveNodeInRegion,
    NoActiveNodes,
    NoResponder,
    NotAnswered,
    PeerApplyFailed,
    QuotaExceeded,
    SessionNotFound,
    StoreUnavailable,
    SubnetExhausted,
)
from appliance.domain.quota import Quota
from appliance.domain.tiers import Tier
from appliance.fleet.accounts.caller import Caller, token_of
from appliance.fleet.rpc.exits import AT_ONCE, Exits
from appliance.fleet.rpc.facts import DeviceFacts, SessionFacts, TunnelRecord
from appliance.fleet.rpc.failures import Failure, described, error_of
from appliance.fleet.rpc.operations import ABORT, OPEN, OperationDone, OperationReply, TakeBack
from appliance.network.wireguard.client_config import Endpoint, TunnelFacts
from appliance.store.database import Store
from appliance.store.queries import fleet_requests as rows
from appliance.store.queries.fleet_requests import ServedOp
from tests.support.unit.a_session import A_SESSION

if TYPE_CHECKING:
    from pathlib import Path

QUOTA = Quota(10, 9, 1_700_000_000_000, 5, 6, 1_700_000_000_001)
RECORD = TunnelRecord.of(
    TunnelFacts(b"\x08" * 32, Endpoint(IPv4Address("192.0.2.1"), 51820), [IPv4Address("10.1.0.2")], 1420, 25, [], True)
)


@pytest.mark.parametrize(
    "error",
    [
        *(InvalidToken(), LiveSessionLimitReached(), DeviceLimitReached(), SessionNotFound(), DeviceNotFound()),
        *(DeviceNameTaken(), KeyInUse(), NoActiveNodes(), SubnetExhausted(), PeerApplyFailed(), StoreUnavailable()),
        InvalidRequest("client_public_key is in use by another account"),
        NoActiveNodeInRegion("fra", ("ams", "nyc")),
        QuotaExceeded(Tier.FREE, QUOTA),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_arrives_as_it_was_raised(error: ApplianceError) -> None:
    """Class, message and all that its client is told are the same at the exit that asked."""
    sent = msgspec.json.encode(described(error))
    arrived = error_of(msgspec.json.decode(sent, type=Failure), "fra")
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)


@pytest.mark.parametrize("error", [RuntimeError("/a/path"), ApplianceError("secret"), CutOff("x"), KeyError("x")])
def test_what_no_client_is_told_arrives_as_a_failed_apply(error: Exception) -> None:
    """An error of the exit's own is not disclosed, and one of another version is no 500."""
    assert described(error) == Failure("PeerApplyFailed")
    assert isinstance(error_of(Failure("SomethingNew", message="x")), PeerApplyFailed)
    assert isinstance(error_of(Failure("QuotaExceeded")), PeerApplyFailed)


@pytest.mark.parametrize(
    "forged",
    [
        replace(RECORD, host="192.0.2.1\nPostUp = touch /tmp/x"),
        replace(RECORD, host="fe80::1%\nPostUp = touch /tmp/x"),
        replace(RECORD, host="fe80::1%\nPostUp = x"),
        replace(RECORD, host="exit.example\n"),
        replace(RECORD, host=""),
        replace(RECORD, port=0),
        replace(RECORD, port=65536),
        replace(RECORD, addresses=()),
        replace(RECORD, addresses=("10.1.0.2/32, 0.0.0.0",)),
        replace(RECORD, addresses=("fd00::1%\nPostUp = x",)),
        replace(RECORD, dns=("9.9.9.9\nPostUp = x",)),
        replace(RECORD, dns=("fe80::1%\nPostUp = x",)),
        replace(RECORD, server_public_key=b"short"),
    ],
)
def test_no_text_of_another_exit_becomes_a_line_of_a_file(forged: TunnelRecord) -> None:
    """What is neither an address, a host name, a port nor a key makes no file."""
    with pytest.raises(ValueError, match=r".+"):
        forged.facts()


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "exit.example"])
def test_a_tunnel_arrives_as_it_is(host: str) -> None:
    """The file is the same as the exit itself would write it."""
    record = replace(RECORD, host=host)
    assert TunnelRecord.of(msgspec.json.decode(msgspec.json.encode(record), type=TunnelRecord).facts()) == record


def test_ids_of_a_fleet_tell_their_exit() -> None:
    """They end in the mark of their exit, are as long as others, and random before it."""
    mark = ids.mark_of_node("nod_" + "a" * 24)
    made = {ids.session_id(mark) for _ in range(100)} | {ids.device_id(mark) for _ in range(100)}
    assert len(made) == 200
    assert {ids.mark_of(each) for each in made} == {mark}
    assert {len(each) for each in made} == {len(ids.session_id())}


def test_a_caller_does_not_print_its_token() -> None:
    """The token is in no log, and an account without one is refused."""
    account = Caller("acc_1", "ada", Tier.FREE, disabled=False, created_at=0, token="wga_secret")  # noqa: S106 (a test's)
    assert "wga_secret" not in repr(account)
    assert token_of(account) == "wga_secret"
    with pytest.raises(InvalidToken):
        token_of(Caller("acc_1", "ada", Tier.FREE, disabled=False, created_at=0))


def test_a_longest_list_fits_into_an_answer() -> None:
    """200 sessions or devices with the longest texts are less than the 240,000 bytes of an answer."""
    session = SessionFacts(
        id="ses_" + "f" * 24,
        tier=Tier.ANONYMOUS,
        account_tier=Tier.ANONYMOUS,
        region="r" * 32,
        public_ip="2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
        public_key=b"\xff" * 32,
        state=A_SESSION.state,
        created_at=2**42,
        expires_at=2**42,
        bytes_in=2**62,
        bytes_out=2**62,
        counted_ms=2**42,
        last_handshake_at=2**42,
        rates=("eur", 2**40, 2**40),
        terminated_at=2**42,
        device_id="dev_" + "f" * 24,
        device_name="\U0001f600" * 64,
    )
    assert len(msgspec.json.encode([session] * 200)) < 240_000
    assert DeviceFacts.__struct_fields__  # its own longest is checked where devices are made


# Asking ----------------------------------------------------------------------------------------------


def test_no_more_is_asked_of_an_exit_at_once_than_it_answers() -> None:
    """Of a crowd each is answered, some at a time; one that has had no turn in time was not asked."""
    at_work, most = 0, 0

    async def call(node_id: str, operation: str, payload: bytes, timeout_s: float) -> bytes:
        nonlocal at_work, most
        del operation, payload, timeout_s
        at_work += 1
        most = max(most, at_work)
        if node_id == "hangs":
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        at_work -= 1
        return msgspec.json.encode(OperationReply(msgspec.Raw(b"{}")))

    async def story() -> None:
        exits = Exits(call)
        answers = await asyncio.gather(*(exits.ask("a", ABORT, TakeBack("x"), 10) for _ in range(200)))
        assert answers == [OperationDone()] * 200
        assert most == AT_ONCE
        hanging = [asyncio.create_task(exits.ask("hangs", ABORT, TakeBack("x"), 30)) for _ in range(AT_ONCE)]
        await asyncio.sleep(0)
        with pytest.raises(NoResponder):
            await exits.ask("hangs", ABORT, TakeBack("x"), 0.01)
        for task in hanging:
            task.cancel()

    asyncio.run(story())


@pytest.mark.parametrize("data", [b"", b"?", b"[]", b'{"result": {"session": 1}}', b'{"failure": {}}', b"\xff"])
def test_what_is_no_answer_is_none(data: bytes) -> None:
    """Bytes that are no answer to the operation are as if there were none."""
    with pytest.raises(NotAnswered):
        Exits(None).answer_of(OPEN, data)  # type: ignore[arg-type]  # nothing is asked


def test_what_the_link_refuses_otherwise_may_have_been_done() -> None:
    """An error of the way that does not say that nothing was sent is taken for a lost answer."""

    async def call(*_: object) -> bytes:
        raise FleetError("busy")

    async def story() -> None:
        with pytest.raises(NotAnswered):
            await Exits(call).ask("a", ABORT, TakeBack("x"), 1)

    asyncio.run(story())


# The store -------------------------------------------------------------------------------------------


def test_old_operations_are_deleted_and_intents_are_kept_once(tmp_path: Path) -> None:
    """An operation stays while it is young; what is intended twice is kept once, in order."""

    async def story() -> None:
        store = await Store.open(tmp_path / "store.sqlite")
        async with store.write() as db:
            for number in range(5):
                await rows.serve(db, "a", str(number), ServedOp(None, None, b"x"), number)
            await rows.take_back(db, "a", "4", 9)
            await rows.take_back(db, "b", "4", 9)
            assert await rows.served(db, "a", "4") == ServedOp(None, None, None)
            assert await rows.forget(db, 3, 2) == 2
            assert await rows.forget(db, 3, 2) == 1
            assert await rows.served(db, "a", "3") == ServedOp(None, None, b"x")
            for request in (b"1", b"2", b"1"):
                await rows.intend(db, "n", "abort", request, 0)
            assert [each.request for each in await rows.intents(db, "n", 10)] == [b"1", b"2"]
            assert await rows.intended_nodes(db) == ["n"]
            assert await rows.give_up_before(db, 1) == 2
        await store.close()

    asyncio.run(story())
