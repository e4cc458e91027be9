"""What is wrong with the settings, collected: every mistake is told at the first start.

A check yields problems; `tell` makes one ConfigError of all of them. Invariant: no value of a
secret key gets into a message.
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

import msgspec

from lowtide import limits
from lowtide.config.sources import ConfigError, KeyPath, Sources


class Problem(msgspec.Struct, frozen=True):
    """One mistake: the key it is about, and a sentence without the key."""

    path: KeyPath
    words: str
    place: str | None = None
    """The variable or line; None: where the value that counts is from."""


def tell(problems: Sequence[Problem], sources: Sources | None) -> None:
    """Raises ConfigError with every problem, if there is one, in the order of the file."""
    if not problems:
        return
    lines = list(dict.fromkeys(_line(problem, sources) for problem in problems))
    if len(lines) == 1:
        raise ConfigError(lines[0])
    shown = lines[: limits.CONFIG_PROBLEMS_SHOWN]
    if len(lines) > len(shown):
        shown.append(f"and {len(lines) - len(shown)} more")
    raise ConfigError("\n".join([f"{len(lines)} mistakes in the settings:", *shown]))


def _line(problem: Problem, sources: Sources | None) -> str:
    place = problem.place
    if place is None:
        place = sources.place_of(problem.path) if sources is not None else ""
    return ": ".join(part for part in (place, dotted(problem.path), problem.words) if part)


def dotted(path: KeyPath) -> str:
    """`server.port`; `[[replica]] number 2: window`."""
    if len(path) > 1 and isinstance(path[1], int):
        below = dotted(path[2:])
        name = f"[[{path[0]}]] number {path[1] + 1}"
        return f"{name}: {below}" if below else name
    return ".".join(str(step) for step in path)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` is most likely meant to be."""
    matches = get_close_matches(name.lower().replace("-", "_"), list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def unless(holds: bool, key: Sequence[str | int], allowed: str) -> Iterable[Problem]:
    """A problem unless the value is what is `allowed`."""
    return () if holds else (Problem(tuple(key), f"must be {allowed}"),)
