"""Sessions of a fleet: any host's API opens, shows and ends them on any exit, as that exit's own would."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from appliance.domain.errors import NotAnswered
from appliance.domain.tiers import Tier
from appliance.fleet.accounts.caller import Caller
from appliance.fleet.rpc.operations import DRAIN, DrainExit
from appliance.network.wireguard import keys
from appliance.sessions.opening import SessionRequest
from appliance.store.queries import fleet_requests
from tests.support.api.answers import refused
from tests.support.api.exit_under_test import IMPATIENT, new_key, until
from tests.support.fleet.exits_under_test import on_fleet

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from appliance.fleet.claims.messages import Granted, Taken
    from tests.support.fleet.exits_under_test import ExitsUnderTest

FAILED = "peer apply failed; node may be disconnected"


def line(opened: dict[str, Any], begins: str) -> str:
    return next(each for each in opened["wg_config"].splitlines() if each.startswith(begins))


@on_fleet("ams", "fra")
async def test_a_session_opens_in_either_region_through_either_api(exits: ExitsUnderTest) -> None:
    """It is opened on the region's exit; its file names that exit's address and subnet, whichever API was asked."""
    ada = await exits.client()
    for api in ("ams", "fra"):
        for region, ip, subnet in (("ams", "192.0.2.1", "10.1.0."), ("fra", "192.0.2.2", "10.2.0.")):
            opened = await ada.at(api).open(region=region)
            assert opened["public_ip"] == ip
            assert line(opened, "Endpoint") == f"Endpoint = {ip}:51820"
            assert line(opened, "Address").startswith(f"Address = {subnet}")
            assert opened["id"].endswith(exits[region].exit_.parts.node.id_mark)
            assert exits[region].exit_.state_of(opened["id"]) == ("live", None)


@on_fleet("ams", "fra")
async def test_a_file_does_not_show_which_api_made_it(exits: ExitsUnderTest) -> None:
    """Files of the same key and wishes, of one exit, differ by the client's address alone."""
    ada = await exits.client()
    text, _ = new_key()
    wishes: dict[str, object] = {"region": "fra", "client_public_key": text, "dns": ["9.9.9.9"], "ipv6": False}
    own = await ada.at("fra").open(**wishes)
    other = await ada.at("ams").open(**wishes)
    assert own["wg_config"] == other["wg_config"]  # the same key keeps its address
    assert own.keys() == other.keys()
    assert exits["fra"].exit_.state_of(own["id"]) == ("terminated", "replaced")


@on_fleet("ams", "fra")
async def test_the_private_key_stays_where_it_was_made(exits: ExitsUnderTest) -> None:
    """The key pair is made by the API that is asked: the exit sees the public key alone."""
    ada = await exits.client()
    seen: list[bytes] = []
    answer = exits["fra"].any.owner.answer

    async def listening(sender: str, operation: str, payload: bytes) -> bytes:
        said = await answer(sender, operation, payload)
        seen.extend((payload, said))
        return said

    exits["fra"].any.owner.answer = listening  # type: ignore[method-assign]
    opened = await ada.at("ams").open(region="fra")
    private = line(opened, "PrivateKey").removeprefix("PrivateKey = ")
    public = line(opened, "# PublicKey").removeprefix("# PublicKey = ")
    assert seen
    assert not any(private.encode() in each for each in seen)
    assert keys.parse_public_key(public, "it") in exits["fra"].exit_.tunnel.peers


@on_fleet("ams", "fra")
async def test_a_session_is_shown_and_ended_through_either_api(exits: ExitsUnderTest) -> None:
    """Both APIs show the same figures of one; ended through the other, its peer is gone when that is answered."""
    ada = await exits.client()
    opened = await ada.at("ams").open(region="fra")
    key = exits["fra"].exit_.key_of(opened["id"])
    await exits["fra"].exit_.shake(key)
    exits["fra"].exit_.tunnel.add_traffic(key, rx=1000, tx=2000)
    await exits["fra"].exit_.tick(7)
    own, other = [await ada.at(api).status(opened["id"]) for api in ("fra", "ams")]
    assert own == other  # the quota too, which is that of the exit
    assert own["quota_bytes_used"] == 3000
    for api in ("fra", "ams"):
        usage = (await ada.at(api).get("/v1/usage")).json()
        assert (usage["bytes_used"], usage["session_seconds"]) == (3000, 7)
    assert (other["bytes_in"], other["bytes_out"], other["seconds"]) == (1000, 2000, 7)
    answer = await ada.at("ams").delete(opened["id"])
    assert answer.status_code == 200, answer.text
    assert answer.json()["terminated_reason"] == "closed"
    assert key not in exits["fra"].exit_.tunnel.peers
    again = await ada.at("ams").delete(opened["id"])
    assert again.json()["terminated_at"] == answer.json()["terminated_at"]


