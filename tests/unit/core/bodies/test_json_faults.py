"""core/bodies/json_faults.py: why a line does not parse, in a sentence."""

import json

import pytest

from lowtide.core.bodies.json_faults import half_character, what_is_wrong


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r'"cut \ud83d"', (r"\ud83d", 6)),
        (r'"\udc00"', (r"\udc00", 2)),
        (r'"\ud83d\ud83d\ude00"', (r"\ud83d", 2)),
        (r'"\ud83d \ude00"', (r"\ud83d", 2)),
        (r'"\uD83Dx"', (r"\uD83D", 2)),
        (r'"\ud83d\n"', (r"\ud83d", 2)),
        (r'"\ud83d\ude00"', None),
        (r'"\\ud83d"', None),
        (r'"\u00e9"', None),
        ('"plain"', None),
    ],
)
def test_half_a_character_is_found_where_it_stands(
    text: str, found: tuple[str, int] | None
) -> None:
    assert half_character(text.encode()) == found


def test_whole_characters_are_never_taken_for_halves() -> None:
    for text in ("🧀🧀", "a🌊\\b", '"🌙"', "\\🌊\\\\🌊"):
        assert half_character(json.dumps(text).encode()) is None


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b'{"a": NaN}', "NaN (byte 7 of the line) is no JSON value"),
        (b'{"a": -Infinity}', "-Infinity (byte 7"),
        (b'{"a": "NaN", "b": Infinity}', "Infinity (byte 19"),
        (b'{"a": True}', "in JSON it is true"),
        (b"{'a': 'b'}", "json.dumps"),
        (b'\xef\xbb\xbf{"a": 1}', "byte order mark"),
        (b'{"a": {"b": 1}},', "ends with a comma"),
    ],
)
def test_the_usual_faults_are_named(raw: bytes, words: str) -> None:
    assert words in (what_is_wrong(raw) or "")


@pytest.mark.parametrize("raw", [b"hello", b"{", b'{"a": "NaN"', b'{"a" 1}', b""])
def test_what_is_not_known_better_is_left_at_that(raw: bytes) -> None:
    assert what_is_wrong(raw) is None
