"""NKEYs are written as NATS writes them; that nats-server takes them is shown in tests/fleet."""

from __future__ import annotations

import pytest
from nacl.signing import VerifyKey

from appliance.fleet.link.nkey import NKey, check_public

# Made with nkeys 0.2.1 (https://pypi.org/project/nkeys/) from 32 zero bytes.
ZERO_SEED = "SUAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAEQ"
ZERO_PUBLIC = "UA5WUJ54Z23KILLCUOUNAKTPBVZWKMQVO4O6EQ5GHLAERIMLLHNCTYM5"


def test_the_text_is_that_of_the_reference() -> None:
    key = NKey(bytes(32))
    assert (key.seed, key.public) == (ZERO_SEED, ZERO_PUBLIC)
    assert NKey.from_seed(ZERO_SEED).public == ZERO_PUBLIC
    check_public(ZERO_PUBLIC)


def test_a_new_key_signs_what_its_public_key_verifies() -> None:
    one, other = NKey.new(), NKey.new()
    assert one.public != other.public
    read = NKey.from_seed(one.seed)
    VerifyKey(bytes(one._key.verify_key)).verify(b"nonce", read.sign(b"nonce"))


def test_no_secret_is_shown() -> None:
    key = NKey.new()
    assert key.seed not in f"{key!r} {key}"
    assert key.public in repr(key)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "checksum"),
        ("S", "not base32"),
        (ZERO_SEED.lower(), "not base32"),
        (ZERO_SEED[:-1] + "A", "checksum"),
        (ZERO_PUBLIC, "not a user's key"),
    ],
)
def test_what_is_not_a_seed_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        NKey.from_seed(text)
    if text != ZERO_PUBLIC:
        with pytest.raises(ValueError, match=said):
            check_public(text)
