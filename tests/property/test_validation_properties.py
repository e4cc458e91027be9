"""Validation and line rendering under generated input: cuts, mutations, arbitrary bytes."""

import json
import random
from itertools import pairwise
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide.core.batches.line import read_request, render_rejected, render_success
from lowtide.core.batches.plan import Plan, unpack_entries
from lowtide.core.validation.line_errors import REPEATED, TOO_DEEP
from lowtide.core.validation.rules import ValidationRules
from lowtide.core.validation.validator import ValidationFailure, Validator

CHAT = "/v1/chat/completions"
MUTATIONS = 2_000
Result = Plan | ValidationFailure

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
dialects: st.SearchStrategy[Literal["openai", "together"]] = st.sampled_from(["openai", "together"])


def validate(blocks: list[bytes], rules: ValidationRules) -> Result:
    validator = Validator(rules)
    for block in blocks:
        validator.feed(block)
    return validator.finish()


def rules_for(dialect: Literal["openai", "together"], **bounds: Any) -> ValidationRules:
    return ValidationRules(endpoint=CHAT, dialect=dialect, **bounds)


@st.composite
def valid_files(draw: st.DrawFn) -> tuple[bytes, dict[str, list[str]]]:
    """A valid file in one of its many spellings, and its custom_ids by model in file order."""
    custom_ids = draw(st.lists(texts.filter(bool), min_size=1, max_size=12, unique=True))
    expected: dict[str, list[str]] = {}
    out = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    for custom_id in custom_ids:
        model = draw(st.sampled_from(["m", "org/é", "n"]))
        expected.setdefault(model, []).append(custom_id)
        body = {"extra": draw(json_values), "model": model, "messages": [{"x": draw(json_values)}]}
        line = {"body": body, "custom_id": custom_id, "url": CHAT, "method": "POST"}
        out += draw(st.sampled_from([b"", b"\n", b" \t\r\n"]))
        out += json.dumps(line, ensure_ascii=draw(st.booleans())).encode()
        out += draw(st.sampled_from([b"\n", b"\r\n"]))
    return (out.rstrip() if draw(st.booleans()) else out), expected


messy_files = st.lists(
    st.sampled_from(
        [
            json.dumps(
                {
                    "custom_id": custom_id,
                    "method": "POST",
                    "url": CHAT,
                    "body": {"model": "m", "messages": [], "x": "é潮🌊"},
                },
                ensure_ascii=False,
            ).encode()
            for custom_id in "abcdef"
        ]
        + [b"", b" ", b"\r", b"\xef\xbb\xbf", b"\xff", b"{}", b"{", b"x" * 40, b" " * 300]
    ),
    max_size=12,
).map(b"\n".join)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@given(messy_files, st.lists(st.integers(0, 10_000), max_size=20), st.integers(1, 12))
def test_where_blocks_are_cut_does_not_matter(data: bytes, cuts: list[int], most: int) -> None:
    rules = rules_for("openai", line_bytes_max=180, requests_max=most, errors_kept=4)
    whole = validate([data], rules)
    assert validate(pieces(data, cuts), rules) == whole
    assert validate([data[n : n + 1] for n in range(len(data))], rules) == whole


@given(valid_files())
def test_a_valid_file_reads_back_through_its_plan(case: tuple[bytes, dict[str, list[str]]]) -> None:
    data, expected = case
    plan = validate([data], rules_for("openai"))
    assert isinstance(plan, Plan), plan
    requests = [
        read_request(data[entry.offset :][: entry.length]) for entry in unpack_entries(plan.data)
    ]
    models = [json.loads(request.body)["model"] for request in requests]
    planned: dict[str, list[str]] = {}
    for model, request in zip(models, requests, strict=True):
        planned.setdefault(model, []).append(request.custom_id)
    assert {name: sorted(ids) for name, ids in planned.items()} == {
        name: sorted(ids) for name, ids in expected.items()
    }
    assert list(planned) == list(expected), "models come in the order of the file"
    assert {name: share.requests for name, share in plan.models.items()} == {
        name: len(custom_ids) for name, custom_ids in expected.items()
    }
    for chunk in plan.chunks:
        assert set(models[chunk.first : chunk.first + chunk.count]) == {chunk.model}
    assert sum(chunk.count for chunk in plan.chunks) == plan.requests


