"""`core.batches.prefix`: prompts that begin alike run one after another, and nothing else moves."""

import json
import random
import tracemalloc
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide import limits
from lowtide.core.batches.plan import Plan, unpack_entries
from lowtide.core.batches.prefix import PrefixSketch, RunOrder
from lowtide.core.validation.rules import ValidationRules
from lowtide.core.validation.validator import Validator

DOCUMENT_CHARS = 4_000


def text(seed: object, chars: int) -> str:
    rng = random.Random(str(seed))
    return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz ", k=chars))


def line(custom_id: str, prompt: str) -> bytes:
    message = {"role": "user", "content": prompt}
    return json.dumps(
        {"custom_id": custom_id, "body": {"model": "m", "messages": [message]}}
    ).encode()


def question_major(documents: int, questions: int) -> list[bytes]:
    """The order that defeats a prefix cache: each document comes back only after all others."""
    return [
        line(f"request-{q}-{d}", text(d, DOCUMENT_CHARS) + text((q, d), 80))
        for q in range(questions)
        for d in range(documents)
    ]


def order_of(lines: list[bytes]) -> RunOrder | None:
    sketch = PrefixSketch(b"messages")
    data = b"\n".join(lines)
    starts, at = [], 0
    for one in lines:
        starts.append(at)
        at += len(one) + 1
    sketch.add(data, starts, [start + len(one) for start, one in zip(starts, lines, strict=True)])
    return sketch.order()


def plan_of(lines: list[bytes], block_bytes: int = 1 << 20) -> Plan:
    validator = Validator(
        ValidationRules(endpoint="/v1/chat/completions", dialect="together", models={"m": "m"})
    )
    data = b"\n".join(lines)
    for start in range(0, len(data), block_bytes):
        validator.feed(data[start : start + block_bytes])
    plan = validator.finish()
    assert isinstance(plan, Plan)
    return plan


def test_questions_about_one_document_run_one_after_another() -> None:
    order = order_of(question_major(documents=20, questions=5))
    assert order is not None
    documents = [place % 20 for place in order.places.tolist()]
    assert documents == [document for document in range(20) for _ in range(5)]


def test_groups_come_in_the_order_of_their_first_lines_and_keep_the_order_of_the_file() -> None:
    order = order_of(question_major(documents=7, questions=3))
    assert order is not None
    assert order.places.tolist() == [d + 7 * q for d in range(7) for q in range(3)]


def test_a_run_starts_with_each_document() -> None:
    order = order_of(question_major(documents=6, questions=4))
    assert order is not None
    assert order.starts.tolist() == [True, False, False, False] * 6


def test_documents_under_one_system_prompt_are_told_apart() -> None:
    system = text("system", 1_000)
    lines = [
        line(f"r{q}{d}", system + text(d, DOCUMENT_CHARS) + text((q, d), 50))
        for q in range(4)
        for d in range(5)
    ]
    order = order_of(lines)
    assert order is not None
    assert [place % 5 for place in order.places.tolist()] == [d for d in range(5) for _ in range(4)]


def test_what_is_saved_is_the_share_of_bytes_that_were_seen_just_before() -> None:
    order = order_of(question_major(documents=10, questions=10))
    assert order is not None
    assert 0.6 < order.saved_share < 0.9  # nine of ten documents, down to the last depth looked at


def test_prompts_that_share_nothing_keep_the_order_of_the_file() -> None:
    assert order_of([line(f"r{n}", text(n, 2_000)) for n in range(300)]) is None


def test_a_file_that_is_in_order_already_is_left_alone() -> None:
    lines = sorted(question_major(documents=9, questions=4), key=lambda raw: raw[70:200])
    assert order_of(lines) is None


def test_one_prompt_for_all_leaves_the_order_of_the_file() -> None:
    system = text("the only system prompt", 3_000)
    assert order_of([line(f"r{n}", system + text(n, 500)) for n in range(200)]) is None


def test_prompts_that_share_less_than_is_worth_it_keep_the_order_of_the_file() -> None:
    lines = [line(f"r{n}", text(n, 8_000)) for n in range(400)]
    lines[390] = line("again", text(3, 8_000))
    assert order_of(lines) is None


def test_where_marks_are_too_many_what_is_alike_still_lies_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = question_major(documents=20, questions=5)
    monkeypatch.setattr(limits, "PREFIX_MARKS_MAX", 4 * len(lines))  # of about seven for each
    order = order_of(lines)
    assert order is not None
    assert [place % 20 for place in order.places.tolist()] == [
        d for d in range(20) for _ in "12345"
    ]


def test_thinning_out_marks_does_not_depend_on_how_the_file_was_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = question_major(documents=12, questions=4)
    monkeypatch.setattr(limits, "PREFIX_MARKS_MAX", 2 * len(lines))
    plans = [plan_of(lines, block_bytes) for block_bytes in (1_000, 20_000, 1 << 20)]
    assert plans[0] == plans[1] == plans[2]


def test_a_few_long_prompts_cost_nothing_for_the_many_short_ones() -> None:
    few = [line(f"long-{n}", text(n, 33_000)) for n in range(3)]
    many = [line(f"short-{n}", text(n, 300)) for n in range(1_000)]
    tracemalloc.start()
    try:
        sketch = PrefixSketch(b"messages")
        for block in range(20):
            lines = [few[block % 3], *many]
            data = b"\n".join(lines)
            ends = list(accumulate(len(one) + 1 for one in lines))
            starts = [0, *ends[:-1]]
            sketch.add(data, starts, [end - 1 for end in ends])
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept / 20_000 < 64 + len(data) / 20_000


def test_no_requests_have_no_order() -> None:
    assert PrefixSketch(b"messages").order() is None


def test_a_chunk_that_is_nearly_full_ends_where_a_run_begins() -> None:
    plan = plan_of(question_major(documents=40, questions=10))
    counts = [chunk.count for chunk in plan.chunks]
    assert counts == [100, 100, 100, 100]
    assert all(limits.CHUNK_REQUESTS_FULL <= count <= limits.CHUNK_REQUESTS_MAX for count in counts)


def test_a_run_longer_than_a_chunk_fills_chunks() -> None:
    plan = plan_of(question_major(documents=2, questions=150))
    assert [chunk.count for chunk in plan.chunks] == [128, 128, 44]


def test_a_planned_batch_runs_in_order_of_prefixes_and_knows_every_line() -> None:
    entries = unpack_entries(plan_of(question_major(documents=12, questions=6)).data)
    assert sorted(entry.line for entry in entries) == list(range(1, 73))
    assert [(entry.line - 1) % 12 for entry in entries] == [d for d in range(12) for _ in range(6)]


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 900)), max_size=40),
    st.integers(1, 5_000),
)
def test_every_request_runs_once_wherever_blocks_are_cut(
    prompts: list[tuple[int, int, int]], block_bytes: int
) -> None:
    lines = [
        line(f"r{n}", text(a, 700) + text((a, b), 600) + text(n, rest))
        for n, (a, b, rest) in enumerate(prompts)
    ]
    if not lines:
        return
    plan = plan_of(lines)
    assert plan == plan_of(lines, block_bytes)
    assert sorted(entry.line for entry in unpack_entries(plan.data)) == list(
        range(1, len(lines) + 1)
    )
