"""Reading an input file before it is sent: can it be read, what is it for, would it pass.

`validate`, `run` and `files upload` call this. The verdict is the server's own: the same validator
over the same bytes, in one streaming pass that takes the SHA-256 along.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from lowtide import limits
from lowtide.cli.terminal.command_errors import CommandError
from lowtide.core.batches.batch import BatchError
from lowtide.core.batches.plan import Plan
from lowtide.core.validation.first_line import (
    DEFAULT_ENDPOINT,
    FirstLine,
    Purpose,
    read_first_line,
)
from lowtide.core.validation.validator import ValidationFailure, Validator


class Inspection(msgspec.Struct, frozen=True):
    """What one pass over an input file found."""

    result: Plan | ValidationFailure
    sha256: str
    bytes: int
    lines: int

    @property
    def warnings(self) -> tuple[BatchError, ...]:
        return self.result.warnings if isinstance(self.result, Plan) else ()


def readable_input(path: Path) -> Path:
    """`path`, when it is a readable, non-empty regular file. Raises CommandError."""
    if path.is_dir():
        first = min(path.glob("*.jsonl"), default=None)
        hint = None if first is None else f"Name a file in it, as {first}."
        raise CommandError(f"{path} is a folder, not a file of requests.", hint)
    if not path.exists():
        raise CommandError(f"{path}: no such file.")
    if not os.access(path, os.R_OK):
        raise CommandError(f"{path} cannot be read: permission denied.")
    if not path.is_file():
        raise CommandError(
            f"{path} is no regular file.", "It is read twice; save it to a file first."
        )
    if not path.stat().st_size:
        raise CommandError(f"{path} is empty.", "Each line is one request, as JSON.")
    return path


def guess_purpose(path: Path) -> Purpose:
    """What the file is for, by its first line."""
    return _first_line(path).purpose


def guess_endpoint(path: Path) -> str:
    """The endpoint that the first line names, else chat completions."""
    return _first_line(path).url or DEFAULT_ENDPOINT


def holds_rows(path: Path) -> bool:
    """Whether the first line is an object that is plainly no request: a row of a table."""
    try:
        members = msgspec.json.decode(_first_text(path), type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return bool(members) and "body" not in members and "custom_id" not in members


def _first_text(path: Path) -> bytes:
    """The first line that is not blank; empty where there is none."""
    with path.open("rb") as stream:
        while line := stream.readline(limits.LINE_BYTES_MAX):
            if text := line.removeprefix(b"\xef\xbb\xbf").strip():
                return text
    return b""


def _first_line(path: Path) -> FirstLine:
    return read_first_line(_first_text(path))


def inspect(
    path: Path, validator: Validator, advance: Callable[[int, int], None] | None = None
) -> Inspection:
    """Reads the whole file once. `advance` is called with bytes done and bytes in all."""
    digest = hashlib.sha256()
    total = path.stat().st_size
    with path.open("rb") as stream:
        while block := stream.read(limits.VALIDATE_BLOCK_BYTES):
            digest.update(block)
            validator.feed(block)
            if advance is not None:
                advance(validator.bytes_seen, total)
    result = validator.finish()
    return Inspection(
        result,
        digest.hexdigest(),
        validator.bytes_seen,
        validator.lines_seen,
    )


def names_and_requests(plan: Plan) -> Mapping[str, int]:
    """Requests by model, the model with the most first."""
    shares = sorted(plan.models.items(), key=lambda item: -item[1].requests)
    return {model: share.requests for model, share in shares}
