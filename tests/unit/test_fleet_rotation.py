"""One authority follows another: both are trusted until all know both, or a week has passed; never none that signs."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from appliance.domain.errors import Conflict, CutOff, HostError
from appliance.domain.fleet_member import FleetMember
from appliance.fleet.accounts.sync_messages import SyncRequest
from appliance.fleet.hub import authorities
from appliance.fleet.hub.authorities import BOTH_TRUSTED_MS, mark_of_ca, mark_of_secrets
from appliance.fleet.hub.certificates import CertifiedKey, as_der, make_authority, make_leaf, split
from appliance.fleet.hub.rotation import HubRotation, RotationSteps
from appliance.fleet.joining.followed_authorities import FollowedAuthorities
from appliance.fleet.link.link import hub_tls
from appliance.fleet.membership.identity import FleetFolder, HubAddress, HubSecrets, Membership
from appliance.fleet.membership.roster import Roster
from appliance.store.database import Store
from appliance.store.queries import fleet_changes, fleet_invites, fleet_members
from appliance.store.queries.fleet_invites import Invite
from tests.support.virtual_clock import AFTERNOON, VirtualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from appliance.fleet.membership.members import Role

OLD, NEW = make_authority("flt_1", AFTERNOON), make_authority("flt_1", AFTERNOON)
SECRETS = HubSecrets("seed", "seed", OLD.key)
FRA, AMS = (f"nod_{digit * 24}" for digit in "12")
WEEK_S = BOTH_TRUSTED_MS // 1000


def of_fleet(role: Role) -> Membership:
    return Membership("flt_1", "x", role, (HubAddress("192.0.2.1:7422", "f.hub.internal"),), OLD.certificate, b"k" * 32)


@dataclass
class Hub:
    """A hub whose nats-server is in memory: the authorities by which its certificate was signed."""

    folder: FleetFolder
    store: Store
    roster: Roster
    clock: VirtualClock = field(default_factory=VirtualClock)
    signed: list[CertifiedKey] = field(default_factory=list)
    is_cut_off: bool = False

    async def sign(self, authority: CertifiedKey) -> None:
        if self.is_cut_off:
            raise CutOff("nats-server is away")
        make_leaf(authority, "f.hub.internal", self.clock.wall_ms)  # a key that is not its own is refused
        self.signed.append(authority)

    def started(self) -> HubRotation:
        """As a process that has just started."""
        secrets = self.folder.hub_secrets()
        assert secrets is not None
        steps = RotationSteps(self.sign, lambda _membership, _of_hub: None)
        return HubRotation(self.folder, self.store, self.roster, self.clock, secrets, steps)

    def begin(self) -> None:
        self.folder.save_hub_secrets(authorities.begin(self.secrets, NEW, self.clock.wall_ms))

    @property
    def secrets(self) -> HubSecrets:
        found = self.folder.hub_secrets()
        assert found is not None
        return found

    @property
    def ca(self) -> str:
        found = self.folder.membership()
        assert found is not None
        return found.ca

    async def member(self, role: Role, xkey: bytes = bytes(32)) -> None:
        async with self.store.write() as db:
            await fleet_members.put(db, FleetMember(AMS, "ams1", "ams", role, "UAMS", xkey, 2))
        await self.roster.load()


@asynccontextmanager
async def hub(path: Path) -> AsyncIterator[Hub]:
    store, folder = await Store.open(path / "store.sqlite"), FleetFolder(path)
    folder.save_hub_secrets(SECRETS)
    folder.save_membership(of_fleet("hub"))
    try:
        async with store.write() as db:
            await fleet_members.put(db, FleetMember(FRA, "fra1", "fra", "hub", "UFRA", bytes(32), 1))
        roster = Roster(store)
        await roster.load()
        yield Hub(folder, store, roster)
    finally:
        await store.close()


def test_who_signs_and_what_is_trusted_at_each_step() -> None:
    """The certificate is always of an authority that all have been told."""
    told = authorities.begin(SECRETS, NEW, AFTERNOON)
    with pytest.raises(
        Conflict, match="follows already, since 2026-09-21T14:20:00Z: the old one signs still, and both"
    ):
        authorities.begin(told, NEW, AFTERNOON)
    both = authorities.trusted(OLD.certificate, told)
    assert split(both) == (OLD.certificate, NEW.certificate)
    assert authorities.trusted(both, told) == both
    following = told.next_authority
    assert following is not None
    signing = authorities.signing(told, following, AFTERNOON)
    over = authorities.ended(signing, following)
    steps = (
        (OLD.certificate, SECRETS),
        (both, told),
        (both, signing),
        (NEW.certificate, signing),
        (NEW.certificate, over),
    )
    assert [authorities.signer(*each) for each in steps] == [OLD, OLD, NEW, NEW, NEW]
    assert (
        authorities.trusted(NEW.certificate, signing) == authorities.trusted(NEW.certificate, over) == NEW.certificate
    )
    assert len(hub_tls(as_der(both)).get_ca_certs()) == 2, "as a join token has them"
    assert NEW.key not in repr(told)


def test_without_members_it_signs_at_once_and_the_old_one_goes_after_a_week(tmp_path: Path) -> None:
    """A week from the beginning, not from when the new one signed."""

    async def scene() -> None:
        async with hub(tmp_path) as one:
            rotation = one.started()
            await rotation.look()
            assert (one.ca, one.signed) == (OLD.certificate, [])
            one.begin()
            await rotation.look()
            assert (split(one.ca), one.signed) == ((OLD.certificate, NEW.certificate), [NEW])
            one.clock.advance(WEEK_S - 1)
            await rotation.look()
            assert len(split(one.ca)) == 2
            one.clock.advance(1)
            await rotation.look()
            assert (one.ca, one.signed, one.secrets.ca_key) == (NEW.certificate, [NEW], NEW.key)
            assert one.secrets.next_authority is None

    asyncio.run(scene())


def test_a_member_that_is_away_is_waited_for_and_so_is_an_open_invitation(tmp_path: Path) -> None:
    """Until a week has passed: what the old one had signed is good all that time."""

    async def scene() -> None:
        async with hub(tmp_path) as one:
            rotation = one.started()
            await one.member("spoke")
            async with one.store.write() as db:
                await fleet_invites.add(db, Invite("UINV", "spoke", one.clock.wall_ms, one.clock.wall_ms + 1000))
            one.begin()
            await rotation.look()
            async with one.store.read() as db:
                assert (await fleet_changes.head(db)).rev > 0, "members ask at once"
            ca, of_hub = await rotation.told(AMS, SyncRequest(ca=mark_of_ca(OLD.certificate)))
            assert (ca, of_hub) == (one.ca, b"")
            assert await rotation.told(AMS, SyncRequest()) == ("", b""), "an older version is told nothing"
            await rotation.look()
            assert one.signed == []
            assert await rotation.told(AMS, SyncRequest(ca=mark_of_ca(ca))) == ("", b"")
            await rotation.look()
            assert one.signed == [], "a host that holds a token made before can join"
            one.clock.advance(1)
            await rotation.look()
            assert one.signed == [NEW]

            again = one.started()
            await again.look()
            one.clock.advance(WEEK_S)
            await again.look()
            assert one.ca == NEW.certificate

    asyncio.run(scene())


def test_after_a_week_nobody_is_waited_for(tmp_path: Path) -> None:
    """The new one signs, and in the next step is trusted alone; while nats-server is away, neither."""

    async def scene() -> None:
        async with hub(tmp_path) as one:
            rotation = one.started()
            await one.member("spoke")
            one.begin()
            one.clock.advance(WEEK_S)
            one.is_cut_off = True
            with pytest.raises(CutOff):
                await rotation.look()
            assert len(split(one.ca)) == 2
            one.is_cut_off = False
            await rotation.look()
            assert (len(split(one.ca)), one.signed) == (2, [NEW])
            await rotation.look()
            assert one.ca == NEW.certificate

    asyncio.run(scene())


@pytest.mark.parametrize("writes", range(5))
def test_broken_off_at_any_write_it_goes_on_after_a_start(
    tmp_path: Path, writes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the files say is whole after each; the end is the same."""
    left = [writes]
    write = FleetFolder._write

    def breaks(self: FleetFolder, *words: object) -> None:
        if not left[0]:
            raise HostError("killed")
        left[0] -= 1
        write(self, *words)  # type: ignore[arg-type]

    async def scene() -> None:
        async with hub(tmp_path) as one:
            one.begin()
            with monkeypatch.context() as patched:
                patched.setattr(FleetFolder, "_write", breaks)
                rotation = one.started()
                with contextlib.suppress(HostError):
                    await rotation.look()
                    one.clock.advance(WEEK_S)
                    await rotation.look()
            signer = authorities.signer(one.ca, one.secrets)
            assert signer.certificate in split(one.ca)
            make_leaf(signer, "f.hub.internal", AFTERNOON)
            again = one.started()
            one.clock.advance(WEEK_S)
            for _ in range(2):
                await again.look()
            assert (one.ca, one.secrets.ca_key, one.secrets.next_authority) == (NEW.certificate, NEW.key, None)
            assert one.signed[-1] == NEW

    asyncio.run(scene())


