"""Says which authorities a fleet trusts while one follows another, and which one signs the hub's certificate. Pure.

    told      members are told to trust the new one beside the old one, which signs
    signing   all members trust both, or a week has passed: the new one signs
    over      a week has passed since the beginning: the new one alone is trusted

What of it is so is in hub.json, which is written last at each step: one that was broken off is done again.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from appliance.domain.clock import rfc3339
from appliance.domain.errors import Conflict
from appliance.fleet.hub.certificates import DAY_MS, CertifiedKey, split
from appliance.fleet.membership.identity import NextAuthority

if TYPE_CHECKING:
    from appliance.fleet.membership.identity import HubSecrets

BOTH_TRUSTED_MS = 7 * DAY_MS


def begin(of_hub: HubSecrets, made: CertifiedKey, now: int) -> HubSecrets:
    """Returns the secrets with another authority that is to follow. Raises Conflict: one follows already."""
    present = of_hub.next_authority
    if present is not None:
        signs = "the hub's certificate is the new one's" if present.signs_since else "the old one signs still"
        raise Conflict(
            f"another authority follows already, since {rfc3339(present.told_since)}: {signs}, and both are trusted "
            f"until {rfc3339(present.told_since + BOTH_TRUSTED_MS)}"
        )
    return replace(of_hub, next_authority=NextAuthority(made.certificate, made.key, now))


def trusted(ca: str, of_hub: HubSecrets) -> str:
    """Returns what members are to trust (PEM). `ca`: what they were told last."""
    if of_hub.next_authority is None:
        return ca
    old, *_ = split(ca)
    new, *_ = split(of_hub.next_authority.certificate)
    return old if old == new else old + new


def signer(ca: str, of_hub: HubSecrets) -> CertifiedKey:
    """Returns the authority that signs the hub's certificate now. `ca`: what members are told."""
    following = of_hub.next_authority
    if following is None:
        return CertifiedKey((split(ca) or (ca,))[-1], of_hub.ca_key)
    if following.signs_since is not None:
        return CertifiedKey(following.certificate, following.key)
    return CertifiedKey(split(ca)[0], of_hub.ca_key)


def signing(of_hub: HubSecrets, following: NextAuthority, now: int) -> HubSecrets:
    """Returns the secrets when the new authority has signed the hub's certificate."""
    return replace(of_hub, next_authority=replace(following, signs_since=now))


def ended(of_hub: HubSecrets, following: NextAuthority) -> HubSecrets:
    """Returns the secrets when the old authority is not trusted any more."""
    return replace(of_hub, ca_key=following.key, next_authority=None)


def is_over(following: NextAuthority, now: int) -> bool:
    """Tells whether both have been trusted for as long as they are to be."""
    return now - following.told_since >= BOTH_TRUSTED_MS


def mark_of_ca(ca: str) -> str:
    """Returns what names the authorities that a member trusts."""
    return hashlib.sha256("".join(split(ca)).encode()).hexdigest()


def mark_of_secrets(of_hub: HubSecrets | None) -> str:
    """Returns what names a hub's secrets, and tells nothing of them; "": there are none."""
    return "" if of_hub is None else hashlib.sha256(msgspec.json.encode(of_hub)).hexdigest()
