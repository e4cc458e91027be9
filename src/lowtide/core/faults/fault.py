"""Whose fault it is that a call did not succeed: the one table for all callers.

`fault_of` names the kind of a failure from what came back; `FAULTS` says for each kind whether the
request, the set-up of the replica, its health or its capacity is at fault, and what the operator is
told. A kind that is `judged` may also be the request's own: then it counts against the request only
if another call of the same scope, which is (replica, model, endpoint), succeeds after it
(core/faults/scope.py). Batch calls, live calls and trial calls are all classified here, through
core/faults/outcome.py. Invariant: every status code and every way to get no answer has exactly one
kind. Sources: RFC 9110 section 15; nginx, Cloudflare and AWS for the codes of their own; and the
source of vLLM, SGLang, Ollama, llama.cpp, TGI and LiteLLM for their words.
"""

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

Blame = Literal["request", "set-up", "health", "capacity"]

FaultKind = Literal[
    "content",
    "too_large",
    "background",
    "credentials",
    "payment",
    "forbidden",
    "redirect",
    "path",
    "model",
    "quota",
    "page",
    "tls",
    "server_error",
    "bad_answer",
    "proxy_timeout",
    "timeout",
    "unreachable",
    "gateway",
    "cut",
    "overload",
]


class Fault(msgspec.Struct, frozen=True):
    """One kind of failure. `judged`: the request's own if its scope succeeds afterwards.

    `code` is what an error line says when the request is at fault. `seen` is what comes back, for
    the documentation. `public_text` completes the sentence "the engine ..." for tenants, so it
    holds no address; `remedy` is for the operator.
    """

    blame: Blame
    judged: bool
    code: str
    seen: str
    public_text: str = ""
    remedy: str = ""


FAULTS: Final[Mapping[FaultKind, Fault]] = {
    "content": Fault("request", False, "request_rejected", "a 4xx that names the content"),
    "too_large": Fault("request", False, "response_too_large", "an answer above the bound"),
    "background": Fault(
        "request", False, "request_rejected", "a receipt instead of an answer (`background`)"
    ),
    "credentials": Fault(
        "set-up", True, "request_rejected", "401, 407, or words that name the key",
        "does not accept the credentials of this server",
        "Set `api_key` or `headers` of this replica to what the engine or its proxy expects.",
    ),
    "payment": Fault(
        "set-up", True, "request_rejected", "402",
        "asks for payment",
        "Settle the account at the provider of this engine.",
    ),
    "forbidden": Fault(
        "set-up", True, "request_rejected", "403, 451",
        "forbids the call",
        "Check the rights of the key, and the rules of the proxy or firewall before the engine.",
    ),
    "redirect": Fault(
        "set-up", True, "request_rejected", "3xx",
        "redirects the call to another address",
        "Set `url` of this replica to the address it redirects to; redirects are not followed.",
    ),
    "path": Fault(
        "set-up", True, "request_rejected", "404, 405, 501 and the like at the path",
        "does not offer this endpoint",
        "Check the path in `url` of this replica (most engines need `/v1`), and that the engine was"
        " started for this endpoint.",
    ),
    "model": Fault(
        "set-up", True, "request_rejected", "a refusal that names the model",
        "does not serve this model",
        "Compare the names in `/v1/models` of the engine with `models` and `names` of this replica,"
        " and with `engine_name` of the model.",
    ),
    "quota": Fault(
        "set-up", True, "request_rejected", "429 or 403 for a quota that no waiting brings back",
        "says that its quota is used up",
        "Raise the quota or the budget at the provider of this engine.",
    ),
    "page": Fault(
        "set-up", True, "engine_error", "a page of HTML, or bytes that are no HTTP",
        "answers with a web page, or with no HTTP at all",
        "Check host, port and path in `url` of this replica: something else answers there.",
    ),
    "tls": Fault(
        "set-up", True, "engine_error", "TLS on a plain port or the reverse, or a bad certificate",
        "cannot be spoken to over TLS as it is set up",
        "Check http or https in `url` of this replica, and its certificate (`ca_file`).",
    ),
    "server_error": Fault(
        "health", True, "engine_error", "500 and other 5xx, 409, 423 to 425",
        "answers with an error of its own",
        "Look into the log of the engine.",
    ),
    "bad_answer": Fault(
        "health", True, "engine_error",
        "a 200 that is no answer: an error object, no choices, an empty or cut-off body, an abort",
        "answers with something that is no answer",
        "Look into the log of the engine and of the proxies before it.",
    ),
    "proxy_timeout": Fault(
        "health", True, "timeout", "408, 504, 524, 598",
        "does not answer within the time-out of a proxy before it",
        "Raise the read time-out of the proxy before this engine above the longest call.",
    ),
    "timeout": Fault(
        "health", True, "timeout", "no complete answer within `attempt_timeout_s`",
        "does not answer in time",
        "Raise `attempt_timeout_s`, or lower `window`, if calls wait for each other in the engine.",
    ),
    "unreachable": Fault(
        "health", False, "engine_error", "no connection: refused, no address, no answer to it",
        "cannot be reached",
        "Start the engine, or check host and port in `url` of this replica.",
    ),
    "gateway": Fault(
        "health", True, "engine_error", "502, 499 and Cloudflare's 520 to 523 and 530",
        "is away, says the proxy before it",
        "Start the engine behind the proxy.",
    ),
    "cut": Fault(
        "health", True, "engine_error", "a connection that ends before the answer is complete",
        "ends connections before it has answered",
        "Look into the log of the engine: it may have died, or a balancer ends long calls.",
    ),
    "overload": Fault(
        "capacity", False, "engine_error", "429, 503, 529",
        "has no room for more calls",
        "Nothing, if it passes; else check that the engine is up behind its proxy or balancer.",
    ),
}  # fmt: skip


