"""GET, DELETE and the list of sessions; regions and health."""

from __future__ import annotations

import asyncio

import pytest

from appliance.domain.clock import rfc3339
from tests.support.api.answers import refused
from tests.support.api.exit_under_test import IMPATIENT, ExitUnderTest, on_exit, until

ALWAYS = {"id", "tier", "region", "public_ip", "created_at", "expires_at", "bytes_in", "bytes_out", "seconds"} | {
    f"quota_{what}_{which}" for what in ("bytes", "seconds") for which in ("used", "limit")
}
ENDED = {"terminated_at", "terminated_reason"}


@on_exit()
async def test_a_live_session_has_the_contracts_fields(exit_: ExitUnderTest) -> None:
    """A live session: no end, and no handshake before the first; times are RFC 3339 in UTC with a Z."""
    ada = await exit_.client()
    created = rfc3339(exit_.clock.wall_ms)
    opened = await ada.open()
    status = await ada.status(opened["id"])
    assert status.keys() == ALWAYS
    assert status["created_at"] == created == "2026-09-21T14:20:00Z"
    assert (status["tier"], status["region"], status["public_ip"]) == ("paid", "fsn", "192.0.2.1")
    assert (status["bytes_in"], status["bytes_out"], status["seconds"]) == (0, 0, 0)


@on_exit()
async def test_tier_as_at_creation(exit_: ExitUnderTest) -> None:
    """An account that changes its tier does not change its sessions'."""
    ada = await exit_.client()
    opened = await ada.open()
    await exit_.admin("UPDATE accounts SET tier = 'free'")
    await exit_.tick()
    assert (await ada.status(opened["id"]))["tier"] == "paid"
    assert (await ada.open())["tier"] == "free"


@on_exit()
async def test_another_accounts_session_is_as_unknown(exit_: ExitUnderTest) -> None:
    """Another account's session, an unknown id and nonsense are not told apart."""
    ada, eve = await exit_.client(), await exit_.client("eve")
    opened = await ada.open()
    before = exit_.holdings()
    for session_id in (opened["id"], "ses_" + "0" * 24, "ses_", "x", "%00", "ses_%ff", "' OR 1=1 --", "é", "a" * 5000):
        refused(await eve.status_answer(session_id), 404, "session not found")
        refused(await eve.delete(session_id), 404, "session not found")
    assert exit_.holdings() == before
    assert (await eve.get("/v1/sessions")).json() == {"sessions": []}


@on_exit()
async def test_a_pending_session_is_invisible(exit_: ExitUnderTest) -> None:
    """A session that may not come to be is nowhere yet: neither listed nor stored."""
    ada = await exit_.client()
    exit_.tunnel.gate.clear()
    asking = asyncio.create_task(ada.post())
    await until(lambda: exit_.tunnel.waiting, "the request waits at the tunnel")
    assert (await ada.get("/v1/sessions")).json() == {"sessions": []}
    assert (await ada.get("/v1/sessions", live="true")).json() == {"sessions": []}
    assert exit_.rows("SELECT id FROM sessions") == []
    exit_.tunnel.gate.set()
    assert (await asking).status_code == 201


@on_exit()
async def test_delete_answers_with_the_final_figures(exit_: ExitUnderTest) -> None:
    """It answers as GET does, with the final figures: what moved since the last tick is in them; the peer is gone."""
    ada = await exit_.client()
    opened = await ada.open()
    raw = exit_.key_of(opened["id"])
    exit_.tunnel.add_traffic(raw, rx=120, tx=340, handshake_ns=exit_.clock.wall_ms * 10**6)
    exit_.clock.advance(3)
    answer = await ada.delete(opened["id"])
    ended = answer.json()
    assert answer.status_code == 200
    assert not exit_.tunnel.peers
    assert ended.keys() == ALWAYS | ENDED | {"last_handshake_at"}
    assert (ended["bytes_in"], ended["bytes_out"], ended["terminated_reason"]) == (120, 340, "closed")
    assert ended["terminated_at"] == rfc3339(exit_.clock.wall_ms)
    assert ended["last_handshake_at"] == rfc3339(exit_.clock.wall_ms - 3000)
    await exit_.tick(after=1000)
    assert (await ada.delete(opened["id"])).json() == ended
    assert await ada.status(opened["id"]) == ended


