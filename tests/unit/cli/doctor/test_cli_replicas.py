"""What `lowtide doctor` finds at a replica: what will fail fails, with its own remedy."""

import asyncio

import msgspec
import pytest

from lowtide.cli.doctor.replicas import check_replica
from lowtide.config import ReplicaSettings
from testkit.scripted_engine import ScriptedEngine, reply

MODELS = {"object": "list", "data": [{"id": "theirs"}]}
EMPTY_REFUSED = reply({"error": {"message": "messages is missing"}}, 400)
NOT_FOUND = reply({"detail": "Not Found"}, 404)
PAGE = reply(b"<html><title>Welcome to nginx!</title></html>", 200)


async def finding_of(*answers: bytes) -> tuple[str, str, str]:
    async with ScriptedEngine(*((answer,) for answer in answers)) as engine:
        finding = await check_replica(
            ReplicaSettings(url=engine.url, models=("ours",), api_key="sk-very-secret"),
            {"ours": "theirs"},
        )
    assert "sk-very-secret" not in finding.what + finding.remedy
    return finding.verdict, finding.what, finding.remedy


@pytest.mark.parametrize(
    ("answers", "verdict", "words", "remedy"),
    [
        ((reply(MODELS), EMPTY_REFUSED), "ok", "serves theirs", ""),
        ((reply({"data": [{"id": "theirs:latest"}]}), EMPTY_REFUSED), "ok", "serves theirs", ""),
        ((reply({"data": [{"id": "theirs:7b"}]}),), "fail", "serves theirs:7b, not", "models"),
        ((NOT_FOUND, EMPTY_REFUSED), "ok", "no list of models", ""),
        ((reply({"data": [{"id": "other"}]}),), "fail", "serves other, not theirs", "models"),
        ((reply({"oops": 1}),), "fail", "cannot be read", "host, port and path"),
        ((PAGE,), "fail", "cannot be read", "host, port and path"),
        ((reply({"error": "key"}, 401),), "fail", "GET /models gave 401", "api_key"),
        ((reply({"error": "no"}, 403),), "fail", "GET /models gave 403", "rights"),
        ((reply({}, 302),), "fail", "GET /models gave 302", "redirects"),
        ((NOT_FOUND,) * 4, "fail", "POST /chat/completions gave 404", "/v1"),
        (
            (reply(MODELS), reply({"error": {"message": "bad key"}}, 401)),
            "fail",
            "POST /chat/completions gave 401 (bad key)",
            "api_key",
        ),
        ((NOT_FOUND, NOT_FOUND, NOT_FOUND, EMPTY_REFUSED), "ok", "no list of models", ""),
    ],
)
async def test_what_an_engine_answers_decides(
    answers: tuple[bytes, ...], verdict: str, words: str, remedy: str
) -> None:
    found, what, reported = await finding_of(*answers)
    assert (found, words in what) == (verdict, True), what
    assert remedy in reported
    assert bool(reported) == (verdict != "ok")


@pytest.mark.parametrize(
    ("replica", "words"),
    [
        (ReplicaSettings(url="http://unset", models=("*",)), "serves theirs"),
        (
            ReplicaSettings(url="http://unset", models=("ours",), names={"ours": "theirs"}),
            "serves theirs",
        ),
        (ReplicaSettings(url="http://unset", names={"ours": "gone"}), "serves theirs, not gone"),
    ],
)
async def test_names_and_lists_of_a_replica_are_held_against_what_it_serves(
    replica: ReplicaSettings, words: str
) -> None:
    async with ScriptedEngine((reply(MODELS),), (EMPTY_REFUSED,)) as engine:
        finding = await check_replica(msgspec.structs.replace(replica, url=engine.url), {})
    assert words in finding.what


async def test_a_replica_that_is_gone_fails_with_a_remedy() -> None:
    finding = await check_replica(ReplicaSettings(url="http://127.0.0.1:9/v1", models=("m",)), {})
    assert finding.verdict == "fail"
    assert finding.remedy.startswith("Start the engine")


async def test_tls_asked_of_a_plain_port_is_called_that() -> None:
    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        replica = ReplicaSettings(url=f"https://127.0.0.1:{port}/v1", models=("m",))
        finding = await check_replica(replica, {})
    assert finding.verdict == "fail"
    assert "http:// and not https://" in finding.remedy
