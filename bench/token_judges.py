"""Real tokenizers for bench_tokens, out of packages that carry their vocabularies.

They are installed with hashes into an environment of the bench's own; neither Lowtide nor its
tests need them. Three that differ: cl100k has a third more tokens for Chinese than o200k, and Qwen
a third less than cl100k; Qwen cuts numbers into digits, the others into threes.
"""

import base64
import os
import subprocess
import sys
import venv
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

PINS: Final = Path(__file__).with_name("requirements-tokens.txt")
ROOT: Final = Path(__file__).parents[1]

Count = Callable[[str], int]
"""Tokens of a text."""

_MESSAGE_TOKENS: Final = 5  # of ChatML beside a message's text: start, role, line, end, line
_ANSWER_TOKENS: Final = 3  # the start of the answer

_QWEN_RUNS: Final = "|".join(
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"\p{N}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)


def environment() -> Path:
    """The Python that has the tokenizers; made from the pins when it is not there."""
    folder = ROOT / ".venvs" / "bench-tokens"
    python, stamp = folder / "bin" / "python", folder / ".pins"
    if not stamp.is_file() or stamp.read_bytes() != PINS.read_bytes():
        venv.create(folder, clear=True, with_pip=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
        wheels = PINS.read_text().partition("snownlp==")
        first = folder / "wheels.txt"
        first.write_text(wheels[0])  # setuptools among them, with which the last one is built
        subprocess.run([*install, "-r", str(first)], check=True)
        subprocess.run([*install, "--no-build-isolation", "-r", str(PINS)], check=True)
        stamp.write_bytes(PINS.read_bytes())
    return python


def judges() -> dict[str, Count]:
    """To be called in the environment alone."""
    os.environ["TIKTOKEN_CACHE_DIR"] = str(_inside("litellm", "litellm_core_utils/tokenizers"))
    tiktoken: Any = __import__("tiktoken")
    lines = _inside("dashscope", "resources/qwen.tiktoken").read_bytes().splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, lines)}
    qwen = tiktoken.Encoding("qwen", pat_str=_QWEN_RUNS, mergeable_ranks=ranks, special_tokens={})
    encodings = [tiktoken.get_encoding(name) for name in ("cl100k_base", "o200k_base")]
    return {encoding.name: _counting(encoding) for encoding in (*encodings, qwen)}


def prompt_tokens(count: Count, request: dict[str, Any]) -> int:
    """What an engine with a ChatML template would report for the request."""
    contents = [message["content"] for message in request["messages"]]
    return _ANSWER_TOKENS + sum(_MESSAGE_TOKENS + count(content) for content in contents)


def run_inside(module: str) -> int:
    """Run a module of the bench in the environment; its exit code."""
    paths = os.pathsep.join((str(ROOT / "src"), str(ROOT)))
    command = [str(environment()), "-m", module, "--inside"]
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, cwd=ROOT).returncode


def is_inside() -> bool:
    return "--inside" in sys.argv


def _counting(encoding: Any) -> Count:
    return lambda text: len(encoding.encode_ordinary(text))


def _inside(package: str, path: str) -> Path:
    found = find_spec(package)
    assert found is not None and found.submodule_search_locations
    return Path(found.submodule_search_locations[0]) / path
