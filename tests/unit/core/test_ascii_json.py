"""core/ascii_json.py: any body as one line of ASCII JSON."""

import json

import pytest

from lowtide.core import ascii_json
from lowtide.core.ascii_json import one_line, quote


def test_compact_ascii_json_is_not_touched() -> None:
    body = b'{"n":1.0, "big":123456789012345678901234567890,"e":1E5}'
    assert one_line(body) is body


def test_pretty_printed_json_loses_its_line_breaks_and_keeps_its_numbers() -> None:
    line = one_line(b'{\r\n\t"n": 1.50,\n\t"s": "a\\nb"\n}\n')
    assert line == b'{"n": 1.50,"s": "a\\nb"}'


@pytest.mark.parametrize("text", ["é", "\u2028\u2029\x85", "🌊", '"é"', "\\é", "\\\\é\\", 'x\\"é'])
def test_non_ascii_text_becomes_escapes_that_mean_the_same(text: str) -> None:
    line = one_line(json.dumps({text: text}, ensure_ascii=False).encode())
    assert line.isascii()
    assert len(line.decode().splitlines()) == 1
    assert json.loads(line) == {text: text}


def test_tabs_between_tokens_do_not_disturb_the_escaping() -> None:
    assert json.loads(one_line('{\t"ä":\t"\\t"}'.encode())) == {"ä": "\t"}


def test_invalid_utf8_becomes_the_replacement_character() -> None:
    assert json.loads(one_line(b'{"a":"x\xffy"}')) == {"a": "x\ufffdy"}


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a":NaN,"b":[-Infinity]}', {"a": None, "b": [None]}),
        (b'{"a":"\\ud800"}', {"a": "\ufffd"}),
        (b'{"a":"x\ny"}', {"a": "x\ny"}),
        (b'\xef\xbb\xbf{"a":1}', {"a": 1}),
    ],
)
def test_lax_json_is_salvaged(body: bytes, value: object) -> None:
    line = one_line(body)
    assert b"\n" not in line
    assert json.loads(line) == value


@pytest.mark.parametrize(
    "body", [b"", b"<html>\n\xff</html>", b"1 2", b"[" * 100_000, b"NaN 1e999"]
)
def test_what_is_not_json_becomes_a_string(body: bytes) -> None:
    assert json.loads(one_line(body)) == body.decode("utf-8", "replace")


def test_quote_survives_lone_surrogates() -> None:
    assert quote('a"\ud800\u2028') == b'"a\\"\\ud800\\u2028"'


@pytest.mark.parametrize("chars", [1, 2, 3, 7])
def test_a_long_text_is_the_same_however_it_is_taken_in_pieces(
    chars: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = ['\u00e9\\"\\\\\u6f22\U0001f600"', "\\u00e9", "\n\t\u2028", "\\" * 9 + "\u00e9"]
    body = json.dumps(value, ensure_ascii=False).encode()
    whole = one_line(body)
    monkeypatch.setattr(ascii_json, "ONE_LINE_CHARS", chars)
    assert one_line(body) == whole
    assert json.loads(whole) == value
    assert whole.isascii()
