"""POST /v1/sessions refused: the exact answer, and nothing left behind."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest

from appliance.domain.tiers import Tier
from appliance.network.wireguard import keys
from tests.support.api.answers import refused
from tests.support.api.exit_under_test import SERVER_KEY, UNHURRIED, ExitUnderTest, new_key, on_exit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# The same in every process: tests are named after it.
A_RAW = keys.public_key(bytes(range(32)))
A_KEY = keys.encode(A_RAW)
REGION_RULE = "region must match ^[a-z0-9][a-z0-9-]{0,31}$"
KEY_RULE = "client_public_key must be a WireGuard public key: base64 of 32 bytes, 44 characters"


def unpadded(key: str) -> str:
    return key.rstrip("=")


BODIES = {
    "empty": b"",
    "blank": b" \n",
    "words": b"region=fsn",
    "array": b"[]",
    "string": b'"fsn"',
    "number": b"7",
    "null": b"null",
    "true": b"true",
    "cut short": b'{"region": "fsn"',
    "more after it": b'{"region": "fsn"} x',
    "single quotes": b"{'region': 'fsn'}",
    "trailing comma": b'{"region": "fsn",}',
    "byte order mark": b'\xef\xbb\xbf{"region": "fsn"}',
    "not UTF-8": b'{"region": "\xff"}',
    "UTF-16": '{"region": "fsn"}'.encode("utf-16"),
    "half a surrogate pair": b'{"region": "\\ud800"}',
    "NaN": b'{"region": NaN}',
    "deep arrays": b"[" * 60_000,
    "deep objects": b'{"a":' * 12_000,
    "deep in an unknown field": b'{"region":"fsn","x":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
@on_exit()
async def test_a_body_that_is_no_object_is_invalid_json(exit_: ExitUnderTest, body: bytes) -> None:
    """A body that is no JSON object is `invalid json`."""
    ada = await exit_.client()
    before = exit_.holdings()
    refused(await exit_.http.post("/v1/sessions", content=body, headers=ada.headers), 400, "invalid json")
    assert exit_.holdings() == before


FIELDS: dict[str, tuple[dict[str, object], str]] = {
    "no region": ({}, "region is required"),
    "null region": ({"region": None}, "region is required"),
    **{
        f"region {value!r:.40}": ({"region": value}, REGION_RULE)
        for value in (
            "",
            "a" * 33,
            "FSN",
            "Fsn",
            "-fsn",
            "f sn",
            "fsn\n",
            "\nfsn",
            "fsn\0",
            "fs\0n",
            "fsń",
            "fs\uff4e",
            "f_n",
        )
    },
    **{
        f"region {value!r}": ({"region": value}, REGION_RULE)
        for value in (1, True, 1.5, 10**400, ["fsn"], {"code": "fsn"})
    },
    **{
        f"ipv6 {value!r}": ({"region": "fsn", "ipv6": value}, "ipv6 must be true or false")
        for value in (0, 1, "true", "", [], {})
    },
    **{
        f"key {value!r:.60}": ({"region": "fsn", "client_public_key": value}, KEY_RULE)
        for value in (
            *("", " ", 7, True, [], {}, A_KEY[:40], A_KEY[:-1], A_KEY + "=", A_KEY * 2, unpadded(A_KEY), A_RAW.hex()),
            *(f" {A_KEY}", f"{A_KEY}\n", A_KEY[:20] + "\n" + A_KEY[20:], A_KEY[:20] + "\n" + A_KEY[21:]),
            *(A_KEY[:20] + " " + A_KEY[21:], A_KEY[:20] + "=" + A_KEY[21:], A_KEY[:20] + "é" + A_KEY[21:]),
            *(
                A_KEY[:20] + "\0" + A_KEY[21:],
                base64.b64encode(A_RAW[:31]).decode(),
                base64.b64encode(bytes(33)).decode(),
            ),
            base64.urlsafe_b64encode(b"\xfb\xff" * 16).decode(),
            # The last character's two lowest bits say nothing: "A" and "B" before the "=" decode alike.
            base64.b64encode(b"\x42" * 32).decode()[:-2] + "J=",
        )
    },
    "key all zero": ({"region": "fsn", "client_public_key": keys.encode(bytes(32))}, "client_public_key is all zero"),
    "the server's key": (
        {"region": "fsn", "client_public_key": keys.encode(keys.public_key(SERVER_KEY))},
        "client_public_key is the server's own key",
    ),
    **{
        f"low order {point.hex()}{'' if low else ' with bit 255'}": (
            {
                "region": "fsn",
                "client_public_key": keys.encode(point if low else point[:31] + bytes([point[31] | 0x80])),
            },
            "client_public_key is a low-order point",
        )
        for point in sorted(keys.LOW_ORDER)
        for low in (True, False)
        if any(point) or not low
    },
}


@pytest.mark.parametrize(("body", "message"), FIELDS.values(), ids=map(ascii, FIELDS))
@on_exit()
async def test_a_bad_field_is_named(exit_: ExitUnderTest, body: dict[str, object], message: str) -> None:
    """A field at fault is named, with what is expected of it."""
    ada = await exit_.client()
    before = exit_.holdings()
    refused(await ada.post(body), 400, message)
    assert exit_.holdings() == before


@on_exit()
async def test_a_good_field_is_not_refused(exit_: ExitUnderTest) -> None:
    """What the table above refuses is not refused in its plain form: the longest region is only unknown."""
    ada = await exit_.client()
    assert (await ada.post({"region": "fsn", "client_public_key": A_KEY, "ipv6": None})).status_code == 201
    for region in ("a" * 32, "0", "a-", "9-9"):
        refused(await ada.post({"region": region}), 503, f"no active node in region {region}", available=["fsn"])


@pytest.mark.parametrize("how", ["announced", "chunked"])
@on_exit()
async def test_a_large_body_is_413(exit_: ExitUnderTest, how: str) -> None:
    """A body past max_body is 413, whether its length is announced or not; one of that size is read."""
    ada = await exit_.client()
    before = exit_.holdings()

    async def chunks(total: int) -> AsyncIterator[bytes]:
        for _ in range(total // 4096):
            yield b" " * 4096

    def body(total: int) -> Any:
        return b" " * total if how == "announced" else chunks(total)

    refused(await exit_.http.post("/v1/sessions", content=body(1024 * 1024), headers=ada.headers), 413)
    refused(await exit_.http.post("/v1/sessions", content=body(64 * 1024 + 4096), headers=ada.headers), 413)
    refused(await exit_.http.post("/v1/sessions", content=body(64 * 1024), headers=ada.headers), 400, "invalid json")
    assert exit_.holdings() == before


MISSING: tuple[bytes | None, ...] = (
    None,
    b"",
    b"Bearer",
    b"Bearer ",
    b"Bearer   ",
    b"Basic YTpi",
    b"wga_1",
    b"Bearerwga_1",
)
INVALID = (
    b"Bearer wga_1",
    b"Bearer a b",
    b"Bearer \xff\xfe",
    b"Bearer \xc3\xa9",
    b"Bearer " + b"x" * 5000,
    b"BEARER x",
)


@pytest.mark.parametrize("header", [*MISSING, *INVALID], ids=lambda h: repr(h)[:30])
@pytest.mark.parametrize("method", ["POST", "GET"])
@on_exit()
async def test_a_missing_token_is_401_before_all_else(exit_: ExitUnderTest, method: str, header: bytes | None) -> None:
    """No bearer token, or one that is unknown: 401, before anything else is looked at."""
    before = exit_.holdings()
    headers = {} if header is None else {b"Authorization": header}
    answer = await exit_.http.request(method, "/v1/sessions", content=b"x" * 2_000_000, headers=headers)
    refused(answer, 401, "missing token" if header in MISSING else "invalid token")
    assert exit_.holdings() == before


@pytest.mark.parametrize("beside", ["Bearer wga_1", "Basic YTpi", "", "itself"])
@on_exit()
async def test_two_tokens_are_401(exit_: ExitUnderTest, beside: str) -> None:
    """Which of two would count is nobody's guess: 401, in either order, also where both are the same."""
    ada = await exit_.client()
    (good,) = ada.headers.values()
    for values in ((good, beside), (beside, good)):
        headers = [("Authorization", good if value == "itself" else value) for value in values]
        answer = await exit_.http.get("/v1/usage", headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"] in ("missing token", "invalid token")


@on_exit(UNHURRIED)
async def test_token_that_counts_no_more(exit_: ExitUnderTest) -> None:
    """Expired: 401 at once. Revoked, of a disabled or deleted account: when the server has noticed. On every path."""
    ada = await exit_.client()
    opened = await ada.open()
    ada.token = await exit_.token(ada.account, expires_at=exit_.clock.wall_ms + 1000)
    assert (await ada.get("/v1/sessions")).status_code == 200
    exit_.clock.advance(1)
    refused(await ada.get("/v1/sessions"), 401, "invalid token")
    await exit_.admin("UPDATE tokens SET expires_at = NULL")
    assert (await ada.status(opened["id"]))["id"] == opened["id"]
    for change in (
        "UPDATE tokens SET revoked_at = 1",
        "UPDATE tokens SET revoked_at = NULL; UPDATE accounts SET disabled = 1",
        "UPDATE accounts SET disabled = 0, deleted_at = 1",
    ):
        for statement in change.split(";"):
            await exit_.admin(statement)
        await exit_.tick()
        for answer in (await ada.post(), await ada.status_answer(opened["id"]), await ada.delete(opened["id"])):
            refused(answer, 401, "invalid token")
    await exit_.admin("UPDATE accounts SET deleted_at = NULL")
    assert (await ada.get("/v1/sessions")).status_code == 200


@on_exit('subnet = "10.101.0.0/29"\n[tiers.free]\nmax_live_sessions = 1\n')
async def test_checks_are_made_in_order(exit_: ExitUnderTest) -> None:
    """401 comes before 400, that before 403, that before 503."""
    ada, eve = await exit_.client(tier=Tier.FREE), await exit_.client("eve", Tier.FREE)
    text, _ = new_key()
    await ada.open(client_public_key=text)
    await eve.open()
    await exit_.admin("UPDATE node SET drained = 1")
    await exit_.tick()
    before = exit_.holdings()
    refused(await exit_.http.post("/v1/sessions", content=b"nonsense"), 401, "missing token")
    refused(await eve.post({"region": "nowhere", "ipv6": 7}), 400, "ipv6 must be true or false")
    refused(await eve.post(client_public_key=text), 400, "client_public_key is in use by another account")
    refused(await eve.post({"region": "nowhere"}), 403, "live session limit reached")
    bob = await exit_.client("bob", Tier.FREE)
    refused(await bob.post({"region": "nowhere"}), 503, "no active nodes")
    assert exit_.holdings() == before


@on_exit()
async def test_key_of_another_account(exit_: ExitUnderTest) -> None:
    """A key that is live on another account's session is refused, and free again once that has ended."""
    ada, eve = await exit_.client(), await exit_.client("eve")
    text, raw = new_key()
    opened = await ada.open(client_public_key=text)
    before = exit_.holdings()
    refused(await eve.post(client_public_key=text), 400, "client_public_key is in use by another account")
    assert exit_.holdings() == before
    await ada.delete(opened["id"])
    await eve.open(client_public_key=text)
    assert set(exit_.tunnel.peers) == {raw}