@on_exit()
async def test_delete_keeps_the_reason(exit_: ExitUnderTest) -> None:
    """Ending what has ended changes nothing, whatever it ended of."""
    ada = await exit_.client()
    opened = await ada.open()
    await exit_.tick(after=301)
    ended = await ada.status(opened["id"])
    assert ended["terminated_reason"] == "idle"
    assert (await ada.delete(opened["id"])).json() == ended


@on_exit()
async def test_the_list_is_newest_first(exit_: ExitUnderTest) -> None:
    """Newest first, each as GET answers it; `live` leaves out what has ended."""
    ada = await exit_.client()
    ids = [(await ada.open())["id"] for _ in range(4)]
    await ada.delete(ids[1])
    found = (await ada.get("/v1/sessions")).json()
    assert found == {"sessions": [await ada.status(i) for i in reversed(ids)]}
    live = (await ada.get("/v1/sessions", live="true")).json()["sessions"]
    assert [s["id"] for s in live] == [ids[3], ids[2], ids[0]]
    assert (await ada.get("/v1/sessions", live="false")).json() == found


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 200])
@on_exit()
async def test_paging_gives_each_session_once(exit_: ExitUnderTest, limit: int) -> None:
    """Page by page all sessions come once, in order, also when some end in between."""
    ada = await exit_.client()
    ids = [(await ada.open())["id"] for _ in range(7)]
    seen: list[str] = []
    for _ in range(10):
        more = {"before": seen[-1]} if seen else {}
        page = (await ada.get("/v1/sessions", limit=str(limit), **more)).json()["sessions"]
        if not page:
            break
        assert len(page) <= limit
        seen += [s["id"] for s in page]
        await ada.delete(seen[-1])
    assert seen == ids[::-1]


@on_exit()
async def test_a_page_has_fifty_sessions_unless_asked_otherwise(exit_: ExitUnderTest) -> None:
    """Fifty a page unless asked otherwise, two hundred at most."""
    ada = await exit_.client()
    for _ in range(51):
        await ada.open()
    assert len((await ada.get("/v1/sessions")).json()["sessions"]) == 50
    assert len((await ada.get("/v1/sessions", limit="200")).json()["sessions"]) == 51


BAD_QUERIES = [
    *(("limit", value) for value in ("0", "-1", "201", "1000", "", "x", "1.0", "+5", " 5", "05", "\u0665", "1e2")),
    *(("live", value) for value in ("", "1", "yes", "True", "TRUE", "null")),
    *(("before", value) for value in ("", "x", "ses_", "ses_" + "0" * 24, "ses_" + "A" * 24, "ses_\0")),
]


@pytest.mark.parametrize(("name", "value"), BAD_QUERIES, ids=ascii)
@on_exit()
async def test_a_bad_parameter_is_400_and_named(exit_: ExitUnderTest, name: str, value: str) -> None:
    """Any other value of a parameter is 400 and names it."""
    ada = await exit_.client()
    answer = await ada.get("/v1/sessions", **{name: value})
    refused(answer, 400)
    assert name in answer.json()["error"]


@pytest.mark.parametrize("query", ["limit=1&limit=2", "limit=1&live=true&limit=1", "live=true&live=true"])
@on_exit()
async def test_a_parameter_given_twice_is_400(exit_: ExitUnderTest, query: str) -> None:
    """A parameter that is given twice is 400 and named; an unknown one is ignored however often it comes."""
    ada = await exit_.client()
    name = query.partition("=")[0]
    answer = await exit_.http.get(f"/v1/sessions?{query}", headers=ada.headers)
    refused(answer, 400, f"{name} must be given once")
    assert (await exit_.http.get("/v1/sessions?limit=1&x=1&x=2", headers=ada.headers)).status_code == 200


