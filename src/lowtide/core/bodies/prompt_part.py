"""The body of a call for the beginning of a prompt, and the usage of the whole call after such.

loops/dispatch/attempt.py sends it so that the engine reads a long prompt in parts
(core/capacity/prompt_parts.py says why). Only a prompt that is text is cut: messages whose contents
are strings, or one string. Pure. Invariants: the texts of a part are a beginning of the whole's,
and what stands before the answer of the whole does so in the part: no field that bears on the
prompt is changed.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from lowtide.core.faults.streamed_answer import PLAIN_FIELDS
from lowtide.core.usage import UNREADABLE

PART_FIELDS: Final[Mapping[str, Any]] = {"max_tokens": 1}
"""What is set in the body of a part: its answer is thrown away."""

ANSWER_FIELDS: Final = frozenset(
    """
    guided_choice guided_grammar guided_json guided_regex json_schema max_completion_tokens
    min_tokens response_format structured_outputs
    """.split()  # noqa: SIM905 (ten lines of a list tell no more)
)
"""Fields that a part goes without: they ask for more than one token, or prepare a grammar."""

CUTTABLE_FIELDS: Final = PLAIN_FIELDS - {"truncate_prompt_tokens"}
"""Fields that a request may have whose prompt is cut: no other changes what the beginning is."""

_CUT_ROLES: Final = frozenset({"developer", "system", "user"})
_ROLES: Final = _CUT_ROLES | {"assistant"}

_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_messages: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_text: Final = msgspec.json.Decoder(str)
_whole_number: Final = msgspec.json.Decoder(int)


def cut_prompt(body: bytes, share: float) -> bytes | None:
    """The body with that share, below 1, of its prompt's text; None where it cannot be cut."""
    try:
        fields = _fields.decode(body)
        if not fields.keys() <= CUTTABLE_FIELDS:
            return None
        if "messages" in fields:
            cut: Any = _cut_messages(_messages.decode(fields["messages"]), share)
            name = "messages"
        else:
            text = _text.decode(fields["prompt"])
            cut, name = text[: int(share * len(text))], "prompt"
    except (KeyError, *UNREADABLE):
        return None
    if not cut:
        return None
    return msgspec.json.encode({**fields, name: cut})


def _cut_messages(messages: list[dict[str, msgspec.Raw]], share: float) -> list[dict[str, Any]]:
    """The first messages, the last of them cut; none where that makes no prompt. Raises KeyError,
    or what its decoder does, for messages that are more than text.
    """
    roles = [_text.decode(message["role"]) for message in messages]
    texts = [_text.decode(message["content"]) for message in messages]
    if not _ROLES.issuperset(roles) or any("tool_calls" in message for message in messages):
        return []
    left = int(share * sum(map(len, texts)))
    kept: list[dict[str, Any]] = []
    for message, text in zip(messages, texts, strict=True):
        if left <= 0:
            break
        kept.append({**message, "content": text[:left]})
        left -= len(text)
    while kept and roles[len(kept) - 1] not in _CUT_ROLES:
        kept.pop()  # an answer is no end of a prompt
    return kept


def without_own_cache(body: bytes, own_tokens: int) -> bytes:
    """The answer of a whole call without the cached tokens that its own parts put into the engine's
    cache: they are none that the request found there. Other answers are left as they are.
    """
    try:
        fields = _fields.decode(body)
        usage = _fields.decode(fields["usage"])
        details = _fields.decode(usage["prompt_tokens_details"])
        cached = _whole_number.decode(details["cached_tokens"])
    except (KeyError, *UNREADABLE):
        return body
    if cached <= 0 or own_tokens <= 0:
        return body
    fewer = {**details, "cached_tokens": max(0, cached - own_tokens)}
    return msgspec.json.encode({**fields, "usage": {**usage, "prompt_tokens_details": fewer}})
