"""The usual fields of request bodies: what they may hold, by endpoint.

One table, read in two ways. `line_type` makes of it the type that the validator's fast path decodes
a line into, so that checking costs no step of its own. `misfit` checks a value that was decoded
without a type: it takes more, because engines do. Invariant: what passes the fast path has no
misfit.

What is refused is what OpenAI and the engines built on pydantic (vLLM, SGLang) both refuse: they
take numbers in strings ("7") and whole floats (7.0). -1 as a bound of the answer means none to
LM Studio and llama.cpp. Values that only some engine refuses, or only above some number, are that
engine's to judge. Null is as good as absent everywhere.
"""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta


class JsonObject(msgspec.Struct, gc=False):
    """Any JSON object: without fields to fill, msgspec checks its members and keeps none."""


class JsonArray(msgspec.Struct, array_like=True, gc=False):
    """Any JSON array, in the same way."""


class Field(msgspec.Struct, frozen=True):
    """`type`: what the fast path takes. `fits`: whether a decoded value may stand there. `words`:
    what it must be, behind "must be".
    """

    type: Any
    fits: Callable[[Any], bool]
    words: str


def number_of(value: object) -> float | None:
    """The number that a value is, or that its text is to pydantic; None for any other value."""
    if isinstance(value, int | float):
        return value
    if not isinstance(value, str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _whole(low: float, words: str) -> Field:
    def fits(value: object) -> bool:
        number = number_of(value)
        if isinstance(number, float) and not number.is_integer():
            return False
        return number is not None and number >= low

    strict = int if low == -math.inf else Annotated[int, Meta(ge=int(low))]
    return Field(strict, fits, words)


def _number(low: float, high: float, words: str) -> Field:
    def fits(value: object) -> bool:
        number = number_of(value)
        if isinstance(number, float) and not math.isfinite(number):
            return False
        return number is not None and low <= number <= high

    strict: Any = float
    if low > -math.inf:
        strict = Annotated[float, Meta(ge=low)]
    if high < math.inf:
        strict = Annotated[float, Meta(ge=low, le=high)]
    return Field(strict, fits, words)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_texts(value: object) -> bool:
    return _is_text(value) or (isinstance(value, list) and all(map(_is_text, value)))


def _is_flag(value: object) -> bool:
    """A boolean, or what pydantic reads as one."""
    if isinstance(value, str):
        return value.lower() in ("true", "false", "1", "0", "yes", "no", "on", "off", "t", "f")
    return isinstance(value, bool) or value in (0, 1)


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _is_objects(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_object, value))


_BOUND: Final = _whole(-1, "a whole number from 0 up")
_COUNT: Final = _whole(1, "a whole number from 1 up")
_INTEGER: Final = _whole(-math.inf, "a whole number")
_TEMPERATURE: Final = _number(0, math.inf, "a number from 0 up")
_SHARE: Final = _number(0, 1, "a number from 0 to 1")
_PENALTY: Final = _number(-math.inf, math.inf, "a number")
_STOP: Final = Field(str | list[str], _is_texts, "a string or an array of strings")
_TEXT: Final = Field(str, _is_text, "a string")
_FLAG: Final = Field(bool, _is_flag, "true or false")
_OBJECT: Final = Field(JsonObject, _is_object, "an object")
_OBJECTS: Final = Field(list[JsonObject], _is_objects, "an array of objects")
_TEXT_OR_OBJECT: Final = Field(
    str | JsonObject, lambda value: _is_text(value) or _is_object(value), "a string or an object"
)
_TEXT_OR_ARRAY: Final = Field(
    str | JsonArray,
    lambda value: isinstance(value, str | list),
    "a string or an array",
)

_SAMPLING: Final = {
    "max_tokens": _BOUND,
    "temperature": _TEMPERATURE,
    "top_p": _SHARE,
    "n": _COUNT,
    "stop": _STOP,
    "seed": _INTEGER,
    "presence_penalty": _PENALTY,
    "frequency_penalty": _PENALTY,
    "logit_bias": _OBJECT,
    "user": _TEXT,
}
_TOOLS: Final = {
    "tools": _OBJECTS,
    "tool_choice": _TEXT_OR_OBJECT,
    "parallel_tool_calls": _FLAG,
}
BODY_FIELDS: Final[Mapping[str, Mapping[str, Field]]] = {
    "/v1/chat/completions": {
        "max_completion_tokens": _BOUND,
        **_SAMPLING,
        **_TOOLS,
        "response_format": _OBJECT,
        "logprobs": _FLAG,
        "top_logprobs": _INTEGER,
    },
    "/v1/completions": {
        **_SAMPLING,
        "best_of": _COUNT,
        "logprobs": _INTEGER,
        "echo": _FLAG,
        "suffix": _TEXT,
    },
    "/v1/embeddings": {"dimensions": _COUNT, "encoding_format": _TEXT, "user": _TEXT},
    "/v1/responses": {
        "max_output_tokens": _BOUND,
        "temperature": _TEMPERATURE,
        "top_p": _SHARE,
        **_TOOLS,
        "instructions": _TEXT_OR_ARRAY,
        "reasoning": _OBJECT,
        "text": _OBJECT,
        "user": _TEXT,
    },
}
"""The checked fields of each endpoint, besides `model`, the prompt, and what a batch cannot
have (stream, background).
"""

UNSUPPORTED_IN_RESPONSES: Final = ("background", "previous_response_id")
"""Fields of /v1/responses that must not be set: the first is answered with a receipt that no client
of a batch could use, and the second names a response that no engine has stored.
"""

_PROMPT_TYPES: Final[Mapping[str, Any]] = {
    "messages": list[JsonObject],
    "prompt": str | JsonArray,
    "input": str | JsonArray,
}
_LOOSE_PROMPT_TYPES: Final = {**_PROMPT_TYPES, "messages": list[Any]}


def line_type(
    endpoint: str, prompt_field: str, *, is_strict: bool, names_model: bool = True
) -> Any:
    """The Struct that a line of the endpoint is decoded into. With `is_strict` the fields of
    BODY_FIELDS and the messages have their types, else any value passes there. Unless
    `names_model`, the body may leave its model out.
    """
    is_responses = endpoint == "/v1/responses"
    prompt_types = _PROMPT_TYPES if is_strict else _LOOSE_PROMPT_TYPES
    usual = [
        (name, field.type | None if is_strict else Any, None)
        for name, field in BODY_FIELDS[endpoint].items()
    ]
    body = msgspec.defstruct(
        "Body",
        [
            *([("model", str)] if names_model else []),
            (prompt_field, prompt_types[prompt_field]),
            *([] if names_model else [("model", str, "")]),
            ("stream", bool | None, None),
            *([(name, Any, None) for name in UNSUPPORTED_IN_RESPONSES] if is_responses else []),
            *usual,
        ],
        gc=False,
    )
    envelope = [("custom_id", str), ("body", body)]
    return msgspec.defstruct(
        "Line", [*envelope, ("method", str | None, None), ("url", str | None, None)], gc=False
    )


def has_misfit(endpoint: str, body: object) -> bool:
    """Whether a usual field of a body, decoded without types, holds what no engine takes."""
    if not _is_objects(getattr(body, "messages", [])):
        return True
    return any(
        (value := getattr(body, name)) is not None and not field.fits(value)
        for name, field in BODY_FIELDS[endpoint].items()
    )