@on_fleet("ams", "fra")
async def test_errors_are_those_of_the_exit_itself(exits: ExitsUnderTest) -> None:
    """Whatever an exit refuses, the other's API answers with the same status and body."""
    ada, bob = await exits.client(), await exits.client("bob", Tier.FREE)
    text, _ = new_key()
    await ada.at("fra").open(region="fra", client_public_key=text)
    own_key = keys.encode(exits["fra"].exit_.tunnel.interface.public_key)
    unknown = "ses_" + "0" * 16 + exits["fra"].exit_.parts.node.id_mark
    for api in ("ams", "fra"):
        there = bob.at(api)
        refused(
            await there.post(region="fra", client_public_key=text),
            400,
            "client_public_key is in use by another account",
        )
        refused(await there.post(region="nyc"), 503, "no active node in region nyc", available=["ams", "fra"])
        refused(
            await there.post(region="fra", client_public_key=own_key), 400, "client_public_key is the server's own key"
        )
        refused(await there.status_answer(unknown), 404, "session not found")
        refused(await there.delete(unknown), 404, "session not found")


@on_fleet("ams", "fra", config_text='[tiers.free]\nmax_live_sessions = 1\nbytes_limit = "1MB"\n')
async def test_limits_are_those_of_the_exit(exits: ExitsUnderTest) -> None:
    """A live session limit and a used up quota are answered by the other's API with all figures."""
    bob = await exits.client("bob", Tier.FREE)
    opened = await bob.at("ams").open(region="fra")
    for api in ("ams", "fra"):
        refused(await bob.at(api).post(region="fra"), 403, "live session limit reached")
    key = exits["fra"].exit_.key_of(opened["id"])
    await exits["fra"].exit_.shake(key)
    exits["fra"].exit_.tunnel.add_traffic(key, rx=3_000_000)
    await exits["fra"].exit_.tick(1)
    own, other = [await bob.at(api).post(region="fra") for api in ("fra", "ams")]
    assert (own.status_code, own.json()) == (other.status_code, other.json())
    assert own.status_code == 402
    assert own.headers.get("retry-after") == other.headers.get("retry-after")


@on_fleet("ams", "fra")
async def test_a_token_that_the_exit_does_not_know_opens_nothing_there(exits: ExitsUnderTest) -> None:
    """The exit goes by its own copy of the tokens: one that was revoked there opens, shows and ends nothing."""
    ada = await exits.client()
    opened = await ada.at("ams").open(region="fra")
    await exits["fra"].exit_.admin("UPDATE tokens SET revoked_at = 1")
    await exits["fra"].exit_.tick()
    for answer in (
        await ada.at("ams").post(region="fra"),
        await ada.at("ams").status_answer(opened["id"]),
        await ada.at("ams").delete(opened["id"]),
    ):
        refused(answer, 401, "invalid token")


@on_fleet("ams", "fra", "fra2", regions={"fra2": "fra"}, config_text='subnet6 = ""\n')
async def test_what_one_exit_has_no_room_for_another_takes(exits: ExitsUnderTest) -> None:
    """An exit that is gone, full or just drained is passed over, for the next one of its region at once."""
    ada = await exits.client()
    exits["ams"].order = ["fra", "fra2"]
    exits.wire.fault("fra", "open", "gone")
    opened = await ada.at("ams").open(region="fra")
    assert opened["public_ip"] == "192.0.2.3"
    pool = exits["fra"].exit_.parts.pool
    while pool.in_use < 253:
        pool.allocate()
    assert (await ada.at("ams").open(region="fra"))["public_ip"] == "192.0.2.3"
    assert exits.intents() == 0


