"""A command line run in this process, and a stand-in for the server it talks to."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import httpx

from lowtide.cli.client.http_client import HttpClient
from lowtide.cli.client.server_client import ServerClient

Reply = httpx.Response | Exception


class Outcome:
    """How a command ended, and what it wrote."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err


class Run(Protocol):
    """`main` with these arguments."""

    def __call__(self, *arguments: str | Path) -> Outcome: ...


class Scripted:
    """Answers requests in turn; keeps them, and the pauses that the client made."""

    def __init__(self, replies: Sequence[Reply]) -> None:
        self._replies = iter(replies)
        self.requests: list[httpx.Request] = []
        self.pauses: list[float] = []
        http = HttpClient(
            "http://127.0.0.1:8000",
            "secret",
            transport=httpx.MockTransport(self._answer),
            sleep=self.pauses.append,
        )
        self.client = ServerClient(http)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        reply = next(self._replies)
        if isinstance(reply, Exception):
            raise reply
        return reply


class Make(Protocol):
    """A server that gives these replies, one a request."""

    def __call__(self, *replies: Reply) -> Scripted: ...
