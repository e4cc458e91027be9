"""The sender of webhooks: one POST to a checked address, bounded, without redirects."""

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import ip_network

import pytest
from receiver import ALLOWED, receiver, status

from lowtide import limits
from lowtide.core.webhooks.schedule import Attempt
from lowtide.outbound.sender import HttpSender

BODY = b'{"id":"evt_1"}'
HEADERS = {"webhook-id": "evt_1"}


class Names:
    """A name server that says what it is told, and remembers what it was asked."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def sender(names: Names | None = None, *, proxy: str | None = None) -> HttpSender:
    return HttpSender([ip_network(ALLOWED)], proxy, resolve=names or Names(["127.0.0.1"]))


async def test_an_event_is_posted_as_it_is_with_its_headers() -> None:
    async with receiver(status("204 No Content")) as there:
        url = f"http://hooks.example:{there.port}/lowtide?x=1"
        assert await sender().send(url, HEADERS, BODY) == Attempt(204)
    head, _, body = there.requests[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /lowtide?x=1 HTTP/1.1"
    assert f"Host: hooks.example:{there.port}" in lines
    assert "Content-Type: application/json" in lines
    assert "webhook-id: evt_1" in lines
    assert body == BODY


async def test_a_name_of_a_private_address_is_not_called() -> None:
    async with receiver(status("200 OK")) as there:
        names = Names(["127.0.0.1"])
        attempt = await HttpSender(resolve=names).send(
            f"http://hooks.example:{there.port}/", {}, BODY
        )
    assert there.requests == [] and there.closed.is_set() is False
    assert attempt.status_code is None
    assert 'allow_networks = ["127.0.0.1/32"]' in (attempt.error or "")


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"])
async def test_a_private_address_by_its_number_is_not_called(host: str) -> None:
    attempt = await HttpSender(resolve=Names()).send(f"http://{host}:9/", {}, BODY)
    assert "allow_networks" in (attempt.error or "")


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f000001", "localhost"])
async def test_another_spelling_of_this_machine_is_resolved_and_refused(host: str) -> None:
    own = HttpSender()
    attempt = await own.send(f"http://{host}:9/", {}, BODY)
    refusal = await own.refusal(f"http://{host}:9/")
    await own.aclose()
    assert "allow_networks" in (attempt.error or "")
    assert "allow_networks" in (refusal or "")


async def test_a_name_with_one_address_that_is_refused_is_refused_as_a_whole() -> None:
    names = Names(["93.184.216.34", "10.0.0.1"])
    assert "10.0.0.1" in (await sender(names).refusal("https://hooks.example/") or "")
    attempt = await sender(names).send("https://hooks.example/", {}, BODY)
    assert "10.0.0.1" in (attempt.error or "")


async def test_the_name_is_resolved_and_checked_anew_at_each_attempt() -> None:
    async with receiver(status("200 OK")) as there:
        names = Names(["127.0.0.1"], ["169.254.169.254"])
        one, url = sender(names), f"http://hooks.example:{there.port}/"
        assert (await one.send(url, {}, BODY)).succeeded
        second = await one.send(url, {}, BODY)
    assert "169.254.169.254" in (second.error or "")
    assert names.asked == ["hooks.example"] * 2
    assert len(there.requests) == 1


async def test_the_connection_goes_to_the_checked_address_and_nothing_is_resolved_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A second look-up would be a second answer: that of a name that changes in between."""
    loop, hosts = asyncio.get_running_loop(), []
    resolve = loop.getaddrinfo

    async def seen(host: str, *args: object, **rest: object) -> object:
        hosts.append(host)
        return await resolve(host, *args, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "getaddrinfo", seen, raising=False)
    async with receiver(status("200 OK")) as there:
        attempt = await sender().send(f"http://hooks.example:{there.port}/", {}, BODY)
    assert attempt.succeeded
    assert "hooks.example" not in hosts


async def test_a_redirect_is_told_and_not_followed() -> None:
    async with receiver(status("200 OK")) as other:
        answer = (
            f"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:{other.port}/\r\n\r\n"
        )
        async with receiver(answer.encode()) as there:
            attempt = await sender().send(f"http://a.example:{there.port}/", {}, BODY)
        assert attempt.status_code == 307 and not attempt.succeeded
        assert attempt.failure == "answered 307; redirects are not followed"
        assert other.requests == []


async def test_a_receiver_that_says_nothing_is_given_up_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "WEBHOOK_ATTEMPT_S", 0.05)
    async with receiver(None) as there:
        attempt = await sender().send(f"http://a.example:{there.port}/", {}, BODY)
        await there.closed.wait()
    assert attempt.status_code is None
    assert "no answer within" in (attempt.error or "")