class StatusRow(msgspec.Struct, frozen=True):
    """The statuses from `first` to `last`; the first row that holds a status counts."""

    first: int
    last: int
    kind: FaultKind
    who: str = "RFC 9110"


STATUS_ROWS: Final = (
    StatusRow(300, 399, "redirect"),
    StatusRow(401, 401, "credentials"),
    StatusRow(402, 402, "payment"),
    StatusRow(403, 403, "forbidden"),
    StatusRow(404, 405, "path"),
    StatusRow(407, 407, "credentials"),
    StatusRow(408, 408, "proxy_timeout", "LiteLLM and proxies"),
    StatusRow(409, 409, "server_error"),
    StatusRow(410, 410, "path"),
    StatusRow(415, 415, "path"),
    StatusRow(421, 421, "path"),
    StatusRow(423, 425, "server_error", "424 is TGI's for a failed generation"),
    StatusRow(426, 426, "path"),
    StatusRow(429, 429, "overload"),
    StatusRow(440, 440, "credentials", "Microsoft's login time-out"),
    StatusRow(444, 444, "gateway", "nginx hung up"),
    StatusRow(451, 451, "forbidden"),
    StatusRow(460, 460, "gateway", "AWS: the caller left"),
    StatusRow(495, 497, "tls", "nginx: certificates, and HTTP on an HTTPS port"),
    StatusRow(498, 498, "credentials", "an invalid token"),
    StatusRow(499, 499, "gateway", "nginx: the caller left"),
    StatusRow(400, 499, "content"),
    StatusRow(501, 501, "path"),
    StatusRow(502, 502, "gateway"),
    StatusRow(503, 503, "overload"),
    StatusRow(504, 504, "proxy_timeout"),
    StatusRow(509, 509, "quota", "bandwidth used up"),
    StatusRow(511, 511, "credentials"),
    StatusRow(520, 523, "gateway", "Cloudflare: the origin is away"),
    StatusRow(524, 524, "proxy_timeout", "Cloudflare"),
    StatusRow(525, 526, "tls", "Cloudflare: TLS to the origin"),
    StatusRow(529, 529, "overload", "hosted engines"),
    StatusRow(530, 530, "gateway", "Cloudflare"),
    StatusRow(561, 561, "credentials", "AWS"),
    StatusRow(598, 598, "proxy_timeout", "proxies"),
    StatusRow(500, 599, "server_error"),
    StatusRow(0, 199, "bad_answer", "no final status"),
    StatusRow(200, 299, "bad_answer", "a success whose body is no answer"),
    StatusRow(600, 999, "bad_answer", "no status of HTTP"),
)


