"""What a request's prompt is made of, in numbers that tokens depend on.

The token model multiplies these numbers by weights that it learns from engines' usage reports; the
validator measures a sample of a file's lines, calibration a sample of finished requests. The text
is decoded before it is measured, so Chinese counts the same raw or as JSON escapes, and images
count as images, however long their data URLs are. Invariants: no bytes raise, every count is
finite and not negative, and the time for one request is bounded apart from reading its JSON.

A byte pair tokenizer first cuts text into runs (a word, a number, an indent, some punctuation) and
then encodes each run, so every ASCII class is counted twice: its characters and its runs. Outside
ASCII, the first byte of a UTF-8 character tells the script well enough.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from lowtide import limits

FEATURES: Final = (
    "chats",  # 1 for a list of messages: what a chat template adds to every conversation
    "messages",
    "prompts",  # plain strings to complete or embed
    "media",  # images, sounds, documents
    "letters",
    "words",
    "humps",  # an upper case letter after a letter: camelCase, and base64 above all
    "spaces",
    "gaps",  # runs of spaces
    "breaks",  # line ends, tabs and other control characters
    "break_runs",
    "digits",
    "numbers",
    "marks",  # ASCII punctuation
    "mark_runs",
    "latin_cyrillic",  # two bytes in UTF-8: from Latin with accents to Arabic
    "indic_thai",  # U+0800 to U+1FFF
    "symbols",  # U+2000 to U+2FFF: dashes, quotes, arrows
    "kana",  # U+3000 to U+3FFF, with the CJK full stop and comma
    "han",
    "hangul",
    "fullwidth",  # U+E000 to U+FFFF: mostly the fullwidth punctuation of Chinese
    "emoji",  # four bytes in UTF-8
)


class Features(msgspec.Struct, frozen=True):
    """`counts` in the order of FEATURES; `given` prompt tokens came as ids, and are exact."""

    counts: tuple[float, ...]
    given: int = 0


class _Part(msgspec.Struct):
    """A part of a message's content; `type` is text, input_text, image_url, input_audio, ..."""

    text: str | None = None


class _Message(msgspec.Struct):
    """A message of a chat, or an item of a response's input."""

    content: str | list[_Part | str] | None = None
    tool_calls: object = None
    arguments: str | None = None
    output: str | list[_Part | str] | None = None


_Prompt = str | list[str | int | list[int] | _Message]


class _Body(msgspec.Struct):
    messages: list[_Message] | None = None
    prompt: _Prompt | None = None
    input: _Prompt | None = None
    instructions: str | None = None
    tools: object = None


class _Line(msgspec.Struct):
    body: _Body


_body = msgspec.json.Decoder(_Body)
_line = msgspec.json.Decoder(_Line)

_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def features_of_line(line: bytes | memoryview) -> Features:
    """Measures the body of a whole input line."""
    try:
        return _measure_body(_line.decode(line).body)
    except _UNREADABLE:
        return Features((0.0, 0.0, 1.0, 0.0, *_measure(bytes(line))))


_ITEMS: Final = 10_000