@given(st.binary(max_size=400), dialects)
def test_arbitrary_bytes_get_a_result(data: bytes, dialect: Literal["openai", "together"]) -> None:
    result = validate([data], rules_for(dialect))
    assert isinstance(result, ValidationFailure)
    assert result.total_errors == len(result.errors) >= 1


@given(
    st.dictionaries(st.sampled_from(["custom_id", "method", "url", "body"]), json_values), dialects
)
def test_any_object_gets_a_named_problem(
    line: dict[str, Any], dialect: Literal["openai", "together"]
) -> None:
    result = validate([json.dumps(line).encode()], rules_for(dialect))
    assert isinstance(result, ValidationFailure)
    assert result.errors[0].message not in (REPEATED, TOO_DEEP)


@given(json_values, texts, dialects, st.booleans(), st.sampled_from([None, 1]))
def test_an_output_line_is_one_ascii_line_with_the_same_body(
    value: Any,
    custom_id: str,
    dialect: Literal["openai", "together"],
    ensure_ascii: bool,
    indent: int | None,
) -> None:
    body = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent).encode()
    line = render_success(dialect, "r1", custom_id, 200, body)
    assert line.isascii()
    assert line.decode().splitlines() == [line.decode()[:-1]]
    parsed = json.loads(line)
    assert (parsed["custom_id"], parsed["response"]["body"]) == (custom_id, value)


@given(st.binary(max_size=100) | st.text().map(lambda text: text.encode("utf-8", "replace")))
def test_any_body_at_all_still_makes_one_line(body: bytes) -> None:
    line = render_rejected("openai", "r", "a", status=400, body=body, code="c", message="m")
    assert line.isascii()
    assert len(line.decode().splitlines()) == 1
    assert json.loads(line)["response"]["status_code"] == 400


def mutate(data: bytes, chance: random.Random) -> bytes:
    """A few small injuries: flipped, dropped, repeated or inserted bytes."""
    mutant = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(mutant))
        match chance.randrange(4):
            case 0:
                mutant[at] = chance.randrange(256)
            case 1:
                del mutant[at : at + chance.randint(1, 8)]
            case 2:
                mutant[at:at] = mutant[at : at + chance.randint(1, 60)]
            case _:
                mutant[at:at] = chance.choice(
                    [b"\n", b"\r\n", b'"', b"\\", b"\xc3", b"null", b"{}"]
                )
        if not mutant:
            return b""
    return bytes(mutant)


@pytest.mark.parametrize("dialect", ["openai", "together"])
def test_injured_files_never_raise_and_plan_only_what_reads_back(
    dialect: Literal["openai", "together"],
) -> None:
    chance = random.Random(42)
    sound = b"".join(
        json.dumps(
            {
                "custom_id": f"line-{n}-é",
                "method": "POST",
                "url": CHAT,
                "body": {"model": "m", "messages": [{"role": "user", "content": "潮 \\ 🌊"}]},
            },
            ensure_ascii=bool(n % 2),
        ).encode()
        + b"\n"
        for n in range(4)
    )
    outcomes = {Plan: 0, ValidationFailure: 0}
    for _ in range(MUTATIONS):
        data = mutate(sound, chance)
        result = validate([data], rules_for(dialect))
        outcomes[type(result)] += 1
        assert validate(pieces(data, [chance.randrange(9_999)]), rules_for(dialect)) == result
        if isinstance(result, Plan):
            for entry in unpack_entries(result.data):
                line = data[entry.offset :][: entry.length]
                assert json.loads(line)["custom_id"] == read_request(line).custom_id
    assert min(outcomes.values()) > MUTATIONS // 50, outcomes
