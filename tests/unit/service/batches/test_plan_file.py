"""service/batches/plan_file.py: a file's lines are judged a few at a time."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from lowtide import limits
from lowtide.config import LimitSettings
from lowtide.core.accounts.catalogue import Catalogue, ModelEntry
from lowtide.core.batches.plan import Plan
from lowtide.core.validation.planner import Planner
from lowtide.core.validation.validator import ValidationFailure, Validator
from lowtide.service.batches.plan_file import feed, plan_file

CHAT = "/v1/chat/completions"
LINE = (
    b'{"custom_id":"%d","method":"POST","url":"/v1/chat/completions","body":{"model":"m",'
    b'"messages":[{"role":"user","content":"x"}]}}\n'
)
BLOCK = limits.VALIDATE_BLOCK_BYTES
FILES = {
    "blank": b"\n" * BLOCK,
    "spaces": b" \n" * (BLOCK // 2),
    "one character": b"x\n" * (BLOCK // 2),
    "good": b"".join(LINE % number for number in range(5_000)),
    "dense at its end": b"x" * (BLOCK - 5_000) + b"\n" * 5_000,
}


def planner() -> Planner:
    return Planner(Catalogue([ModelEntry(id="m")]), LimitSettings)


@pytest.fixture
def lines_fed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Of each piece that the validator was given."""
    fed: list[int] = []
    whole = Validator.feed

    def counting(self: Validator, block: Any) -> None:
        fed.append(bytes(block).count(b"\n"))
        whole(self, block)

    monkeypatch.setattr(Validator, "feed", counting)
    yield fed


@pytest.mark.parametrize("name", FILES)
async def test_no_piece_has_more_lines_than_are_judged_at_once(
    name: str, lines_fed: list[int]
) -> None:
    await feed(planner().begin(CHAT, "openai"), FILES[name], "o")
    assert max(lines_fed) <= limits.LINES_AT_ONCE


@pytest.mark.parametrize("name", FILES)
async def test_in_pieces_a_file_comes_to_what_it_comes_to_at_once(name: str) -> None:
    in_pieces, at_once = planner().begin(CHAT, "openai"), planner().begin(CHAT, "openai")
    await feed(in_pieces, FILES[name], "o")
    at_once.feed(FILES[name])
    found, expected = in_pieces.finish(), at_once.finish()
    if isinstance(expected, Plan):
        assert found == expected
    else:
        assert isinstance(found, ValidationFailure)
        assert found.errors == expected.errors


async def test_others_are_served_between_the_pieces_and_a_refused_file_is_left(
    lines_fed: list[int],
) -> None:
    served = 0

    async def others() -> None:
        nonlocal served
        while True:
            served += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    await feed(planner().begin(CHAT, "openai"), FILES["blank"], "o")
    other.cancel()
    needed = limits.BLANK_LINES_MAX / min(lines_fed)
    assert needed <= len(lines_fed) <= needed + 1, "it has too many blank lines"
    assert served >= len(lines_fed) - 1


class Blocks:
    """One blob, as `plan_file` reads it."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def stream(self, _key: str) -> AsyncIterator[bytes]:
        for start in range(0, len(self._content), BLOCK):
            yield self._content[start : start + BLOCK]


@pytest.mark.parametrize("lines, is_beside", [(10, False), (12_000, True)])
async def test_the_lines_of_a_long_file_are_ordered_beside_the_loop(
    lines: int, is_beside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    finish = Validator.finish

    def noted(self: Validator) -> Plan | ValidationFailure:
        ended.append(threading.get_ident())
        return finish(self)

    monkeypatch.setattr(Validator, "finish", noted)
    blobs: Any = Blocks(b"".join(LINE % number for number in range(lines)))
    found = await plan_file(planner().begin(CHAT, "openai"), blobs, "key", "o")
    assert isinstance(found, Plan)
    assert [each != threading.get_ident() for each in ended] == [is_beside]
