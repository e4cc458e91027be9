"""Webhooks over TLS: the address is pinned, and the certificate is that of the name in the URL."""

import shutil
import ssl
import subprocess
from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path

import pytest
from receiver import ALLOWED, receiver, status

from lowtide.core.webhooks.schedule import Attempt
from lowtide.outbound.sender import HttpSender

OPENSSL = shutil.which("openssl")
pytestmark = pytest.mark.skipif(OPENSSL is None, reason="makes its certificate with openssl")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(certificate, key) of hooks.example, which vouches for itself."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    assert OPENSSL is not None
    subprocess.run(
        [
            *(OPENSSL, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=hooks"),
            *("-addext", "subjectAltName=DNS:hooks.example"),
            *("-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


async def resolve(host: str, port: int) -> Sequence[str]:
    return ["127.0.0.1"]


def sender(cert: Path | None) -> HttpSender:
    return HttpSender(
        [ip_network(ALLOWED)],
        resolve=resolve,
        tls=lambda: ssl.create_default_context(cafile=None if cert is None else str(cert)),
    )


def server_tls(certificate: tuple[Path, Path], names: list[str | None]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    return context


async def test_the_pinned_connection_asks_for_and_checks_the_name_of_the_url(
    certificate: tuple[Path, Path],
) -> None:
    names: list[str | None] = []
    async with receiver(status("200 OK"), tls=server_tls(certificate, names)) as there:
        one = sender(certificate[0])
        assert await one.send(f"https://hooks.example:{there.port}/", {}, b"{}") == Attempt(200)
        other = await one.send(f"https://other.example:{there.port}/", {}, b"{}")
    assert names == ["hooks.example", "other.example"]
    assert "certificate cannot be trusted" in (other.error or "")
    assert len(there.requests) == 1


async def test_a_certificate_that_nobody_vouches_for_is_refused(
    certificate: tuple[Path, Path],
) -> None:
    async with receiver(status("200 OK"), tls=server_tls(certificate, [])) as there:
        attempt = await sender(None).send(f"https://hooks.example:{there.port}/", {}, b"{}")
    assert "certificate cannot be trusted" in (attempt.error or "")
    assert there.requests == []
