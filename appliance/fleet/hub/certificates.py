"""Makes the fleet's authority and its hubs' certificates, and reads from a certificate when it is valid.

`cryptography` is imported only while something is made: it costs a running hub 9 MB.
"""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from appliance.domain.clock import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

DAY_MS = 86_400_000
CA_DAYS, LEAF_DAYS = 20 * 365 + 5, 90
BACKDATED_DAYS = 1  # a host whose clock is behind by less accepts it


@dataclass(frozen=True, slots=True)
class CertifiedKey:
    """Holds a certificate and its private key, both PEM."""

    certificate: str
    key: str

    def __repr__(self) -> str:
        return "CertifiedKey(...)"


@dataclass(frozen=True, slots=True)
class Validity:
    """Says from when to when a certificate is valid, in ms since the epoch."""

    begins: int
    ends: int

    def problem(self, now: int) -> str | None:
        """Returns what is wrong with these dates at `now`, to be read behind what the certificate is; None: nothing."""
        if now < self.begins:
            return f"is valid from {rfc3339(self.begins)} on, and this host's clock says {rfc3339(now)}"
        if now >= self.ends:
            return f"was valid until {rfc3339(self.ends)}, and this host's clock says {rfc3339(now)}"
        return None

    def is_due(self, now: int) -> bool:
        """Tells whether to replace it: two thirds have passed, or it was made by a clock that was ahead."""
        return now < self.begins or now - self.begins >= (self.ends - self.begins) * 2 // 3


def make_authority(fleet_id: str, now: int) -> CertifiedKey:
    """Makes the fleet's certificate authority."""
    from cryptography import x509

    key = _new_key()
    name = _name(fleet_id)
    builder = (
        _builder(name, name, key.public_key(), _day(now), CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_for_signing(), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return _signed(builder, key, key)


def make_leaf(authority: CertifiedKey, server_name: str, now: int, hosts: tuple[str, ...] = ()) -> CertifiedKey:
    """Makes a hub's certificate, for those who ask it and for other hubs, which it asks itself.

    `hosts`: addresses or names by which other hubs dial it: nats-server looks for them in the certificate, whatever
    its `server_name` (https://github.com/nats-io/nats-server/issues/3740). Raises ValueError if the authority cannot
    be read, or a host is none.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    issuer = x509.load_pem_x509_certificate(authority.certificate.encode())
    issuer_key = serialization.load_pem_private_key(authority.key.encode(), None)
    if not isinstance(issuer_key, ec.EllipticCurvePrivateKey) or issuer_key.public_key() != issuer.public_key():
        raise ValueError("the key is not the authority's")
    key = _new_key()
    names = x509.SubjectAlternativeName([x509.DNSName(server_name), *map(_general_name, hosts)])
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = (
        _builder(_name(server_name), issuer.subject, key.public_key(), _day(now), LEAF_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(names, critical=False)
        .add_extension(usage, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    return _signed(builder, key, issuer_key)


def _new_key() -> ec.EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _name(common_name: str) -> x509.Name:
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])


def _general_name(host: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _day(now: int) -> datetime:
    return datetime.fromtimestamp(now // 1000, UTC) - timedelta(days=BACKDATED_DAYS)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, begins: datetime, days: int
) -> x509.CertificateBuilder:
    from cryptography import x509

    builder = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number())
    return builder.not_valid_before(begins).not_valid_after(begins + timedelta(days=days))


def _for_signing() -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


def _signed(
    builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey, issuer_key: ec.EllipticCurvePrivateKey
) -> CertifiedKey:
    from cryptography.hazmat.primitives import hashes, serialization

    certificate = builder.sign(issuer_key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return CertifiedKey(certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode())


def split(pem: str) -> tuple[str, ...]:
    """Returns the certificates of a text, one by one."""
    ends = pem.split(ssl.PEM_FOOTER)[:-1]
    return tuple(f"{each[each.find(ssl.PEM_HEADER) :]}{ssl.PEM_FOOTER}\n" for each in ends if ssl.PEM_HEADER in each)


def as_der(pem: str) -> bytes:
    """Returns the certificates of a text as DER, one behind the other. Raises ValueError if one is none."""
    return b"".join(map(ssl.PEM_cert_to_DER_cert, split(pem)))


def validity(pem: str) -> Validity:
    """Reads the dates of the first certificate in a text. Raises ValueError if there is none.

    RFC 5280, section 4.1: Certificate and TBSCertificate are sequences; the latter has [0] version, serialNumber,
    signature, issuer and then validity, which is a sequence of two times.
    """
    try:
        der = ssl.PEM_cert_to_DER_cert(pem[: pem.index(ssl.PEM_FOOTER) + len(ssl.PEM_FOOTER)].strip() + "\n")
        _, whole = next(_elements(der))
        _, to_be_signed = next(_elements(whole))
        fields = [content for tag, content in _elements(to_be_signed) if tag != EXPLICIT_VERSION]
        begins, ends = (_time(tag, content) for tag, content in _elements(fields[3]))
    except (ValueError, IndexError, StopIteration) as error:
        raise ValueError("no certificate") from error
    return Validity(begins, ends)


EXPLICIT_VERSION, UTC_TIME, GENERALIZED_TIME = 0xA0, 0x17, 0x18
FORMATS = {UTC_TIME: "%y%m%d%H%M%SZ", GENERALIZED_TIME: "%Y%m%d%H%M%SZ"}


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields tag and content of each element. Raises ValueError or IndexError for what is cut off."""
    at = 0
    while at < len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if length & 0x80:  # X.690, section 8.1.3.5: so many bytes of length follow
            size = length & 0x7F
            length, at = int.from_bytes(der[at : at + size], "big"), at + size
        if at + length > len(der):
            raise ValueError("cut off")
        yield tag, der[at : at + length]
        at += length


def _time(tag: int, content: bytes) -> int:
    moment = datetime.strptime(content.decode("ascii"), FORMATS.get(tag, "")).replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1000
