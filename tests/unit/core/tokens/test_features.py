"""core/tokens/features.py: what is counted, in every shape of request, raw and escaped."""

import base64
import json
from typing import Any

import pytest

from lowtide import limits
from lowtide.core.tokens.features import FEATURES, Features, features_of_line

ENGLISH = "The tide goes out twice a day; nobody asks it to, and it takes 12 hours."
CODE = 'def ebbFlow(x):\n    if x > 1024:\n        return "low"\n\treturn None\n'
CHINESE = "潮水每天退去两次，没有人要求它这样做。「安静」"


def features_of(body: bytes) -> Features:
    return features_of_line(b'{"body": %b}' % body)


def of_body(body: dict[str, Any]) -> Features:
    return features_of(json.dumps(body).encode())


def of_text(text: str) -> dict[str, float]:
    return named(of_body({"model": "m", "prompt": text}))


def named(features: Features) -> dict[str, float]:
    return dict(zip(FEATURES, features.counts, strict=True))


def chat(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": list(messages), **fields}


def present(features: Features) -> dict[str, float]:
    return {name: count for name, count in named(features).items() if count}


def test_characters_and_runs_of_ascii_are_counted() -> None:
    assert present(of_body({"model": "m", "prompt": "Go to  camelCase,\n\n  at 10:15!?"})) == {
        "prompts": 1,
        "letters": 15,
        "words": 4,
        "humps": 1,
        "spaces": 6,
        "gaps": 4,
        "breaks": 2,
        "break_runs": 1,
        "digits": 4,
        "numbers": 2,
        "marks": 4,
        "mark_runs": 3,
    }


def test_scripts_are_told_apart() -> None:
    text = "é Ж ب ไ “ か 、 潮 바 ， 🌊"
    counts = of_text(text)
    assert {name: counts[name] for name in FEATURES[FEATURES.index("latin_cyrillic") :]} == {
        "latin_cyrillic": 3,
        "indic_thai": 1,
        "symbols": 1,
        "kana": 2,
        "han": 1,
        "hangul": 1,
        "fullwidth": 1,
        "emoji": 1,
    }


@pytest.mark.parametrize("text", [ENGLISH, CODE, CHINESE, ENGLISH + CHINESE + "🌊"])
def test_escaped_and_raw_json_measure_the_same(text: str) -> None:
    body = chat({"role": "user", "content": text})
    escaped = json.dumps(body).encode()
    raw = json.dumps(body, ensure_ascii=False).encode()
    assert features_of(escaped) == features_of(raw)
    line = b'{"custom_id": "x", "body": %b}'
    assert features_of_line(line % escaped) == features_of(raw)
    assert features_of_line(memoryview(line % raw)) == features_of(raw)


def test_what_is_not_prompt_does_not_count() -> None:
    message = {"role": "user", "content": ENGLISH}
    plain = of_body(chat(message))
    rest = {"metadata": {"a": "long" * 50}, "user": CODE, "stop": [CODE], "max_tokens": 1}
    assert of_body(chat(message | {"reasoning_content": CODE}, **rest)) == plain


def test_an_image_counts_as_one_whatever_its_data_url() -> None:
    data = base64.b64encode(bytes(range(256)) * 400).decode()
    for url in ("https://pictures.test/1.png", f"data:image/png;base64,{data}"):
        parts = [
            {"type": "text", "text": ENGLISH},
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}},
        ]
        seen = named(of_body(chat({"role": "user", "content": parts})))
        plain = named(of_body(chat({"role": "user", "content": ENGLISH})))
        assert seen == plain | {"media": 2}


def test_tools_and_tool_calls_are_prompt_text() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x": "潮"}'}}
    bare = of_body(chat({"role": "assistant", "content": None}))
    called = of_body(chat({"role": "assistant", "content": None, "tool_calls": [call]}))
    offered = of_body(chat({"role": "assistant", "content": None}, tools=[{"description": "潮"}]))
    assert named(bare)["letters"] == 0
    assert named(called)["han"] == named(offered)["han"] == 1
    assert named(called)["letters"] > 20


def test_token_ids_are_exact_and_beside_the_counts() -> None:
    assert of_body({"model": "m", "prompt": [1, 2, 3]}) == Features((0.0,) * len(FEATURES), 3)
    mixed = of_body({"model": "m", "input": [[1, 2], [3], "潮"]})
    assert (mixed.given, present(mixed)) == (3, {"prompts": 1, "han": 1})


def test_the_responses_endpoint_reads_its_own_shapes() -> None:
    said = [{"role": "user", "content": [{"type": "input_text", "text": "潮"}]}]
    returned = [{"type": "function_call_output", "call_id": "c", "output": "水"}]
    seen = of_body({"model": "m", "input": said + returned, "instructions": "退"})
    assert present(seen) == {"chats": 1, "messages": 2, "han": 3, "breaks": 2, "break_runs": 2}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"messages": 5}',
        b'{"messages": [{"content": 5}]}',
        b'{"prompt": {"a": 1}}',
        b'{"prompt": "\\ud800"}',
        b"\xff\xfe",
        b'{"tools": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_nothing_raises_and_all_is_counted(body: bytes) -> None:
    for features in (features_of_line(body), features_of(body)):
        assert len(features.counts) == len(FEATURES)
        assert all(count >= 0 for count in features.counts)


def test_a_long_text_is_measured_in_pieces_and_comes_out_alike() -> None:
    piece = ENGLISH + CODE + CHINESE
    times = 20 * limits.TOKENS_TEXT_BYTES_MAX // len(piece.encode())
    few, many = of_text(piece), of_text(piece * times)
    for name in ("letters", "words", "spaces", "digits", "marks", "han", "fullwidth"):
        assert many[name] == pytest.approx(few[name] * times, rel=0.05), name
