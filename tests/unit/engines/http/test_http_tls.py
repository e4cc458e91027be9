"""HTTPS engines: which certificates are believed."""

import asyncio
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from lowtide.core.faults.outcome import Interrupted, NoReply, Reply, classify
from lowtide.engines.http import connect
from lowtide.engines.http.client import HttpEngine
from testkit.patience import PATIENCE_S
from testkit.scripted_engine import Cut, ScriptedEngine

ATTEMPT_S = PATIENCE_S

OPENSSL = shutil.which("openssl")
needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="makes its certificate with openssl")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(certificate, key) of an engine at 127.0.0.1 that vouches for itself."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    assert OPENSSL is not None
    subprocess.run(
        [
            *(OPENSSL, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=engine"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


@pytest.fixture
def server_tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


@needs_openssl
async def test_an_engine_whose_certificate_is_in_the_bundle_is_believed(
    server_tls: ssl.SSLContext, certificate: tuple[Path, Path]
) -> None:
    async with ScriptedEngine(tls=server_tls) as upstream:
        engine = HttpEngine(upstream.url, verify=str(certificate[0]))
        for _ in range(3):
            assert isinstance(await engine.post("/x", bytes(3_000_000), ATTEMPT_S), Reply)
        assert upstream.connections_opened == 1
        await engine.aclose()


@needs_openssl
async def test_an_engine_with_an_unknown_certificate_is_not_spoken_to(
    server_tls: ssl.SSLContext,
) -> None:
    async with ScriptedEngine(tls=server_tls) as upstream:
        engine = HttpEngine(upstream.url)
        attempt = await engine.post("/x", b"secret", ATTEMPT_S)
        assert isinstance(attempt, NoReply)
        assert attempt.kind == "connect"
        assert "certificate" in attempt.detail
        assert upstream.requests == []
        await engine.aclose()


@needs_openssl
async def test_the_check_can_be_switched_off(server_tls: ssl.SSLContext) -> None:
    async with ScriptedEngine(tls=server_tls) as upstream:
        engine = HttpEngine(upstream.url, verify=False)
        assert isinstance(await engine.post("/x", b"", ATTEMPT_S), Reply)
        await engine.aclose()


@needs_openssl
async def test_cancelling_closes_an_encrypted_connection_too(server_tls: ssl.SSLContext) -> None:
    async with ScriptedEngine([Cut.HANG], tls=server_tls) as upstream:
        engine = HttpEngine(upstream.url, verify=False)
        call = asyncio.ensure_future(engine.post("/x", b"", ATTEMPT_S))
        await upstream.saw_requests(1)
        call.cancel()
        await upstream.saw_abandoned(1)
        await engine.aclose()


async def test_an_engine_that_speaks_no_tls_is_no_connection() -> None:
    async with ScriptedEngine(on_connect=[b"HTTP/1.1 400 Bad Request\r\n\r\n"]) as upstream:
        engine = HttpEngine(upstream.url.replace("http:", "https:"))
        attempt = await engine.post("/x", b"", ATTEMPT_S)
        assert isinstance(attempt, NoReply)
        assert attempt.kind == "connect"
        await engine.aclose()


async def test_a_port_that_never_answers_the_handshake_is_named_before_the_time_is_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connect, "TLS_HANDSHAKE_S", 0.05)
    gone = asyncio.Event()

    async def waits_for_the_end_of_a_head(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.read()
        writer.close()
        gone.set()

    server = await asyncio.start_server(waits_for_the_end_of_a_head, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    engine = HttpEngine(f"https://127.0.0.1:{port}/v1", connect_timeout_s=ATTEMPT_S)
    attempt = await engine.post("/x", b"", ATTEMPT_S)
    assert isinstance(attempt, NoReply)
    assert connect.NO_HANDSHAKE in attempt.detail
    assert kind_of(attempt) == "tls"
    await gone.wait()
    await engine.aclose()
    server.close()
    await server.wait_closed()


# ---- TLS on a port that is called without ----


def kind_of(attempt: Reply | NoReply) -> str:
    """Nothing was read there, so it is as if no connection had come about."""
    outcome = classify(attempt, "/v1/chat/completions")
    assert isinstance(outcome, Interrupted), outcome
    return outcome.kind


@pytest.mark.parametrize("record", [b"\x15\x03\x01\x00\x02\x02\x16", b"\x15\x03\x03\x00\x02"])
async def test_an_alert_in_answer_to_plain_http_is_told_as_tls(record: bytes) -> None:
    async with ScriptedEngine([record]) as upstream:
        engine = HttpEngine(upstream.url)
        assert kind_of(await engine.post("/x", b"", ATTEMPT_S)) == "tls"
        await engine.aclose()


@needs_openssl
async def test_a_tls_port_that_hangs_up_without_a_word_is_found_out_by_one_handshake(
    server_tls: ssl.SSLContext,
) -> None:
    async with ScriptedEngine(tls=server_tls) as upstream:
        engine = HttpEngine(upstream.url.replace("https:", "http:"))
        assert kind_of(await engine.post("/x", b"", ATTEMPT_S)) == "tls"
        assert upstream.connections_opened == 1
        async with engine.open_stream("/x", b"", ATTEMPT_S) as opened:
            assert isinstance(opened, NoReply)
            assert kind_of(opened) == "tls"
        assert kind_of(await engine.get("/models", ATTEMPT_S)) == "tls"
        assert upstream.connections_opened == 1, "it is not asked each time"
        assert upstream.requests == []
        await engine.aclose()


async def test_a_port_without_tls_that_hangs_up_is_a_cut_connection() -> None:
    async with ScriptedEngine([Cut.CLOSE], [Cut.CLOSE]) as upstream:
        engine = HttpEngine(upstream.url)
        attempt = await engine.post("/x", b"", ATTEMPT_S)
        assert isinstance(attempt, NoReply)
        assert attempt.kind == "broken"
        await engine.aclose()


async def test_an_engine_that_has_answered_without_tls_is_not_asked_for_it() -> None:
    last = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}"
    async with ScriptedEngine([last], [Cut.CLOSE]) as upstream:
        engine = HttpEngine(upstream.url)
        assert isinstance(await engine.post("/x", b"", ATTEMPT_S), Reply)
        assert isinstance(await engine.post("/x", b"", ATTEMPT_S), NoReply)
        assert upstream.connections_opened == 2
        await engine.aclose()


def test_a_bundle_that_cannot_be_read_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot read the certificate bundle"):
        HttpEngine("https://127.0.0.1:9", verify=str(tmp_path / "none.pem"))
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate here")
    with pytest.raises(ValueError, match="cannot read the certificate bundle"):
        HttpEngine("https://127.0.0.1:9", verify=str(empty))
