"""Ids and secrets: random, URL-safe, told apart by their prefix."""

from __future__ import annotations

import hashlib
import secrets

SESSION_PREFIX = "ses_"
DEVICE_PREFIX = "dev_"
ID_SIZE = 12  # bytes of a session's id and of a device's: 96 bits
TOKEN_ID_PREFIX = "tok_"  # noqa: S105 (as below)
LAST_CHARACTER = "\U0010ffff"  # SQLite compares text as UTF-8: nothing that follows a start comes after start + this
TOKEN_PREFIX = "wga_"  # noqa: S105 (a prefix, not a secret)
TEMPORARY_PREFIX = "acc_selftest_"  # no account_id() begins like this: what follows there is hexadecimal


def session_id() -> str:
    return SESSION_PREFIX + secrets.token_hex(ID_SIZE)


def device_id() -> str:
    return DEVICE_PREFIX + secrets.token_hex(ID_SIZE)


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
