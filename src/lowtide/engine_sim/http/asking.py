"""What an HTTP body asks for, in the shapes of OpenAI's four generation endpoints.

`read_ask` turns a body into prompts and lengths, or a `Refusal` that carries the status and the
words; nothing is assumed about a body but that it is a JSON object.
"""

import itertools
import json
import random
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from lowtide.engine_sim.http.options import ServerOptions
from lowtide.engine_sim.http.tokenizer import (
    filler,
    pieces_of,
    tokens_of,
    tokens_of_chat,
)
from lowtide.engine_sim.state.requests import SimRequest

Kind = Literal["chat", "completion", "response", "embedding"]

WORST_PRIORITY: Final = 2**31
"""SGLang's place for a request without a priority."""

_CHOICES_MAX: Final = 128
_numbers: Final = itertools.count(1)


class Refusal(Exception):
    """The answer to a body that cannot be served."""

    def __init__(self, status: int, message: str, code: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True, slots=True)
class Ask:
    """A body that can be served."""

    kind: Kind
    model: str
    requests: list[SimRequest]
    answers: list[str]
    """What each of the requests generates, whole."""
    finish_reason: Literal["length", "stop"]
    stream: bool
    include_usage: bool
    body: Mapping[str, Any]

    @property
    def prompt_tokens(self) -> int:
        """Each prompt once, however many choices it has."""
        choices = self.body.get("n") or 1 if self.kind in ("chat", "completion") else 1
        return sum(r.prompt_tokens for r in self.requests[::choices])

    @property
    def cached_tokens(self) -> int:
        choices = self.body.get("n") or 1 if self.kind in ("chat", "completion") else 1
        return sum(r.cached_tokens for r in self.requests[::choices])


def read_ask(
    kind: Kind, body: Mapping[str, Any], headers: Mapping[str, str], options: ServerOptions
) -> Ask:
    """Raises Refusal. Header names in lower case."""
    model = body.get("model") or options.served_model
    if model != options.served_model:
        raise Refusal(404, f"The model `{model}` does not exist.", "NotFoundError")
    prompts = _prompts(kind, body)
    if not prompts or not all(prompts):
        raise Refusal(400, "The prompt is empty.")
    limit = None if kind == "embedding" else _limit(body)
    choices = _whole(body.get("n"), "n") or 1
    if choices * len(prompts) > _CHOICES_MAX:
        raise Refusal(400, f"At most {_CHOICES_MAX} choices.")
    priority = _priority(body, headers, options)
    requests, answers, natural = [], [], 0
    for prompt in prompts:
        for choice in range(choices):
            seed = zlib.crc32(repr((options.seed, choice, prompt)).encode())
            natural = _natural_length(kind, limit, headers, seed, options)
            made = min(natural, limit) if limit is not None else natural
            made = _fitted(len(prompt), made, limit, options)
            answer = "" if kind == "embedding" else filler(made, seed)
            requests.append(_request(prompt, answer, made, priority, body))
            answers.append(answer)
    stops = limit is None or natural < limit
    return Ask(
        kind=kind,
        model=model,
        requests=requests,
        answers=answers,
        finish_reason="stop" if stops else "length",
        stream=bool(body.get("stream")) and kind != "embedding",
        include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
        body=body,
    )


def _request(
    prompt: list[int], answer: str, made: int, priority: int, body: Mapping[str, Any]
) -> SimRequest:
    return SimRequest(
        next(_numbers),
        pieces_of(prompt),
        made,
        priority=priority,
        interactive=priority <= 0,
        salt=body.get("cache_salt"),
        # A next turn repeats the answer, so its blocks are to be found by their content.
        sequence=pieces_of([*prompt, *tokens_of(answer)]) if answer else None,
    )


def _prompts(kind: Kind, body: Mapping[str, Any]) -> list[list[int]]:
    if kind == "chat":
        messages = body.get("messages")
        if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
            raise Refusal(400, "`messages` must be a list of objects.")
        return [tokens_of_chat(messages, body.get("tools"))] if messages else []
    given = body.get("prompt" if kind == "completion" else "input")
    if kind == "response" and isinstance(given, list):
        system = [{"role": "system", "content": body["instructions"]}] * ("instructions" in body)
        return [tokens_of_chat([*system, *(m for m in given if isinstance(m, dict))])]
    if kind == "response" and isinstance(given, str):
        return [tokens_of_chat([{"role": "user", "content": given}])]
    if isinstance(given, list) and not all(isinstance(item, int) for item in given):
        return [_tokens(each) for each in given]
    return [_tokens(given)]


def _tokens(given: object) -> list[int]:
    """The token ids of a text, or of a list of token ids. Raises Refusal."""
    if isinstance(given, str):
        return tokens_of(given)
    if isinstance(given, list) and all(isinstance(item, int) for item in given):
        return given
    raise Refusal(400, "A prompt is a string or a list of token ids.")


def _limit(body: Mapping[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens", "max_output_tokens"):
        if body.get(name) is not None:
            limit = _whole(body[name], name)
            if limit < 1:
                raise Refusal(400, f"{name} must be at least 1, got {limit}.")
            return limit
    return None


def _whole(value: object, name: str) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise Refusal(400, f"`{name}` must be a whole number.")
    return value


def _natural_length(
    kind: Kind,
    limit: int | None,
    headers: Mapping[str, str],
    seed: int,
    options: ServerOptions,
) -> int:
    """How long the answer would become if nothing cut it off."""
    if kind == "embedding":
        return 1
    tokens = headers.get("x-sim-output-tokens", "")
    if tokens.isdigit() and int(tokens):
        return int(tokens)
    if limit is not None:  # also what `ignore_eos` comes to
        return limit
    length = random.Random(seed).lognormvariate(options.output_mu, options.output_sigma)
    return max(1, round(length))


def _fitted(prompt: int, made: int, limit: int | None, options: ServerOptions) -> int:
    """Refuses as vLLM does what was asked for and cannot fit; else stays within the context."""
    room = options.context_max - prompt
    if room < 1 or (limit is not None and limit > room):
        raise Refusal(
            400,
            f"This model's maximum context length is {options.context_max} tokens. However, you "
            f"requested {prompt + (limit or 1)} tokens ({prompt} in the messages, {limit or 1} in "
            "the completion).",
        )
    return min(made, room)


def _priority(body: Mapping[str, Any], headers: Mapping[str, str], options: ServerOptions) -> int:
    """The call's priority as the scheduler orders it: a lower one goes first, whatever the face's
    sign.
    """
    given = body.get("priority")
    if options.face == "vllm":
        header = headers.get("x-vllm-priority", "")
        if header.removeprefix("-").isdigit():  # anything else is ignored
            given = int(header)
    if options.scheduling_policy != "priority":
        return _whole_or_zero(given)
    if options.face == "sglang":
        return WORST_PRIORITY if given is None else -_whole_or_zero(given)
    return _whole_or_zero(given)


def _whole_or_zero(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def read_object(raw: bytes) -> dict[str, Any]:
    """A JSON object. Raises Refusal."""
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise Refusal(400, f"The body is not JSON: {error}.") from None
    if not isinstance(body, dict):
        raise Refusal(400, "The body must be a JSON object.")
    return body
