"""One call to a Lowtide server: headers, retries, and failures turned into words.

`client.ServerClient` builds the verbs on it. A call is repeated on 429, 502, 503 and 504 and, once
the server has been reached, on a broken connection; it waits as long as the server asks. Invariant:
a repeated POST says that it is one, so that the server can recognise it.
"""

import itertools
import random
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import httpx

from lowtide import limits
from lowtide.cli.client.address import is_this_machine
from lowtide.cli.client.objects import JsonObject
from lowtide.cli.terminal.command_errors import CommandError
from lowtide.core.reporting.shown_url import shown_url
from lowtide.version import VERSION

RETRIED_STATUSES: Final = frozenset({429, 502, 503, 504})


class ServerRefused(CommandError):
    """The server answered with an error."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        hint: str | None = None,
        *,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, hint, code=code)
        self.status = status
        self.retry_after_s = retry_after_s


class ServerUnreachable(CommandError):
    """No answer came: nothing listens at the address, or the connection broke every time."""


class HttpClient:
    """Calls below `{server}/openai/v1`. `sleep` is replaced in tests."""

    def __init__(
        self,
        server: str,
        api_key: str | None = None,
        *,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.server = server
        self._sleep = sleep
        self._reached = False
        headers = {"User-Agent": f"lowtide-cli/{VERSION}"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        self._http = httpx.Client(
            base_url=f"{server}/openai/v1",
            headers=headers,
            timeout=httpx.Timeout(
                limits.CLIENT_READ_TIMEOUT_S, connect=limits.CLIENT_CONNECT_TIMEOUT_S
            ),
            transport=transport,
            trust_env=not is_this_machine(server),
            follow_redirects=True,
        )

    def close(self) -> None:
        self._http.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: Mapping[str, str | int] | None = None,
        content: Callable[[], Iterator[bytes]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> JsonObject:
        """A JSON answer. `content` makes the body anew for each try.

        Raises ServerRefused for an error answer, ServerUnreachable when none came.
        """
        named = {"Idempotency-Key": secrets.token_hex(16)} if method == "POST" else {}
        for tried in itertools.count():
            sent = named | dict(headers or {})
            if tried:
                sent["X-Stainless-Retry-Count"] = str(tried)  # what the SDKs say; protocol.md 9.14
            try:
                answer = self._http.request(
                    method,
                    path,
                    json=json,
                    params=params,
                    content=content() if content else None,
                    headers=sent,
                )
                return self._read(answer)
            except (httpx.TransportError, ServerRefused) as error:
                self.wait_to_retry(tried, error)
        raise AssertionError("counting never ends")

    @contextmanager
    def streaming(
        self,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[httpx.Response]:
        """A GET whose body is read piece by piece.

        Raises ServerRefused. A broken connection raises httpx.TransportError, for the caller to
        hand to `wait_to_retry`.
        """
        sent = {"Accept-Encoding": "identity"} | dict(headers or {})  # offsets are of the file
        with self._http.stream("GET", path, params=params, headers=sent) as answer:
            self._reached = True
            if answer.status_code >= 400:
                answer.read()
                raise self._refusal(answer)
            yield answer

    def wait_to_retry(self, tried: int, error: httpx.TransportError | ServerRefused) -> None:
        """Sleeps before another try, where that makes sense; else raises what the failure comes to.

        `tried` counts the tries before the one that failed.
        """
        is_last = tried + 1 >= limits.CLIENT_TRIES_MAX
        if isinstance(error, ServerRefused):
            if is_last or error.status not in RETRIED_STATUSES:
                raise error
            self._sleep(_pause_s(tried, error.retry_after_s))
            return
        # A first call that finds nobody says so at once: the address is wrong, or nothing runs.
        is_stranger = not self._reached and not isinstance(
            error, httpx.ReadError | httpx.WriteError
        )
        if is_last or is_stranger:
            raise self._gone(error) from None
        self._sleep(_pause_s(tried))

    def _gone(self, error: httpx.TransportError) -> ServerUnreachable:
        hint = (
            "Start one with `lowtide serve`, name another with --server, or use `lowtide run`,"
            " which needs none."
        )
        if self.server.startswith("https://") and "SSL" in str(error):
            return self._without_tls(error)
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return ServerUnreachable(
                f"No server answers at {shown_url(self.server)}.", hint, code="no_server"
            )
        detail = str(error) or type(error).__name__
        return ServerUnreachable(
            f"The connection to {shown_url(self.server)} broke: {detail}.", hint, code="no_server"
        )

    def _without_tls(self, error: httpx.TransportError) -> ServerUnreachable:
        shown = shown_url(self.server)
        if "CERTIFICATE" in str(error):
            message = f"The certificate of {shown} is not accepted: {error}."
            return ServerUnreachable(
                message, "SSL_CERT_FILE names the file with its authority.", code="no_server"
            )
        plain = shown.replace("https://", "http://", 1)
        return ServerUnreachable(
            f"What answers at {shown} does not speak TLS.", f"Try {plain}.", code="no_server"
        )

    def _read(self, answer: httpx.Response) -> JsonObject:
        self._reached = True
        if answer.status_code >= 400:
            raise self._refusal(answer)
        try:
            parsed = answer.json()
        except ValueError:
            raise self._not_lowtide(answer) from None
        if not isinstance(parsed, dict):
            raise self._not_lowtide(answer)
        return parsed

    def _refusal(self, answer: httpx.Response) -> ServerRefused:
        try:
            error = answer.json()["error"]
            message, code = str(error["message"]), error.get("code") or error.get("type")
        except (ValueError, KeyError, TypeError, AttributeError):
            return self._not_lowtide(answer)
        hint = None
        if answer.status_code == 401:
            hint = "Give the key with --api-key or LOWTIDE_API_KEY."
        after = answer.headers.get("retry-after", "")
        return ServerRefused(
            answer.status_code,
            str(code or "refused"),
            message,
            hint,
            retry_after_s=float(after) if after.isdigit() else None,
        )

    def _not_lowtide(self, answer: httpx.Response) -> ServerRefused:
        if answer.status_code == 413:
            return ServerRefused(
                413,
                "request_too_large",
                f"Something before {self.server}, a proxy perhaps, takes no request of this size"
                " (it answered 413).",
                "Let it take larger ones (client_max_body_size in nginx), or name the server"
                " itself with --server.",
            )
        kind = answer.headers.get("content-type", "no content type").partition(";")[0]
        return ServerRefused(
            answer.status_code,
            "not_lowtide",
            f"{shown_url(str(answer.request.url))} answered {answer.status_code} ({kind}),"
            " which is not what a Lowtide server sends.",
            "Check --server.",
        )


def _pause_s(tried: int, asked_s: float | None = None) -> float:
    """Seconds: what the server asks for, within bounds, else a back-off, half of it by chance."""
    if asked_s is not None:
        return min(asked_s, limits.CLIENT_RETRY_AFTER_S_MAX)
    longest = min(limits.CLIENT_BACKOFF_S * 2.0**tried, limits.CLIENT_BACKOFF_S_MAX)
    return longest * random.uniform(0.5, 1)
