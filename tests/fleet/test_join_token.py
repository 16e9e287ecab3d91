"""What `fleet invite` prints: read back, and one clear error for each kind of mistake."""

from __future__ import annotations

import base64
import ssl

import pytest

from appliance.domain.errors import InvalidRequest
from appliance.fleet.hub.certificates import make_authority
from appliance.fleet.joining.token import JoinToken, decode, encode
from appliance.fleet.link.nkey import NKey

NOW = 1_800_000_000_000
HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def token() -> JoinToken:
    authority = ssl.PEM_cert_to_DER_cert(make_authority("flt_" + "a" * 24, NOW).certificate)
    return JoinToken(
        fleet_id="flt_" + "a" * 24,
        hubs=("198.51.100.1:7422", "[2001:db8::1]:7422"),
        server_name="a" * 24 + ".hub.internal",
        ca=authority,
        seed=NKey.new().seed,
        expires_at=NOW + HOUR_MS,
        role="spoke",
    )


def test_a_token_is_read_back(token: JoinToken) -> None:
    """As it was printed, and as a terminal breaks it: it is one word that a shell takes as it is."""
    text = encode(token)
    assert decode(text, NOW) == token
    assert decode(f" {text[:80]}\n  {text[80:]}\r\n", NOW) == token
    assert text.startswith("wgj1.")
    assert all(character.isalnum() or character in "._-" for character in text)
    assert len(text) < 1000


@pytest.mark.parametrize(
    "text", ["", "wga_0123456789abcdef", "wgj1", "wgj.abc", "nod_abc", "https://example.com", "wgj1;rm", "\0", "wgj²."]
)
def test_what_is_no_token_is_called_that(text: str) -> None:
    """An API token above all, which looks alike."""
    with pytest.raises(InvalidRequest, match=r'this is no join token: one begins with "wgj1."; make another'):
        decode(text, NOW)


def test_a_token_cut_anywhere_is_called_cut_off(token: JoinToken) -> None:
    """After the first character of it and before the last."""
    text = encode(token)
    for end in range(len("wgj1."), len(text)):
        with pytest.raises(InvalidRequest, match="is cut off"):
            decode(text[:end], NOW)


def test_a_token_with_a_wrong_character_is_called_changed(token: JoinToken) -> None:
    """Wherever it is, and whatever: nothing is dialled that the token does not say."""
    text = encode(token)
    for at in range(len("wgj1.") + 3, len(text)):
        other = "A" if text[at] != "A" else "B"
        with pytest.raises(InvalidRequest, match=r"changed on the way|cut off"):
            decode(text[:at] + other + text[at + 1 :], NOW)
    for changed in (text + "AAAA", text[:20] + "!" + text[21:], text + "ü"):
        with pytest.raises(InvalidRequest, match="changed on the way"):
            decode(changed, NOW)


def test_another_version_s_token_is_called_that(token: JoinToken) -> None:
    """With the versions' names, and what to do."""
    with pytest.raises(InvalidRequest, match=r'another version of wg-appliance \("wgj2.", here "wgj1."\): bring both'):
        decode(encode(token).replace("wgj1", "wgj2", 1), NOW)


def test_an_expired_token_says_when_and_by_which_clock(token: JoinToken) -> None:
    """A clock that is ahead looks the same."""
    assert decode(encode(token), NOW + HOUR_MS - 1) == token
    with pytest.raises(InvalidRequest, match=r"expired at 2027-01-15T09:00:00Z; this host's clock says 2027-01-15T09:"):
        decode(encode(token), NOW + HOUR_MS)


def test_a_whole_text_of_something_else_is_refused() -> None:
    """Its checksum is right, and its content no token."""
    import hashlib

    packed = b"\x93\x01\x02\x03"
    content = len(packed).to_bytes(2, "big") + packed
    text = base64.urlsafe_b64encode(content + hashlib.sha256(content).digest()[:4]).decode().rstrip("=")
    with pytest.raises(InvalidRequest, match="changed on the way"):
        decode(f"wgj1.{text}", NOW)


def test_the_seed_is_not_shown(token: JoinToken) -> None:
    """In a log or a traceback."""
    assert token.seed not in repr(token)
