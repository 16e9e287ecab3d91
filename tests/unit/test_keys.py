"""Keys: one spelling, 32 bytes, and none that gives everybody the same secret."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from appliance.domain.errors import InvalidRequest
from appliance.network.wireguard import keys

P = 2**255 - 19
BIT_255 = 1 << 255


@given(st.binary(min_size=32, max_size=32))
def test_every_key_reads_back_from_its_spelling(raw: bytes) -> None:
    """Every 32 bytes have one spelling of 44 characters, which reads back."""
    text = keys.encode(raw)
    assert len(text) == keys.TEXT_LENGTH
    assert keys.parse_public_key(text, "key") == raw


@given(st.text(max_size=50))
def test_a_text_that_is_no_key_is_refused_by_field(text: str) -> None:
    """A text that is accepted is exactly the spelling of what it gives; all else is refused, naming the field."""
    try:
        canonical = len(base64.b64decode(text)) == 32 and base64.b64encode(base64.b64decode(text)).decode() == text
    except ValueError:
        canonical = False
    if canonical:
        assert keys.encode(keys.parse_public_key(text, "the_field")) == text
    else:
        with pytest.raises(InvalidRequest, match=r"^the_field must be"):
            keys.parse_public_key(text, "the_field")


@pytest.mark.parametrize("value", [None, 7, 1.5, True, [], {}, b"A" * 44])
def test_what_is_no_text_is_no_key(value: object) -> None:
    """What is no text is no key."""
    with pytest.raises(InvalidRequest, match="key must be"):
        keys.parse_public_key(value, "key")


@pytest.mark.parametrize("character", list("ABCDEFGHIJKLMNOP"))
def test_only_the_canonical_spelling_is_accepted(character: str) -> None:
    """Of the spellings that decode to the same 32 bytes only the canonical one is accepted."""
    text = "A" * 42 + character + "="
    if character in "AEIM":
        assert len(keys.parse_public_key(text, "key")) == 32
    else:
        with pytest.raises(InvalidRequest):
            keys.parse_public_key(text, "key")


def exchange_refused(point: bytes) -> bool:
    """Whether OpenSSL finds the shared secret to be zero, as it is for every private key with such a point."""
    try:
        X25519PrivateKey.from_private_bytes(b"\x55" * 32).exchange(X25519PublicKey.from_public_bytes(point))
    except ValueError:
        return True
    return False


def points() -> list[bytes]:
    """Every u that could be of low order by its spelling, its neighbours, and each with bit 255 set."""
    near = {int.from_bytes(point, "little") + d for point in keys.LOW_ORDER for d in range(-20, 21)}
    near |= {*range(40), *range(2**255 - 40, 2**255)}
    plain = [u for u in near if 0 <= u < 2**255]
    return [u.to_bytes(32, "little") for u in (*plain, *(u | BIT_255 for u in plain))]


def test_low_order_is_what_an_exchange_refuses() -> None:
    """The table and OpenSSL agree on every point around those of low order."""
    found = {point for point in points() if exchange_refused(point)}
    assert {point for point in points() if refused(point)} == found
    assert len(found) == 2 * len(keys.LOW_ORDER) == 14


def refused(point: bytes) -> bool:
    try:
        keys.refuse_weak(point, "key")
    except InvalidRequest:
        return True
    return False


def test_the_exits_own_key_is_refused() -> None:
    """The exit's own key is refused, others pass."""
    own, other = (keys.public_key(keys.generate_private_key()) for _ in range(2))
    with pytest.raises(InvalidRequest, match="key is the server's own key"):
        keys.refuse_weak(own, "key", {own})
    keys.refuse_weak(other, "key", {own})


def test_the_public_key_is_that_of_rfc_7748() -> None:
    """The public key of RFC 7748, section 6.1; each generated key is another."""
    alice = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    public = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    assert keys.public_key(alice) == public
    assert len({keys.generate_private_key() for _ in range(20)}) == 20