def test_the_standby_is_told_the_keys_sealed_and_is_waited_for_until_it_has_them(tmp_path: Path) -> None:
    """It can be made the hub at any step."""

    async def scene() -> None:
        async with hub(tmp_path) as one:
            (tmp_path / "ams").mkdir()
            folder = FleetFolder(tmp_path / "ams")
            folder.save_membership(of_fleet("standby"))
            folder.save_hub_secrets(SECRETS)
            keys, here = folder.keys(), [of_fleet("standby")]
            standby = FollowedAuthorities(folder, keys.xkey, lambda: here[-1], here.append)
            await one.member("standby", keys.public_xkey)
            rotation = one.started()
            one.begin()
            await rotation.look()

            async def asks() -> bytes:
                ca, of_hub = standby.marks()
                told = await rotation.told(AMS, SyncRequest(ca=ca, of_hub=of_hub))
                if any(told):
                    assert await standby.take(*told)
                    assert not await standby.take(*told), "told again, nothing has changed: it need not ask at once"
                return told[1]

            _, sealed = await rotation.told(AMS, SyncRequest(ca=mark_of_ca(one.ca), of_hub=mark_of_secrets(SECRETS)))
            assert sealed
            assert NEW.key.encode() not in sealed
            await rotation.look()
            assert one.signed == []
            assert await asks()
            await rotation.look()
            assert one.signed == [], "it has not said yet that it has them"
            assert not await asks()
            await rotation.look()
            assert one.signed == [NEW]
            one.clock.advance(WEEK_S)
            await rotation.look()
            await asks()
            assert folder.hub_secrets() == one.secrets
            kept = folder.membership()
            assert kept is not None
            assert (kept.ca, kept.role, here[-1]) == (NEW.certificate, "standby", kept)

    asyncio.run(scene())


def test_what_is_no_certificate_is_not_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What this host trusts stays; secrets that are not for it are no secrets."""
    folder, here = FleetFolder(tmp_path), [of_fleet("standby")]
    folder.save_membership(here[0])
    followed = FollowedAuthorities(folder, folder.keys().xkey, lambda: here[-1], here.append)
    assert not asyncio.run(followed.take("nothing", b""))
    assert not asyncio.run(followed.take(NEW.certificate, b"nothing"))
    assert folder.membership() == here[-1] == of_fleet("standby")
    assert caplog.text.count("is not followed") == 2
