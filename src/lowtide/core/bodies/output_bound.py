"""How many tokens the answers to a request may have at most, as far as its body says it.

The validator asks for plans, prices and spend caps, and core/accounts/charged_usage.py to judge
what an engine reports. Pure. Numbers count as engines read them, also as text ("7") and as whole
floats; what is no number from 1 up bounds nothing: -1 means none to LM Studio and llama.cpp.
"""

from collections.abc import Mapping
from typing import Any, Final

from lowtide.core.bodies.body_fields import number_of
from lowtide.limits import OUTPUT_TOKENS_MAX

_BOUNDS: Final[Mapping[str, tuple[str, ...]]] = {
    "/v1/chat/completions": ("max_completion_tokens", "max_tokens"),
    "/v1/completions": ("max_tokens",),
    "/v1/embeddings": (),
    "/v1/responses": ("max_output_tokens",),
}
"""What a body of the endpoint says about the tokens of one answer; the first that bounds counts."""

_ANSWERS: Final[Mapping[str, tuple[str, ...]]] = {
    "/v1/chat/completions": ("n",),
    "/v1/completions": ("n", "best_of"),
    "/v1/embeddings": (),
    "/v1/responses": (),
}
"""Where it says how many answers are generated; the largest counts."""

FIELDS: Final = tuple(
    sorted({name for table in (_BOUNDS, _ANSWERS) for names in table.values() for name in names})
)
"""All of them."""


def output_bound(endpoint: str, body: Any) -> int | None:
    """Tokens of all answers together, OUTPUT_TOKENS_MAX at most; None where nothing bounds them.
    `body` has the endpoint's fields of FIELDS as attributes, None where a field is absent.
    """
    bounds = _BOUNDS[endpoint]
    if not bounds:
        return 0  # it puts out none
    for name in bounds:
        value = getattr(body, name)
        if value is not None and (each := _count(value)):
            return min(each * answers(endpoint, body), OUTPUT_TOKENS_MAX)
    return None


def answers(endpoint: str, body: Any) -> int:
    """How many answers the request asks for; see `output_bound`."""
    most = 1
    for name in _ANSWERS[endpoint]:
        if (value := getattr(body, name)) is not None:
            most = max(most, _count(value))
    return most


def _count(value: object) -> int:
    """The number from 1 up to OUTPUT_TOKENS_MAX that a value is to an engine; 0 for any other."""
    if isinstance(value, int):
        return min(value, OUTPUT_TOKENS_MAX) if value > 0 else 0
    number = number_of(value)
    if number is None or number < 1 or (isinstance(number, float) and not number.is_integer()):
        return 0
    return int(min(number, OUTPUT_TOKENS_MAX))