@on_exit()
async def test_another_accounts_id_is_no_place_to_page_from(exit_: ExitUnderTest) -> None:
    """Another account's id is no place to page from."""
    ada, eve = await exit_.client(), await exit_.client("eve")
    opened = await ada.open()
    refused(await eve.get("/v1/sessions", before=opened["id"]), 400, "before must be the id of a session")


@on_exit()
async def test_regions_are_public_and_leave_out_drained_exits(exit_: ExitUnderTest) -> None:
    """Public; a drained exit's region is left out, and the sessions there are go on."""
    ada = await exit_.client()
    opened = await ada.open()
    assert (await exit_.http.get("/v1/regions")).json() == {"regions": [{"code": "fsn", "node_count": 1}]}
    await exit_.admin("UPDATE node SET drained = 1")
    await exit_.tick()
    assert (await exit_.http.get("/v1/regions")).json() == {"regions": []}
    refused(await ada.post(), 503, "no active nodes")
    assert "terminated_at" not in await ada.status(opened["id"])
    await exit_.admin("UPDATE node SET drained = 0")
    await exit_.tick()
    await ada.open()


@on_exit()
async def test_readyz_tells_what_is_wrong_with_the_exits_fleet(exit_: ExitUnderTest) -> None:
    """That another machine has its id; the exit itself works, and opens sessions."""
    offered = exit_.parts.services.offered
    offered.fault = lambda: "two machines are nod_1"
    refused(await exit_.http.get("/readyz"), 503, "two machines are nod_1")
    await (await exit_.client()).open()
    offered.fault = lambda: None
    assert (await exit_.http.get("/readyz")).status_code == 200


@on_exit(environ=IMPATIENT)
async def test_readyz_looks_for_itself_once_a_second(exit_: ExitUnderTest) -> None:
    """/readyz looks for itself, once a second at most; /healthz says only that the process serves."""
    assert (await exit_.http.get("/readyz")).status_code == 200
    exit_.tunnel.vanish()
    assert (await exit_.http.get("/readyz")).status_code == 200
    exit_.clock.advance(1)
    refused(await exit_.http.get("/readyz"), 503, "the WireGuard interface is gone")
    assert (await exit_.http.get("/healthz")).json() == {"status": "ok"}
    exit_.tunnel.gate.clear()
    exit_.clock.advance(1)
    refused(await exit_.http.get("/readyz"), 503, "no answer from the kernel tunnel within 1 s")
    exit_.tunnel.gate.set()
    await exit_.tick(after=1)
    assert (await exit_.http.get("/readyz")).status_code == 200


@on_exit()
async def test_a_damaged_store_is_503(exit_: ExitUnderTest) -> None:
    """A store that is damaged under the running exit: 503 to whoever needs it and, once a tick has met it, to all."""
    ada = await exit_.client()
    opened = await ada.open()
    ended = await ada.open()
    await ada.delete(ended["id"])
    damage(exit_, "sessions")
    await exit_.admin("UPDATE node SET drained = 0")
    refused(await ada.status_answer(ended["id"]), 503, "store unavailable")
    refused(await ada.post(), 503, "store unavailable")
    assert (await ada.status(opened["id"]))["id"] == opened["id"]
    await exit_.tick(after=10)
    refused(await ada.status_answer(opened["id"]), 503, "store unavailable")
    refused(await exit_.http.get("/readyz"), 503, "store unavailable: database disk image is malformed")


def damage(exit_: ExitUnderTest, table: str) -> None:
    """Overwrite a table's first page in the file, as a bad disk would."""
    exit_.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    ((page,),) = exit_.rows("SELECT rootpage FROM sqlite_schema WHERE name = ?", table)
    ((size,),) = exit_.rows("PRAGMA page_size")
    with exit_.path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