class Quirk(msgspec.Struct, frozen=True):
    """Words, in lower case, that tell more than the status they come with."""

    statuses: frozenset[int]
    words: tuple[str, ...]
    kind: FaultKind
    who: str


_REFUSALS: Final = frozenset({400, 401, 403, 404, 422, 429, 500, 501})

QUIRKS: Final = (
    Quirk(
        _REFUSALS,
        ("insufficient_quota", "exceeded your current quota", "credit balance is too low",
         "billing_hard_limit", "budget has been exceeded", "exceededbudget"),
        "quota", "OpenAI, Anthropic, LiteLLM",
    ),
    Quirk(
        frozenset({400, 403, 404, 422}),
        ("model_not_found", "invalid model name", "deploymentnotfound", "no such model",
         "does not have access to model", "not a valid model id", "unknown model"),
        "model", "OpenAI, LiteLLM, Azure, OpenRouter, llama-swap",
    ),
    Quirk(frozenset({404}), ("model",), "model", "vLLM, SGLang, Ollama"),
    Quirk(
        frozenset({400, 403}),
        ("api key not valid", "invalid api key", "incorrect api key", "invalid_api_key"),
        "credentials", "Google, OpenAI-style proxies",
    ),
    Quirk(
        frozenset({400}),
        ("plain http request was sent to https port", "http request to an https server",
         "speaking plain http to an ssl-enabled"),
        "tls", "nginx, Go, Apache",
    ),
    Quirk(
        frozenset({400, 500}),
        ("does not support chat completions", "does not support completions api",
         "does not support embeddings", "does not support the responses api",
         "start it with `--embeddings`"),
        "path", "vLLM, llama.cpp",
    ),
)  # fmt: skip

TRANSPORT: Final[Mapping[str, FaultKind]] = {
    "connect": "unreachable",
    "timeout": "timeout",
    "broken": "cut",
    "oversize": "too_large",
}
"""What each `NoReply.kind` is; `_TLS_WORDS` in its detail make it `tls`."""

_TLS_WORDS: Final = (
    "wrong_version_number",
    "wrong version number",
    "record layer failure",
    "certificate",
    "ssl:",
    "tlsv1",
    "tls handshake",
    "speaks tls",
)

_BY_STATUS: Final[tuple[FaultKind, ...]] = tuple(
    next(row.kind for row in STATUS_ROWS if row.first <= status <= row.last)
    for status in range(1000)
)


def fault_of_status(status: int, said: str = "") -> FaultKind:
    """The kind of a reply that is no success; `said` are the engine's words."""
    kind: FaultKind = _BY_STATUS[status] if 0 <= status < 1000 else "bad_answer"
    text = said.lower()
    for quirk in QUIRKS:
        if status in quirk.statuses and any(word in text for word in quirk.words):
            return quirk.kind
    return kind


def fault_of_transport(kind: str, detail: str) -> FaultKind:
    """The kind of an attempt without a reply, from `NoReply.kind` and its detail."""
    text = detail.lower()
    if kind == "connect" and any(word in text for word in _TLS_WORDS):
        return "tls"
    if kind == "broken" and "spoke no http" in text:
        return "page"
    return TRANSPORT[kind]