@on_fleet("ams", "fra")
async def test_a_drained_exit_is_no_candidate_and_the_others_are_named(exits: ExitsUnderTest) -> None:
    """A hub drains an exit; from then on its region has none, and the error names the regions that do."""
    ada = await exits.client()
    ask = exits["ams"].any.elsewhere.exits.ask
    await ask(exits["fra"].node_id, DRAIN, DrainExit(True), 1)
    await exits["fra"].exit_.tick()
    refused(await ada.at("ams").post(region="fra"), 503, "no active node in region fra", available=["ams"])
    await ask(exits["fra"].node_id, DRAIN, DrainExit(False), 1)
    await exits["fra"].exit_.tick()
    await ada.at("ams").open(region="fra")


@on_fleet("ams", "fra")
async def test_a_drain_that_is_refused_is_noted_for_the_command(exits: ExitsUnderTest) -> None:
    """By an exit to which the asking one is no hub: it is asked no more, and goes on."""
    asks, asked = exits["fra"], exits["ams"]
    now = asks.exit_.clock.now().wall_ms
    async with asks.exit_.store.write() as db:
        number = await fleet_requests.intend(db, asked.node_id, DRAIN.name, b'{"drained":true}', now)
    assert number is not None
    for _ in range(2):
        await asks.any.intents.carry_out()
        async with asks.exit_.store.read() as db:
            left = await fleet_requests.outcome(db, number)
        assert left is not None
        assert (left.operation, left.request) == (fleet_requests.REFUSED, b"only a hub may drain another exit")
    assert not asked.exit_.rows("SELECT drained FROM node")[0][0]


@on_fleet("ams", "fra", "nyc")
async def test_lists_have_the_sessions_of_all_exits_in_pages(exits: ExitsUnderTest) -> None:
    """Pages through any API have each session once, the newest first, also where moments are the same."""
    ada, bob = await exits.client(), await exits.client("bob")
    made = []
    for number in range(9):
        region = ("ams", "fra", "nyc")[number % 3]
        made.append((await ada.at("ams").open(region=region))["id"])
        if number % 2:
            for host in exits.hosts.values():
                host.exit_.clock.advance(1)
    await bob.at("ams").open(region="fra")
    await ada.at("fra").delete(made[1])
    for api in ("ams", "fra", "nyc"):
        listed, before = [], {}
        while True:
            answer = await ada.at(api).get("/v1/sessions", limit="2", **before)
            assert answer.status_code == 200, answer.text
            page = answer.json()["sessions"]
            if not page:
                break
            listed += page
            before = {"before": page[-1]["id"]}
        assert sorted(each["id"] for each in listed) == sorted(made)
        assert [each["created_at"] for each in listed] == sorted((e["created_at"] for e in listed), reverse=True)
        live = (await ada.at(api).get("/v1/sessions", live="true", limit="200")).json()["sessions"]
        assert {each["id"] for each in live} == set(made) - {made[1]}
        refused(await bob.at(api).get("/v1/sessions", before=made[0]), 400, "before must be the id of a session")


@on_fleet("ams", "fra", "lis")
async def test_lists_show_no_exit_but_the_hub_a_token(exits: ExitsUnderTest) -> None:
    """They are whole all the same, whichever API is asked: the hub asks for the account by its id, as no other may."""
    ada = await exits.client()
    opened = [await ada.at("lis").open(region=name) for name in ("ams", "fra", "lis")]
    answer, asked = exits["fra"].any.owner.answer, list[tuple[str, bytes]]()

    async def listening(sender: str, operation: str, payload: bytes) -> bytes:
        asked.append((operation, payload))
        return await answer(sender, operation, payload)

    exits["fra"].any.owner.answer = listening  # type: ignore[method-assign]
    for api in ("ams", "lis"):
        for what, ids in (("sessions", {each["id"] for each in opened}), ("devices", set())):
            listed = (await ada.at(api).get(f"/v1/{what}")).json()[what]
            assert {each["id"] for each in listed} == ids
        assert (await ada.at(api).get("/v1/usage")).status_code == 200
    assert {name for name, _ in asked} == {"list", "device_list", "usage"}
    assert not any(ada.token.encode() in payload for _, payload in asked)
    for operation, payload in asked:
        refusal = await answer(exits["lis"].node_id, operation, payload)
        assert b"only a hub asks for an account by its id" in refusal


