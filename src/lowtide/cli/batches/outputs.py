"""Checks on where results are to be written, made before anything is started or asked."""

import os
from pathlib import Path

from lowtide.cli.terminal.command_errors import CommandError


def writable_target(path: Path, option: str = "-o", name: str = "results.jsonl") -> Path:
    """`path`, when a file can be put there. Raises CommandError. `option`: what the path was given
    with; `name`: what such a file may be called.
    """
    if path.is_dir():
        raise CommandError(
            f"{path} is a folder, not a file.", f"For example: {option} {path / name}"
        )
    if path.exists() and not path.is_file():
        return path  # a pipe or a device
    folder = path.parent
    if folder.exists() and not folder.is_dir():
        raise CommandError(f"{folder} is a file, not a folder.", f"Choose another {option}.")
    if not folder.is_dir():
        raise CommandError(f"The folder {folder} does not exist.", f"Make it: mkdir -p {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CommandError(f"The folder {folder} cannot be written to.")
    return path


def errors_beside(output: Path) -> Path:
    """The default path of failed lines: `results.errors.jsonl` beside `results.jsonl`."""
    if output.suffix == ".jsonl":
        return output.with_suffix(".errors.jsonl")
    return output.with_name(f"{output.name}.errors.jsonl")
