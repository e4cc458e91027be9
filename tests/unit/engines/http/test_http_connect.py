"""Opening connections: all addresses of a name, and proxies."""

import asyncio
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from lowtide.core.faults.outcome import NoReply, Reply
from lowtide.engines.http.client import HttpEngine
from lowtide.engines.http.connect import Address, Dialer
from lowtide.engines.http.request import parse_url
from testkit.scripted_engine import ScriptedEngine

ATTEMPT_S = 30.0  # never reached: a bound on a broken test, not a wait
OPENSSL = shutil.which("openssl")


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedEngine]:
    async with ScriptedEngine() as scripted:
        yield scripted


def address_of(engine: ScriptedEngine) -> Address:
    return (socket.AF_INET, ("127.0.0.1", parse_url(engine.url).port))


@pytest.fixture
def refused() -> Iterator[Address]:
    """An address where nobody listens, kept from others by a socket that is bound there."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield (socket.AF_INET, bound.getsockname())


@pytest.fixture
def silent() -> Iterator[Address]:
    """An address that takes no connection and refuses none: its queue is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        place = listener.getsockname()
        waiting = [socket.socket() for _ in range(3)]
        for each in waiting:
            each.setblocking(False)
            with suppress(BlockingIOError):
                each.connect(place)
        yield (socket.AF_INET, place)
        for each in waiting:
            each.close()


class Resolver:
    """Answers with the addresses it was given, and counts how often it was asked."""

    def __init__(self, *addresses: Address) -> None:
        self.addresses = addresses
        self.asked = 0

    async def __call__(self, _host: str, _port: int) -> Sequence[Address]:
        self.asked += 1
        return self.addresses


class Peer(asyncio.Protocol):
    """Notes where it was connected to, and hangs up."""

    def __init__(self) -> None:
        self.port = 0
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.port = transport.get_extra_info("peername")[1]
        transport.close()

    def abort(self) -> None:
        """Nothing is open that this could close."""

    def connection_lost(self, _: Exception | None) -> None:
        self.closed.set()


async def reached(dialer: Dialer) -> int:
    async with asyncio.timeout(ATTEMPT_S):
        peer = await dialer.open(Peer)
        await peer.closed.wait()
    return peer.port


def dialer_of(*addresses: Address) -> Dialer:
    return Dialer(parse_url("http://gpu.internal:1/v1"), None, resolve=Resolver(*addresses))


@pytest.mark.parametrize("dead", ["refused", "silent"])
async def test_a_dead_first_address_does_not_keep_the_second_from_answering(
    upstream: ScriptedEngine, dead: str, request: pytest.FixtureRequest
) -> None:
    dialer = dialer_of(request.getfixturevalue(dead), address_of(upstream))
    assert await reached(dialer) == address_of(upstream)[1][1]


async def test_an_address_that_failed_is_tried_last_afterwards(
    upstream: ScriptedEngine, refused: Address
) -> None:
    dialer = dialer_of(refused, address_of(upstream))
    await reached(dialer)
    assert await dialer._in_order() == [address_of(upstream), refused]


async def test_when_no_address_answers_each_reason_is_told_once(refused: Address) -> None:
    other = (refused[0], ("127.0.0.2", refused[1][1]))
    with pytest.raises(OSError, match=r"^Connection refused \(2 addresses tried\)$"):
        await reached(dialer_of(refused, other))


async def test_families_are_tried_in_turn() -> None:
    sixth = [(socket.AF_INET6, (f"::{n}", 1, 0, 0)) for n in range(1, 4)]
    fourth = [(socket.AF_INET, (f"127.0.0.{n}", 1)) for n in range(1, 3)]
    order = await dialer_of(*sixth, *fourth)._in_order()
    assert order == [sixth[0], fourth[0], sixth[1], fourth[1], sixth[2]]


async def test_giving_up_leaves_no_socket_open(silent: Address) -> None:
    opening = asyncio.ensure_future(reached(dialer_of(silent)))
    for _ in range(5):
        await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening  # a socket that is left behind is a ResourceWarning, which is an error


# ---- proxies ----


class Tunnels:
    """A proxy that answers CONNECT with `answer`, and carries bytes if that is a 200."""

    def __init__(self, answer: bytes = b"HTTP/1.1 200 OK\r\n\r\n") -> None:
        self.answer = answer
        self.heads: list[bytes] = []
        self.port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Tunnels"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            writer.write(self.answer)
            if b" 200 " in self.answer:
                host, _, port = head.split(b" ")[1].decode().rpartition(":")
                far_reader, far_writer = await asyncio.open_connection(host, int(port))
                await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        finally:
            writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while block := await reader.read(65536):
            writer.write(block)
    writer.close()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """(certificate, key) of an engine at 127.0.0.1 that vouches for itself."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *(str(OPENSSL), "req", "-x509", "-newkey", "ec", "-pkeyopt"),
            *("ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=engine"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


@pytest.mark.skipif(OPENSSL is None, reason="makes its certificate with openssl")
async def test_an_https_engine_is_reached_through_a_tunnel(certificate: tuple[Path, Path]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    async with ScriptedEngine(tls=context) as engine, Tunnels().running() as proxy:
        client = HttpEngine(
            engine.url, verify=str(certificate[0]), proxy=f"http://me:s3cret@127.0.0.1:{proxy.port}"
        )
        answer = await client.post("/x", b"{}", ATTEMPT_S)
        await client.aclose()
    assert isinstance(answer, Reply)
    place = engine.url.removeprefix("https://").removesuffix("/v1").encode()
    assert proxy.heads == [
        b"CONNECT %b HTTP/1.1\r\nHost: %b\r\nProxy-Authorization: Basic bWU6czNjcmV0\r\n\r\n"
        % (place, place)
    ]
    assert "proxy-authorization" not in engine.requests[0].headers


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 407 No\r\n\r\n", "407: it wants other credentials"),
        (b"HTTP/1.1 502 No\r\n\r\n", "answered CONNECT with 502"),
        (b"SSH-2.0\r\n\r\n", "no HTTP"),
        (b"", "the proxy hung up"),
    ],
)
async def test_a_proxy_that_opens_no_tunnel_is_told_by_its_answer(
    answer: bytes, words: str
) -> None:
    async with Tunnels(answer).running() as proxy:
        client = HttpEngine(
            "https://far.invalid/v1", proxy=f"http://me:s3cret@127.0.0.1:{proxy.port}"
        )
        failed = await client.post("/x", b"{}", ATTEMPT_S)
        await client.aclose()
    assert isinstance(failed, NoReply)
    assert failed.kind == "connect"
    assert f"through the proxy 127.0.0.1:{proxy.port}: " in failed.detail
    assert words in failed.detail
    assert "s3cret" not in failed.detail


async def test_a_plain_engine_is_asked_for_at_the_proxy_by_its_whole_address(
    upstream: ScriptedEngine,
) -> None:
    place = upstream.url.removesuffix("/v1").removeprefix("http://")
    client = HttpEngine("http://far.invalid/v1", proxy=f"http://me:s3cret@{place}")
    await client.get("/models", ATTEMPT_S)
    await client.aclose()
    (asked,) = upstream.polls
    assert asked.path == "http://far.invalid/v1/models"
    assert asked.headers["host"] == "far.invalid"
    assert asked.headers["proxy-authorization"] == "Basic bWU6czNjcmV0"