@on_fleet("ams", "fra", "nyc")
async def test_of_an_exit_that_is_away_the_reported_is_shown(exits: ExitsUnderTest) -> None:
    """Its session is shown and listed as it was last reported; ending it is 503, and done when the exit is back."""
    ada, bob = await exits.client(), await exits.client("bob")
    opened = await ada.at("ams").open(region="fra")
    other = await ada.at("ams").open(region="nyc")
    exits["fra"].report()
    await exits["fra"].stop()
    assert (await ada.at("ams").status(opened["id"]))["region"] == "fra"
    refused(await bob.at("ams").status_answer(opened["id"]), 404, "session not found")
    listed = (await ada.at("nyc").get("/v1/sessions")).json()["sessions"]
    assert {each["id"] for each in listed} == {opened["id"], other["id"]}
    for _ in range(2):
        refused(await ada.at("ams").delete(opened["id"]), 503, FAILED)
    refused(await bob.at("ams").delete(opened["id"]), 404, "session not found")
    assert exits.intents() == 1
    await exits.carry_out()
    assert exits.intents() == 1
    await exits["fra"].start()
    await exits.carry_out()
    assert exits.intents() == 0
    assert exits["fra"].exit_.state_of(opened["id"]) == ("terminated", "closed")


@on_fleet("ams", "fra")
async def test_nothing_is_a_500_whatever_is_away(exits: ExitsUnderTest) -> None:
    """Without the other exit, the ledger and the reports, each request is answered as the API says."""
    ada = await exits.client()
    there, here = await ada.at("ams").open(region="fra"), await ada.at("ams").open(region="ams")
    exits.ledger.away = exits.reports.away = True
    for cut in ("stopped", "cut off", "silent"):
        if cut == "stopped":
            await exits["fra"].stop()
        elif cut == "cut off":
            await exits["fra"].start()
            exits.wire.cut.add(exits["ams"].node_id)
        else:
            exits.wire.cut.clear()
            for operation in ("open", "status", "close", "list"):
                exits.wire.fault("fra", operation, *["lost"] * 2)
        answer = await ada.at("ams").post(region="fra")
        assert answer.status_code == 503, (cut, answer.text)
        refused(await ada.at("ams").status_answer(there["id"]), 503, FAILED)
        refused(await ada.at("ams").delete(there["id"]), 503, FAILED)
        listed = (await ada.at("ams").get("/v1/sessions", live="true")).json()["sessions"]
        assert here["id"] in {each["id"] for each in listed}
        assert (await ada.at("ams").post(region="ams")).status_code == 201
        assert (await ada.at("ams").status_answer("ses_" + "0" * 24)).status_code == 404


# A key that moves ------------------------------------------------------------------------------------


@on_fleet("ams", "fra")
async def test_a_key_that_moves_ends_its_session_in_the_other_region(exits: ExitsUnderTest) -> None:
    """The new session is live first; then the old one ends on its exit, as soon as that can be asked."""
    ada = await exits.client()
    text, raw = new_key()
    first = await ada.at("ams").open(region="ams", client_public_key=text)
    second = await ada.at("ams").open(region="fra", client_public_key=text)
    assert exits["fra"].exit_.state_of(second["id"]) == ("live", None)
    assert exits["ams"].exit_.state_of(first["id"]) == ("live", None)
    await exits.carry_out()
    assert exits["ams"].exit_.state_of(first["id"]) == ("terminated", "replaced")
    assert raw not in exits["ams"].exit_.tunnel.peers
    assert exits.ledger.held()[raw] == second["id"]
    third = await ada.at("fra").open(region="ams", client_public_key=text)
    await exits.carry_out()
    assert exits["fra"].exit_.state_of(second["id"])[0] == "terminated"
    assert exits["ams"].exit_.state_of(third["id"]) == ("live", None)
    assert exits.intents() == 0


@on_fleet("ams", "fra")
async def test_of_two_exits_that_open_one_key_at_once_one_keeps_it(exits: ExitsUnderTest) -> None:
    """The other's session ends as replaced, and its peer is gone; nothing is asked of the one that has the key."""
    ada = await exits.client()
    text, raw = new_key()
    both = await asyncio.gather(*(ada.at(name).open(region=name, client_public_key=text) for name in ("ams", "fra")))
    await exits.carry_out()
    states = {exits[at].exit_.state_of(each["id"]) for at, each in zip(("ams", "fra"), both, strict=True)}
    assert states == {("live", None), ("terminated", "replaced")}
    assert [raw in exits[at].exit_.tunnel.peers for at in ("ams", "fra")].count(True) == 1
    (kept,) = (each["id"] for each in both if each["id"] == exits.ledger.held()[raw])
    owner = next(host for host in exits.hosts.values() if kept.endswith(host.exit_.parts.node.id_mark))
    assert raw in owner.exit_.tunnel.peers


