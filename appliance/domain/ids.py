"""Ids and secrets: random, URL-safe, told apart by their prefix."""

from __future__ import annotations

import hashlib
import secrets

SESSION_PREFIX = "ses_"
DEVICE_PREFIX = "dev_"
MARK_LENGTH = 8  # hexadecimal digits: of 64 random bits that are left, a guess finds none
ID_SIZE = 12  # bytes of a session's id and of a device's: 96 bits
TOKEN_ID_PREFIX = "tok_"  # noqa: S105 (as below)
LAST_CHARACTER = "\U0010ffff"  # SQLite compares text as UTF-8: nothing that follows a start comes after start + this
TOKEN_PREFIX = "wga_"  # noqa: S105 (a prefix, not a secret)
TEMPORARY_PREFIX = "acc_selftest_"  # no account_id() begins like this: what follows there is hexadecimal


def session_id(mark: str = "") -> str:
    """Makes a session's id. `mark`: what it ends in, the mark of its exit in a fleet."""
    return SESSION_PREFIX + _random(mark)


def device_id(mark: str = "") -> str:
    """Makes a device's id, likewise."""
    return DEVICE_PREFIX + _random(mark)


def _random(mark: str) -> str:
    return secrets.token_hex(ID_SIZE - len(mark) // 2) + mark


def mark_of_node(node_id: str) -> str:
    """Returns what the ids end in that an exit of a fleet makes: it tells whose they are."""
    return hashlib.sha256(node_id.encode()).hexdigest()[:MARK_LENGTH]


def mark_of(id_: str) -> str:
    """Returns the end of a session's or device's id: its exit's mark, or chance if it is older than the fleet."""
    return id_[-MARK_LENGTH:]


def account_id() -> str:
    return f"acc_{secrets.token_hex(12)}"


def temporary_account_id() -> str:
    return f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"


def token_id() -> str:
    return TOKEN_ID_PREFIX + secrets.token_hex(8)


def token_secret() -> str:
    return TOKEN_PREFIX + secrets.token_hex(24)  # 192 bits


def token_hash(token: str) -> bytes:
    """Hashes a token for the store: 32 bytes. A guess costs 2^191 tries, so a slow hash would add no protection."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def as_bytes(id_: str, prefix: str) -> tuple[bytes, bool]:
    """Returns what stands for an id in memory, and whether the id follows from it: a hash stands for any other text."""
    text = id_[len(prefix) :]
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    # It also reads capital letters, and skips spaces.
    if len(found) == ID_SIZE and found.hex() == text and id_.startswith(prefix):
        return found, True
    return hashlib.blake2b(id_.encode("utf-8", "surrogatepass"), digest_size=ID_SIZE).digest(), False


def beginning(start: str, prefix: str) -> dict[str, object]:
    """Returns two ranges of ids, from `a` up to before `b` and from `c` to `d`: those that begin with `start`, and with
    `prefix` and `start`."""
    full = prefix + start
    return {"a": start, "b": start + LAST_CHARACTER, "c": full, "d": full + LAST_CHARACTER}