async def test_a_name_server_that_says_nothing_is_given_up_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "WEBHOOK_RESOLVE_S", 0.05)

    async def silent(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        raise AssertionError

    one = HttpSender(resolve=silent)
    attempt = await one.send("https://a.example/", {}, BODY)
    assert "could not be resolved within" in (attempt.error or "")
    assert await one.refusal("https://a.example/") is None


async def test_an_answers_body_is_not_read_and_its_head_only_so_far() -> None:
    async with receiver(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 10_000_000) as there:
        attempt = await sender().send(f"http://a.example:{there.port}/", {}, BODY)
    assert attempt == Attempt(200)
    endless = b"HTTP/1.1 200 OK\r\nx: " + b"x" * (2 * limits.WEBHOOK_ANSWER_BYTES_MAX)
    async with receiver(endless) as there:
        attempt = await sender().send(f"http://a.example:{there.port}/", {}, BODY)
    assert "longer than 16384 bytes" in (attempt.error or "")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 2x0 OK\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 5, "1xx"),
    ],
)
async def test_an_answer_that_is_none_fails_and_says_so(answer: bytes, words: str) -> None:
    async with receiver(answer) as there:
        attempt = await sender().send(f"http://a.example:{there.port}/", {}, BODY)
    assert attempt.status_code is None and words in (attempt.error or "")


async def test_an_interim_answer_is_passed_over() -> None:
    async with receiver(b"HTTP/1.1 100 Continue\r\n\r\n" + status("201 Created")) as there:
        attempt = await sender().send(f"http://a.example:{there.port}/", {}, BODY)
    assert attempt == Attempt(201)


async def test_where_nobody_listens_the_next_address_is_tried() -> None:
    async with receiver(status("200 OK")) as there:
        names = Names(["127.0.0.9", "127.0.0.1"])
        attempt = await sender(names).send(f"http://a.example:{there.port}/", {}, BODY)
        assert attempt == Attempt(200)
        refused = await sender(Names(["127.0.0.9"])).send(
            f"http://a.example:{there.port}/", {}, BODY
        )
    assert refused.status_code is None and refused.error


async def test_a_name_that_there_is_none_of_fails_and_is_no_refusal() -> None:
    async def unknown(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(-2, "Name or service not known")

    one = HttpSender(resolve=unknown)
    attempt = await one.send("https://nobody.example/", {}, BODY)
    assert attempt.error == "Name or service not known"
    assert await one.refusal("https://nobody.example/") is None


async def test_an_address_that_is_none_fails_and_is_refused() -> None:
    attempt = await sender().send("gopher://a.example/", {}, BODY)
    assert "must begin with" in (attempt.error or "")
    assert "must begin with" in (await sender().refusal("gopher://a.example/") or "")


# ---- a proxy


async def test_a_proxy_is_asked_for_a_tunnel_to_the_checked_address() -> None:
    tunnelled = b"HTTP/1.1 200 Connection established\r\n\r\n" + status("202 Accepted")
    async with receiver(tunnelled) as proxy:
        address = f"http://user:p%40ss@127.0.0.1:{proxy.port}"
        names = Names(["127.0.0.7"])
        attempt = await sender(names, proxy=address).send("http://a.example:81/x", {}, BODY)
    assert attempt == Attempt(202)
    head = proxy.requests[0].decode().split("\r\n")
    assert head[0] == "CONNECT 127.0.0.7:81 HTTP/1.1"
    assert "Proxy-Authorization: Basic dXNlcjpwQHNz" in head


async def test_a_proxy_is_asked_for_nothing_that_is_refused() -> None:
    async with receiver(status("200 OK")) as proxy:
        one = sender(Names(["10.0.0.1"]), proxy=f"http://127.0.0.1:{proxy.port}")
        attempt = await one.send("http://a.example/", {}, BODY)
    assert proxy.requests == [] and "allow_networks" in (attempt.error or "")


async def test_a_proxy_that_refuses_is_told() -> None:
    async with receiver(status("407 Proxy Authentication Required")) as proxy:
        one = sender(proxy=f"http://127.0.0.1:{proxy.port}")
        attempt = await one.send("http://a.example/", {}, BODY)
    assert attempt.error == "the proxy answered 407 to CONNECT"


async def test_the_proxies_of_the_environment_do_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with receiver(status("200 OK")) as proxy, receiver(status("200 OK")) as there:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        attempt = await sender().send(f"http://a.example:{there.port}/", {}, BODY)
        assert attempt.succeeded and proxy.requests == []