@on_fleet("ams", "fra")
async def test_a_key_whose_claim_was_not_answered_is_claimed_once_it_can_be(exits: ExitsUnderTest) -> None:
    """What was opened meanwhile is newer than what has the key elsewhere, and takes its place."""
    ada = await exits.client()
    text, raw = new_key()
    first = await ada.at("ams").open(region="ams", client_public_key=text)
    ledger = exits.ledger.of_keys
    answered = ledger.claim

    async def not_answered(_node: str, _asked: object) -> Granted | Taken:
        ledger.claim = answered  # type: ignore[method-assign]
        raise NotAnswered("lost")

    ledger.claim = not_answered  # type: ignore[method-assign]
    second = await ada.at("fra").open(region="fra", client_public_key=text)
    await exits.carry_out()
    await exits.carry_out()  # it was claimed in the background
    assert exits["ams"].exit_.state_of(first["id"]) == ("terminated", "replaced")
    assert exits["fra"].exit_.state_of(second["id"]) == ("live", None)
    assert exits.ledger.held()[raw] == second["id"]


@on_fleet("ams", "fra")
async def test_a_key_is_one_accounts_in_the_whole_fleet(exits: ExitsUnderTest) -> None:
    """Another account's live key is refused in any region; without the ledger, each exit goes by what it knows."""
    ada, bob = await exits.client(), await exits.client("bob")
    text, raw = new_key()
    await ada.at("ams").open(region="ams", client_public_key=text)
    refused(
        await bob.at("ams").post(region="fra", client_public_key=text),
        400,
        "client_public_key is in use by another account",
    )
    assert raw not in exits["fra"].exit_.tunnel.peers
    exits.ledger.away = True
    await bob.at("ams").open(region="fra", client_public_key=text)


@on_fleet("ams", "fra")
async def test_without_the_ledger_an_exit_goes_on_alone(exits: ExitsUnderTest) -> None:
    """A ledger that does not answer at all holds a request up for a moment, and no more."""
    ada = await exits.client()
    exits.ledger.hangs = True
    opened = await ada.at("ams").open(region="ams")
    assert exits["ams"].exit_.state_of(opened["id"]) == ("live", None)
    exits.ledger.hangs = False


@on_fleet("ams", "fra", config_text="[tiers.paid]\nmax_live_sessions = 0\n")
async def test_a_crowd_opens_on_another_exit(exits: ExitsUnderTest) -> None:
    """A hundred at once through the other's API are all served, and then all ended."""
    ada = await exits.client()
    opened = await asyncio.gather(*(ada.at("ams").open(region="fra") for _ in range(100)))
    assert len({each["id"] for each in opened}) == len(exits["fra"].exit_.tunnel.peers) == 100
    ended = await asyncio.gather(*(ada.at("ams").delete(each["id"]) for each in opened))
    # One that has no turn in two seconds is ended all the same.
    assert {answer.status_code for answer in ended} <= {200, 503}
    await exits.carry_out()
    assert exits["fra"].exit_.tunnel.peers == {}
    await exits.settled()
    assert exits["ams"].any.ops._in_work == exits["fra"].any.ops._in_work == {}


# What is lost on the way -----------------------------------------------------------------------------


@on_fleet("ams", "fra")
async def test_one_lost_request_or_answer_is_not_noticed(exits: ExitsUnderTest) -> None:
    """The same is asked once more, and made once."""
    ada = await exits.client()
    for word in ("lost", "unanswered", "broken", "late"):
        exits.wire.fault("fra", "open", word)
        opened = await ada.at("ams").open(region="fra")
        await exits.wire.release()  # the one that was late comes after the one that was answered
        await exits.settled()
        live = exits["fra"].exit_.rows("SELECT id FROM sessions WHERE state = 'live'")
        assert live == [(opened["id"],)], word
        await ada.at("ams").delete(opened["id"])
    assert exits.intents() == 0


