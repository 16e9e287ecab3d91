"""The fleet's authority and its hubs' certificates: their dates, and that TLS takes them."""

from __future__ import annotations

import ssl
import subprocess
import sys

import pytest

from appliance.fleet.hub import certificates
from appliance.fleet.hub.certificates import BACKDATED_DAYS, DAY_MS, LEAF_DAYS, Validity, make_authority, make_leaf

NOW = 1_800_000_000_000  # 2027-01-15
NAME = "abc.hub.internal"
YEAR_MS = 365 * DAY_MS


@pytest.fixture(scope="module")
def authority() -> certificates.CertifiedKey:
    return make_authority("flt_1", NOW)


def handshake(authority: str, leaf: certificates.CertifiedKey, name: str, folder: object) -> None:
    """A TLS handshake in memory, of a client that trusts this authority alone. Raises ssl.SSLError."""
    file = f"{folder}/leaf"
    with open(file, "w", encoding="ascii") as written:  # noqa: PTH123 (one expression)
        written.write(leaf.certificate + leaf.key)
    served, asking = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    served.load_cert_chain(file)
    asking.minimum_version = served.minimum_version = ssl.TLSVersion.TLSv1_3
    asking.load_verify_locations(cadata=authority)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = asking.wrap_bio(to_client, to_server, server_hostname=name)
    server = served.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(2):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue


def test_tls_takes_what_was_made_for_now(tmp_path: object) -> None:
    """By the authority alone, for the hub's name alone."""
    import time

    now = time.time_ns() // 1_000_000
    of_fleet = make_authority("flt_1", now)
    leaf = make_leaf(of_fleet, NAME, now)
    handshake(of_fleet.certificate, leaf, NAME, tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(of_fleet.certificate, leaf, "another.hub.internal", tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
        handshake(make_authority("flt_1", now).certificate, leaf, NAME, tmp_path)
    old = make_leaf(of_fleet, NAME, now - 100 * DAY_MS)
    with pytest.raises(ssl.SSLCertVerificationError, match="has expired"):
        handshake(of_fleet.certificate, old, NAME, tmp_path)


def test_a_hub_is_known_by_what_other_hubs_dial(tmp_path: object) -> None:
    """By an address or a name, beside its own name; what is neither is refused."""
    import time

    now = time.time_ns() // 1_000_000
    of_fleet = make_authority("flt_1", now)
    leaf = make_leaf(of_fleet, NAME, now, ("192.0.2.1", "2001:db8::1", "fra.example.net"))
    for name in (NAME, "192.0.2.1", "2001:db8::1", "fra.example.net"):
        handshake(of_fleet.certificate, leaf, name, tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"):
        handshake(of_fleet.certificate, leaf, "192.0.2.2", tmp_path)
    with pytest.raises(ValueError, match="A-label"):
        make_leaf(of_fleet, NAME, now, ("für.example",))


def test_a_leaf_signs_no_other(tmp_path: object) -> None:
    """A hub's certificate is no authority."""
    import time

    now = time.time_ns() // 1_000_000
    of_fleet = make_authority("flt_1", now)
    leaf = make_leaf(of_fleet, NAME, now)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(of_fleet.certificate, make_leaf(leaf, "x.hub.internal", now), "x.hub.internal", tmp_path)


def test_dates_are_read_as_they_were_made(authority: certificates.CertifiedKey) -> None:
    """Both forms of a time: from 2050 on it is another one."""
    leaf = certificates.validity(make_leaf(authority, NAME, NOW).certificate)
    assert leaf == Validity(NOW - BACKDATED_DAYS * DAY_MS, NOW + (LEAF_DAYS - BACKDATED_DAYS) * DAY_MS)
    late = certificates.validity(make_authority("flt_1", NOW + 10 * YEAR_MS).certificate)
    assert abs(late.ends - (NOW + 30 * YEAR_MS)) < 10 * DAY_MS
    assert certificates.validity(authority.certificate + "anything behind it").begins == leaf.begins


@pytest.mark.parametrize("cut", [0, 10, 60, 200])
def test_what_is_no_certificate_has_no_dates(authority: certificates.CertifiedKey, cut: int) -> None:
    """Whatever is in the file."""
    lines = authority.certificate.splitlines()
    body = "".join(lines[1:-1])[: cut - cut % 4]
    for text in (authority.certificate[:cut], "\n".join([lines[0], body, lines[-1], ""])):
        with pytest.raises(ValueError, match="no certificate"):
            certificates.validity(text)


def test_a_leaf_is_renewed_at_two_thirds(authority: certificates.CertifiedKey) -> None:
    """60 days after its beginning; before it too, which a clock that was ahead has made."""
    leaf = certificates.validity(make_leaf(authority, NAME, NOW).certificate)
    assert not leaf.is_due(NOW)
    assert not leaf.is_due(leaf.begins + 60 * DAY_MS - 1)
    assert leaf.is_due(leaf.begins + 60 * DAY_MS)
    assert leaf.is_due(leaf.begins - 1)


def test_what_is_wrong_with_dates_is_said() -> None:
    """Which of the two it is, and by whose clock."""
    validity = Validity(NOW, NOW + 90 * DAY_MS)
    assert validity.problem(NOW) is None
    assert validity.problem(NOW - 1000) == (
        "is valid from 2027-01-15T08:00:00Z on, and this host's clock says 2027-01-15T07:59:59Z"
    )
    assert validity.problem(NOW + 90 * DAY_MS) == (
        "was valid until 2027-04-15T08:00:00Z, and this host's clock says 2027-04-15T08:00:00Z"
    )


def test_another_authority_s_key_signs_nothing(authority: certificates.CertifiedKey) -> None:
    """A hub whose files were mixed up does not serve a certificate that nobody takes."""
    other = make_authority("flt_2", NOW)
    with pytest.raises(ValueError, match="the key is not the authority's"):
        make_leaf(certificates.CertifiedKey(authority.certificate, other.key), NAME, NOW)


def test_reading_dates_loads_no_cryptography() -> None:
    """A hub looks each hour; the package costs 9 MB."""
    code = "import sys; import appliance.fleet.hub.certificates; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