class _Walk:
    """Collects the texts of a body and counts what is beside them."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.messages = self.prompts = self.media = self.given = 0

    def prompt(self, prompt: _Prompt) -> None:
        """The `prompt` of a completion, or the `input` of embeddings and responses."""
        if isinstance(prompt, str):
            self.prompts += 1
            self.texts.append(prompt)
            return
        for start in range(0, len(prompt), _ITEMS):
            items = prompt[start : start + _ITEMS]
            if set(map(type, items)) == {int}:  # a prompt of tokens may have a million
                self.given += len(items)
            else:
                self.items(items)

    def items(self, items: Sequence[str | int | list[int] | _Message]) -> None:
        """Walks through the entries of a prompt that is a list."""
        for item in items:
            match item:
                case str():
                    self.prompts += 1
                    self.texts.append(item)
                case int():
                    self.given += 1
                case list():
                    self.given += len(item)
                case _Message():
                    self.message(item)

    def message(self, message: _Message) -> None:
        self.messages += 1
        for content in (message.content, message.output, message.arguments):
            if isinstance(content, str):
                self.texts.append(content)
            elif content is not None:
                self.parts(content)
        if message.tool_calls is not None:
            self.json(message.tool_calls)

    def parts(self, parts: list[_Part | str]) -> None:
        for part in parts:
            text = part if isinstance(part, str) else part.text
            if text is None:
                self.media += 1
            else:
                self.texts.append(text)

    def json(self, value: object) -> None:
        """Counts JSON that a chat template writes into the prompt, without needless escapes."""
        self.texts.append(msgspec.json.encode(value).decode())


def _measure_body(body: _Body) -> Features:
    walk = _Walk()
    for message in body.messages or ():
        walk.message(message)
    for prompt in (body.prompt, body.input):
        if prompt is not None:
            walk.prompt(prompt)
    if body.instructions is not None:
        walk.texts.append(body.instructions)
    if body.tools is not None:
        walk.json(body.tools)
    text = "\n".join(walk.texts).encode("utf-8", "replace")
    chats = 1.0 if walk.messages else 0.0
    beside = (chats, float(walk.messages), float(walk.prompts), float(walk.media))
    return Features((*beside, *_measure(text)), walk.given)


def _measure(text: bytes) -> Iterator[float]:
    """The counts of classes of text; a long one is measured in evenly spaced pieces."""
    if len(text) <= limits.TOKENS_TEXT_BYTES_MAX:
        return map(float, _count(text))
    piece = limits.TOKENS_PIECE_BYTES
    pieces = limits.TOKENS_TEXT_BYTES_MAX // piece
    starts = (index * (len(text) - piece) // (pieces - 1) for index in range(pieces))
    sample = b"".join(text[start : start + piece] for start in starts)
    scale = len(text) / len(sample)
    return (count * scale for count in _count(sample))


_LOWER, _SPACE, _BREAK, _DIGIT, _MARK, _OTHER = (1 << bit for bit in range(6))
_UPPER = 1 << 6
_LETTER_STARTS: Final = (bytes([_LOWER]), bytes([_LOWER | _UPPER]))
_HUMP: Final = bytes([_UPPER])
_NO_START: Final = bytes([0])


def _ascii_class(byte: int) -> int:
    char = chr(byte)
    if byte >= 0x80:
        return _OTHER
    if char.isalpha():
        return _LOWER | _UPPER if char.isupper() else _LOWER
    if char.isdigit():
        return _DIGIT
    return _SPACE if char == " " else _MARK if char.isprintable() else _BREAK


def _script(byte: int) -> int:
    """Which of the eight script features a first byte of a UTF-8 character belongs to, from 1."""
    bounds = (0xC0, 0xE0, 0xE2, 0xE3, 0xE4, 0xEA, 0xEE, 0xF0)
    return sum(byte >= bound for bound in bounds)


_ASCII_CLASSES: Final = bytes(map(_ascii_class, range(256)))
_SCRIPTS: Final = bytes(map(_script, range(256)))
_SCRIPT_IDS: Final = tuple(bytes([script]) for script in range(1, 9))
_NO_SCRIPT: Final = bytes(byte for byte in range(256) if not _script(byte))
_NO_SCRIPTS: Final = (0,) * len(_SCRIPT_IDS)


def _count(text: bytes) -> tuple[int, ...]:
    """The features from `letters` on.

    Each class is one bit, and the text's classes are read as one long number: a byte that keeps
    its bit against the number shifted by one byte begins a run. That is a few machine words per
    eight characters, where a regular expression would cost 25 times as much.
    """
    classes = text.translate(_ASCII_CLASSES)
    number = int.from_bytes(classes, "little")
    starts = (number & ~(number << 8)).to_bytes(len(text) + 1, "little")
    starts = starts.translate(None, _NO_START)  # a third is left: counting is the dear part
    counts: list[int] = []
    for bit in (_SPACE, _BREAK, _DIGIT, _MARK):
        counts += (classes.count(bit), starts.count(bit))
    letters = len(text) - sum(counts[::2]) - classes.count(_OTHER)
    words = sum(starts.count(start) for start in _LETTER_STARTS)
    known = (letters, words, starts.count(_HUMP), *counts)
    if text.isascii():
        return (*known, *_NO_SCRIPTS)
    scripts = text.translate(_SCRIPTS, _NO_SCRIPT)
    return (*known, *(scripts.count(script) for script in _SCRIPT_IDS))