@pytest.mark.parametrize("words", [("lost", "lost"), ("unanswered", "unanswered"), ("late", "late"), ("late", "gone")])
@pytest.mark.parametrize("restarted", [False, True])
@on_fleet("ams", "fra")
async def test_of_an_opening_that_is_not_answered_nothing_is_left(
    exits: ExitsUnderTest, words: tuple[str, str], restarted: bool
) -> None:
    """The client is told 503; once the exit has answered the abort, nothing is left on any exit or in the ledger."""
    ada = await exits.client()
    before = {name: host.left() for name, host in exits.hosts.items()}
    exits.wire.fault("fra", "open", *words)
    refused(await ada.at("ams").post(region="fra"), 503, FAILED)
    assert exits.intents() == 1
    if restarted:
        await exits["fra"].restart()
        await exits["ams"].restart()
    else:
        await exits.wire.release()
        await exits.settled()
    await exits.carry_out()
    assert exits.intents() == 0
    if not restarted:
        exits.wire.fault("fra", "open", *words)
    await exits.wire.release()  # what comes after its abort is refused
    await exits.settled()
    assert {name: host.left() for name, host in exits.hosts.items()} == before
    assert exits.ledger.held() == {}


@pytest.mark.parametrize("word", ["dies", "hangs"])
@on_fleet("ams", "fra")
async def test_an_exit_that_dies_meanwhile_is_not_asked_again(exits: ExitsUnderTest, word: str) -> None:
    """The client is told which regions there are as soon as that is known, however much patience there is; what the
    exit may have made is undone when it is back."""
    ada = await exits.client()
    exits["ams"].any.elsewhere.placing._patience_s = 3600
    exits.wire.fault("fra", "open", word)
    async with asyncio.timeout(60):
        answer = await ada.at("ams").post(region="fra")
    assert (answer.status_code, answer.json()["available"]) == (503, ["ams"])
    assert [operation for _, operation in exits.wire.calls] == ["open"]
    exits.wire.cut.clear()
    await exits.carry_out()
    assert exits.intents() == 0
    assert exits["fra"].exit_.rows("SELECT id FROM sessions WHERE state = 'live'") == []


@on_fleet("ams", "fra")
async def test_an_abort_that_is_lost_is_asked_again(exits: ExitsUnderTest) -> None:
    """It is kept until the exit has answered it, also across a restart of either, and is harmless twice."""
    ada = await exits.client()
    before = exits["fra"].left()
    exits.wire.fault("fra", "open", "unanswered", "unanswered")
    exits.wire.fault("fra", "abort", "lost", "unanswered")
    refused(await ada.at("ams").post(region="fra"), 503, FAILED)
    for left in (1, 1, 0):
        await exits.carry_out()
        assert exits.intents() == left
        await exits["fra"].restart()
        await exits["ams"].restart()
    assert exits["fra"].left() == before


@on_fleet("ams", "fra")
async def test_an_aborted_replacement_leaves_what_was_there(exits: ExitsUnderTest) -> None:
    """The session whose key was to be taken over is live again, with its peer and its address."""
    ada = await exits.client()
    text, raw = new_key()
    first = await ada.at("ams").open(region="fra", client_public_key=text)
    for restarted in (False, True):
        before = exits["fra"].left()
        exits.wire.fault("fra", "open", "unanswered", "unanswered")
        refused(await ada.at("ams").post(region="fra", client_public_key=text), 503, FAILED)
        assert exits["fra"].exit_.state_of(first["id"]) == ("terminated", "replaced")
        if restarted:
            await exits["fra"].restart()
        await exits.carry_out()
        assert exits["fra"].left() == before
        assert exits["fra"].exit_.state_of(first["id"]) == ("live", None)
        assert raw in exits["fra"].exit_.tunnel.peers
        assert exits.ledger.held()[raw] == first["id"]


@on_fleet("ams", "fra")
async def test_an_op_gives_the_same_answer_after_a_restart(exits: ExitsUnderTest) -> None:
    """An exit that was started again between two requests of one op answers the second as it did the first."""
    ada = await exits.client()
    call, host = exits.wire.call, exits["fra"]
    answers = []

    async def twice(sender: str, node_id: str, operation: str, payload: bytes, timeout_s: float) -> bytes:
        answers.append(await call(sender, node_id, operation, payload, timeout_s))
        await host.restart()
        answers.append(await call(sender, node_id, operation, payload, timeout_s))
        return answers[-1]

    exits.wire.call = twice  # type: ignore[method-assign]
    opened = await ada.at("ams").open(region="fra")
    assert answers[0] == answers[1]
    assert host.exit_.rows("SELECT id, state FROM sessions") == [(opened["id"], "live")]


