"""HTTPS, and a certificate that is renewed while the server runs."""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from appliance.domain.errors import HostError
from appliance.server.http import uvicorn_server
from appliance.server.http.tls import Certificate
from tests.support.api.served import Bytes, Served, served
from tests.support.certificates import self_signed

if TYPE_CHECKING:
    from pathlib import Path

GET = b"GET /a HTTP/1.1\r\nHost: exit.test\r\n\r\n"


def trusting_anybody() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def shown(client: Bytes) -> str:
    """Whom the certificate is made out to."""
    found = client.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return x509.load_der_x509_certificate(found).subject.rfc4514_string().removeprefix("CN=")


async def name_now(server: Served) -> str:
    """What a new connection is shown, over which requests are answered."""
    client = await server.connect(trusting_anybody())
    client.send(GET)
    status, headers, body = await client.answer()
    assert (status, body) == (200, b"GET /a 0")
    assert headers["strict-transport-security"] == "max-age=31536000"
    return await shown(client)


def test_new_connections_get_the_renewed_pair(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """New connections get the renewed pair, those that stand keep theirs; a pair that is none is logged once and the
    old one stays."""
    cert, key = self_signed(tmp_path, "first")
    second_cert, second_key = self_signed(tmp_path, "second")

    async def story() -> None:
        async with served(Certificate(cert, key)) as server:
            stands = await server.connect(trusting_anybody())
            assert await name_now(server) == "first"
            second_cert.replace(cert)
            assert [await name_now(server), await name_now(server)] == ["first", "first"]
            assert len(caplog.records) == 1
            second_key.replace(key)
            assert await name_now(server) == "second"
            cert.unlink()
            assert await name_now(server) == "second"
            cert.write_text("-----BEGIN CERTIFICATE-----\nnone\n", encoding="ascii")
            assert await name_now(server) == "second"
            self_signed(tmp_path, "first")
            assert await name_now(server) == "first"
            stands.send(GET)
            assert (await stands.answer())[0] == 200

    with caplog.at_level(logging.INFO, logger="appliance"):
        asyncio.run(story())
    levels = [record.levelname for record in caplog.records]
    assert levels == ["ERROR", "INFO", "ERROR", "ERROR", "INFO"], caplog.text
    assert "PRIVATE" not in caplog.text


@pytest.mark.parametrize("fault", ["another's key", "no certificate", "no file", "a passphrase"])
def test_files_that_are_no_pair_are_refused_at_start(tmp_path: Path, fault: str) -> None:
    """Files that are no pair are refused at start, by the settings' names."""
    cert, key = self_signed(tmp_path, "first")
    _, other_key = self_signed(tmp_path, "second")
    if fault == "another's key":
        other_key.replace(key)
    elif fault == "no certificate":
        cert.write_text("hello", encoding="ascii")
    elif fault == "no file":
        key.unlink()
    else:
        encrypt(key)
    with pytest.raises(
        HostError, match=r"api\.tls_cert \S+/first\.pem and api\.tls_key \S+/first\.key: cannot be used: \w+"
    ):
        Certificate(cert, key)


def encrypt(key: Path) -> None:
    """With a passphrase, which nobody is there to type."""
    found = serialization.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(
        found.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )


def test_an_unfinished_handshake_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever does not come to terms is let go, takes the place of nobody meanwhile, and does not hold up the stop."""
    monkeypatch.setattr(uvicorn_server, "MOST_CONNECTIONS", 3)
    certificate = Certificate(*self_signed(tmp_path, "first"))

    async def story() -> None:
        async with served(certificate) as server:
            silent = [await server.connect() for _ in range(5)]
            assert await silent[0].rest() == b""
            silent[4].send(GET)
            await silent[4].rest()
            assert await name_now(server) == "first"
        monkeypatch.setattr(uvicorn_server, "HEAD_S", 0.2)
        async with served(certificate) as server:
            late = await server.connect()
            assert await late.rest() == b""
        async with served(certificate) as server:
            await server.connect()

    asyncio.run(story())


def test_tls_1_2_is_the_oldest_spoken(tmp_path: Path) -> None:
    """TLS 1.2 is the oldest that is spoken."""

    async def story() -> None:
        async with served(Certificate(*self_signed(tmp_path, "first"))) as server:
            old = trusting_anybody()
            with pytest.warns(DeprecationWarning, match="TLSv1"):
                old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
            old.set_ciphers("DEFAULT:@SECLEVEL=0")
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await server.connect(old)

    asyncio.run(story())


def offering(
    *protocols: str, ciphers: str = "DEFAULT", newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
) -> ssl.SSLContext:
    context = trusting_anybody()
    context.maximum_version = newest
    context.set_ciphers(ciphers)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


@pytest.mark.parametrize(
    ("offered", "chosen"), [(("h2", "http/1.1"), "http/1.1"), (("http/1.1",), "http/1.1"), (("h2",), None), ((), None)]
)
def test_http_1_1_is_what_is_negotiated(tmp_path: Path, offered: tuple[str, ...], chosen: str | None) -> None:
    """By ALPN, of what a client offers; one that offers nothing of that, or nothing, is answered all the same."""

    async def story() -> None:
        async with served(Certificate(*self_signed(tmp_path, "first"))) as server:
            for newest in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                client = await server.connect(offering(*offered, newest=newest))
                assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == chosen
                client.send(GET)
                assert (await client.answer())[0] == 200

    asyncio.run(story())


STRONG = ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305"]
WEAK = ["ECDHE-RSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA", "ECDHE-RSA-AES128-SHA256", "AES128-SHA", "AES128-GCM-SHA256"]


@pytest.mark.parametrize("weak", [*WEAK, "DHE-RSA-AES128-SHA", "ECDHE-ECDSA-AES128-CCM8"])
def test_suites_without_authenticated_encryption_are_refused(tmp_path: Path, weak: str) -> None:
    """Under TLS 1.2, nothing with CBC and nothing without forward secrecy."""

    async def story() -> None:
        async with served(Certificate(*self_signed(tmp_path, "first"))) as server:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await server.connect(offering(ciphers=f"{weak}:@SECLEVEL=0"))

    asyncio.run(story())


def test_strong_suites_are_spoken(tmp_path: Path) -> None:
    """One of those is chosen under TLS 1.2."""

    async def story() -> None:
        async with served(Certificate(*self_signed(tmp_path, "first"))) as server:
            client = await server.connect(offering(ciphers=":".join(STRONG)))
            name, version, _ = client.writer.get_extra_info("cipher")
            assert (name in STRONG, version) == (True, "TLSv1.2")

    asyncio.run(story())
