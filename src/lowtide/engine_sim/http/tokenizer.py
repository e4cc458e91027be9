"""A pretended tokenizer: four bytes are a token, and equal text is equal tokens.

Deterministic and cheap, and the same on both sides: a caller that needs the simulated engine's
count asks `count_chat` or `count_text`. Each text is cut from its own start, so what two prompts
have in common at their beginning is cut the same way. A chat template's markers are single tokens.
Images and other parts that are not text count as a fixed number.
"""

import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from lowtide.engine_sim.state.requests import Piece

TOKEN_BYTES: Final = 4
VOCABULARY: Final = 128_000
"""Ids of text; those above are markers."""

IMAGE_TOKENS: Final = 576
_BEGIN, _HEADER, _HEADER_END, _TURN_END, _IMAGE = range(VOCABULARY, VOCABULARY + 5)
_WORDS: Final = ("the ", "sea ", "ebb ", "low ", "run ", "out ", "bay ", "mud ", "net ", "sun ")
"""One token each, wherever a text made of them is cut."""


def tokens_of(text: str) -> list[int]:
    """An id for each four bytes of UTF-8."""
    encoded = text.encode()
    words = array("I", encoded + b"\0" * (-len(encoded) % TOKEN_BYTES))
    if sys.byteorder == "big":
        words.byteswap()
    return [(word * 2_654_435_761 >> 7) % VOCABULARY for word in words]


def count_text(text: str) -> int:
    return -(-len(text.encode()) // TOKEN_BYTES)


def tokens_of_chat(messages: Iterable[Mapping[str, Any]], tools: object = None) -> list[int]:
    """The prompt of a chat, as a template would lay it out, up to where the answer begins."""
    tokens = [_BEGIN]
    if tools:
        tokens += [_HEADER, *tokens_of("tools"), _HEADER_END, *tokens_of(str(tools)), _TURN_END]
    for message in messages:
        tokens += [_HEADER, *tokens_of(str(message.get("role", ""))), _HEADER_END]
        for part in _parts(message.get("content")):
            tokens += tokens_of(part) if part is not None else [_IMAGE] * IMAGE_TOKENS
        tokens.append(_TURN_END)
    return [*tokens, _HEADER, *tokens_of("assistant"), _HEADER_END]


def count_chat(messages: Iterable[Mapping[str, Any]], tools: object = None) -> int:
    """Prompt tokens that the simulated engine reports for a chat."""
    return len(tokens_of_chat(messages, tools))


def filler(count: int, seed: int) -> str:
    """An answer of so many tokens: the same for the same seed, and it tokenizes to `count`."""
    state = seed & 0xFFFFFFFF
    words = []
    for _ in range(count):
        state = (state * 1_664_525 + 1_013_904_223) & 0xFFFFFFFF
        words.append(_WORDS[(state >> 16) % len(_WORDS)])
    return "".join(words)


def pieces_of(tokens: Sequence[int], block_tokens: int = 16) -> list[Piece]:
    """A piece for each block, so that prompts share whatever blocks are equal, and the rest."""
    return [
        (hash(tuple(tokens[start : start + block_tokens])), min(block_tokens, len(tokens) - start))
        for start in range(0, len(tokens), block_tokens)
    ]


def _parts(content: object) -> Iterator[str | None]:
    """The texts of a message's content; None for a part that is none."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            text = part.get("text") if isinstance(part, dict) else part
            yield text if isinstance(text, str) else None