@pytest.mark.parametrize("step", ["peer", "store"])
@on_fleet("ams", "fra", environ=IMPATIENT)
async def test_an_exit_killed_in_an_opening_leaves_nothing(exits: ExitsUnderTest, step: str) -> None:
    """Killed while its tunnel takes the peer, or before it is stored: the next start and the abort leave nothing."""
    ada, host = await exits.client(), exits["fra"]
    before = host.left()
    tunnel = host.exit_.tunnel
    tunnel.gate.clear()
    asking = asyncio.create_task(ada.at("ams").post(region="fra"))
    await until(lambda: tunnel.waiting, "the peer is being applied")
    host.up = False  # what comes from now on finds nobody
    await host.exit_.store.close()
    if step == "store":
        tunnel.gate.set()
        await until(lambda: not tunnel.waiting, "the peer is there")
    await host.exit_.http.aclose()
    refused(await asking, 503, FAILED)
    tunnel.gate.set()
    await host.start()
    await exits.carry_out()
    assert exits.intents() == 0
    assert host.left() == before


@on_fleet("ams", "fra")
async def test_a_client_that_leaves_is_left_nothing(exits: ExitsUnderTest) -> None:
    """A request that is cancelled while another exit opens its session has that undone."""
    ada, host = await exits.client(), exits["fra"]
    before = host.left()
    host.exit_.tunnel.gate.clear()
    asking = asyncio.create_task(
        exits["ams"].any.sessions.open(Caller.of(ada.account, ada.token), SessionRequest("fra"))
    )
    await until(lambda: host.exit_.tunnel.waiting, "the peer is being applied")
    asking.cancel()
    await asyncio.wait((asking,))
    host.exit_.tunnel.gate.set()
    await until(lambda: exits.intents() == 1, "the abort is kept")
    await exits.carry_out()
    assert exits.intents() == 0
    assert host.left() == before


@on_fleet("ams", "fra", "nyc")
async def test_what_an_exit_lies_is_no_fault_of_an_api_nor_of_another_exits_sessions(exits: ExitsUnderTest) -> None:
    """An exit that is in the wrong hands answers what no API can show, or lists another's session as its own."""
    ada = await exits.client()
    own, other = [(await ada.at("ams").open(region=region))["id"] for region in ("fra", "nyc")]
    answer = exits["fra"].any.owner.answer
    lie: dict[str, object] = {}

    async def lying(sender: str, operation: str, payload: bytes) -> bytes:
        said = msgspec.json.decode(await answer(sender, operation, payload))
        for each in said["result"].get("sessions", [said["result"].get("session", said["result"])]):
            each.update(lie)
        return msgspec.json.encode(said)

    exits["fra"].any.owner.answer = lying  # type: ignore[method-assign]
    lies: list[dict[str, object]] = [{"created_at": 2**60}, {"expires_at": -1}, {"bytes_in": 2**63}]
    for lie in (*lies, {"id": other, "bytes_in": 7}):
        listed = (await ada.at("ams").get("/v1/sessions")).json()["sessions"]
        assert [(each["id"], each["bytes_in"]) for each in listed] == [(other, 0)], lie
        assert (await ada.at("ams").status_answer(own)).status_code in (200, 503), lie
    quota = {"bytes_used": 1, "bytes_limit": 1, "bytes_resets_at": 2**60, "time_used_ms": 0, "seconds_limit": 0}
    failure = {"kind": "QuotaExceeded", "tier": "free", "quota": quota | {"seconds_resets_at": 0}}
    exits["fra"].any.owner.answer = answering({"failure": failure})  # type: ignore[method-assign]
    assert (await ada.at("ams").post(region="fra")).status_code == 503


def answering(reply: object) -> Callable[[str, str, bytes], Coroutine[Any, Any, bytes]]:
    async def answer(_sender: str, _operation: str, _payload: bytes) -> bytes:
        return msgspec.json.encode(reply)

    return answer
