"""Encodes and decodes what `fleet invite` prints and `node join` takes. Pure.

    wgj1.BASE64URL        of: length (2 bytes), MessagePack of the token, checksum (4 bytes)

It has the fleet's authority itself, not its fingerprint: a hub sends its own certificate alone, which proves nothing
before the authority is there. The seed is the secret; whoever holds it can join once, until the token expires.
"""

from __future__ import annotations

import base64
import hashlib
import re

import msgspec

from appliance.domain.clock import rfc3339
from appliance.domain.errors import InvalidRequest
from appliance.fleet.membership.members import Role  # noqa: TC001 (msgspec reads it)

VERSION = "wgj1"
LENGTH_SIZE, CHECKSUM_SIZE = 2, 4
ANY_VERSION = re.compile(r"wgj\d+\.", re.ASCII)
MAKE_ANOTHER = "make another one on a hub: wg-appliance fleet invite"


class JoinToken(msgspec.Struct, frozen=True, array_like=True):
    """Holds an invitation. `hubs`: addresses, as HOST:PORT. `seed`: of the invitation's NKEY.

    `ca`: DER; two certificates, one behind the other, while one authority follows another.
    """

    fleet_id: str
    hubs: tuple[str, ...]
    server_name: str
    ca: bytes
    seed: str
    expires_at: int  # ms since the epoch, by the hub's clock
    role: Role

    def __repr__(self) -> str:
        return f"JoinToken({self.fleet_id!r}, {self.hubs!r})"


def encode(token: JoinToken) -> str:
    packed = msgspec.msgpack.encode(token)
    content = len(packed).to_bytes(LENGTH_SIZE, "big") + packed
    text = base64.urlsafe_b64encode(content + _checksum(content)).decode("ascii").rstrip("=")
    return f"{VERSION}.{text}"


def is_of_hub(text: str) -> bool:
    """Tells whether it invites a hub, expired or not; False for what is no token."""
    try:
        return decode(text, 0).role == "hub"
    except InvalidRequest:
        return False


def decode(text: str, now: int) -> JoinToken:
    """Returns the token. White space in it is ignored: terminals break long lines.

    Raises InvalidRequest that says which kind of mistake it is.
    """
    text = "".join(text.split())
    version = ANY_VERSION.match(text)
    if version is None:
        raise InvalidRequest(f'this is no join token: one begins with "{VERSION}."; {MAKE_ANOTHER}')
    if version[0] != f"{VERSION}.":
        raise InvalidRequest(
            f'this join token was made by another version of wg-appliance ("{version[0]}", here "{VERSION}."): '
            "bring both hosts to the same one (wg-appliance upgrade)"
        )
    token = _unpacked(text[len(version[0]) :])
    if now >= token.expires_at:
        raise InvalidRequest(
            f"this join token expired at {rfc3339(token.expires_at)}; this host's clock says {rfc3339(now)}: "
            f"if the clock is right, {MAKE_ANOTHER}"
        )
    return token


def _unpacked(text: str) -> JoinToken:
    try:
        # b64decode skips what is no base64 unless it is told not to.
        content = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        # One character more than whole bytes have: the text was cut there.
        cut_off = re.fullmatch(r"[A-Za-z0-9_-]*", text) is not None
        raise _cut_off() if cut_off else _mistyped() from None
    size = LENGTH_SIZE + int.from_bytes(content[:LENGTH_SIZE], "big") + CHECKSUM_SIZE
    if len(content) < max(size, LENGTH_SIZE + CHECKSUM_SIZE):
        raise _cut_off()
    # Some bits of the last character stand for nothing.
    as_made = base64.urlsafe_b64encode(content).decode("ascii").rstrip("=") == text
    if len(content) > size or not as_made or _checksum(content[:-CHECKSUM_SIZE]) != content[-CHECKSUM_SIZE:]:
        raise _mistyped()
    try:
        return msgspec.msgpack.decode(content[LENGTH_SIZE:-CHECKSUM_SIZE], type=JoinToken)
    except msgspec.MsgspecError:
        raise _mistyped() from None


def _cut_off() -> InvalidRequest:
    return InvalidRequest("this join token is cut off: copy all of it, to its last character")


def _mistyped() -> InvalidRequest:
    return InvalidRequest("this join token was changed on the way: copy it again as it was printed")


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:CHECKSUM_SIZE]
