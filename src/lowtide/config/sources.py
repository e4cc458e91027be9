"""Where settings come from: a TOML file and the environment, as one tree of plain values.

Called by `config`, which says what the values must be. Nothing here knows a single key. A `Sources`
remembers where each value stood, so that a mistake is told with its file and line, its variable or
its flag.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final, NamedTuple

ENV_PREFIX: Final = "LOWTIDE_"
ARRAYS: Final = frozenset({"replica", "source", "scaler", "model"})
KeyPath = tuple[str | int, ...]
"""Where a value stands in the tree: `("replica", 0, "url")`. Elements of lists count from 0."""


class ConfigError(Exception):
    """The configuration cannot be used; the message says which key, why, and what would do."""


class VariableText(str):
    """The text of an environment variable: what it stands for is said by the key's type."""

    __slots__ = ()


class Overridden(NamedTuple):
    """A value that does not count, because a stronger source has the same key."""

    path: KeyPath
    value: Any
    name: str | None
    """The variable that it is from; None: the file."""


class Sources:
    """One tree out of several sources, and where each of its values came from."""

    def __init__(self, file: Path | Traversable | None = None, named_by: str = "--config") -> None:
        """Reads the file, if one is given. Raises ConfigError."""
        self.tree: dict[str, Any] = {}
        self._file = None if file is None else str(file)
        self._lines: Mapping[KeyPath, int] = {}
        self._names: dict[KeyPath, str] = {}
        self.overridden: list[Overridden] = []
        """Values that another source has set anew."""
        if file is not None:
            text = _text_of(file, named_by)
            try:
                # Numbers with a point stay exact: prices are among them.
                self.tree = tomllib.loads(text, parse_float=Decimal)
            except tomllib.TOMLDecodeError as error:
                raise ConfigError(f"{file}: not valid TOML: {error}") from None
            self._lines = key_lines(text)

    def put(self, path: Sequence[str], value: Any, name: str) -> None:
        """Sets a value over what other sources said. `name` is the variable or flag it is from.

        Raises ConfigError where the path leads through something that is no section.
        """
        tree = self.tree
        for step in path[:-1]:
            branch = tree.setdefault(step, {})
            if not isinstance(branch, dict):
                raise ConfigError(
                    f"{name}: {step!r} is not a section. One entry of a list cannot be changed;"
                    f" give the whole list as {ENV_PREFIX}{step.upper()}, in JSON."
                )
            tree = branch
        if path[-1] in tree:
            before = self._names.get(tuple(path))
            self.overridden.append(Overridden(tuple(path), tree[path[-1]], before))
        tree[path[-1]] = value
        self._names[tuple(path)] = name

    def place_of(self, path: KeyPath) -> str:
        """The variable, the flag, or the file and line of a value; empty for a default."""
        above = [path[:end] for end in range(len(path), 0, -1)]
        for known in above:
            if (name := self._names.get(known)) is not None:
                return name
        if line := self.line_of(path):
            return line
        below = (name for at, name in self._names.items() if at[: len(path)] == path)
        return next(below, self._file or "" if path[0] in self.tree else "")

    def line_of(self, path: KeyPath) -> str:
        """The file and line of a value, whatever has overridden it; empty if it is not there."""
        for known in (path[:end] for end in range(len(path), 0, -1)):
            if (line := self._lines.get(known)) is not None:
                return f"{self._file} line {line}"
        return ""


def _text_of(file: Path | Traversable, named_by: str) -> str:
    try:
        with file.open("rb") as stream:
            return stream.read().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such file. Check {named_by}.") from None
    except IsADirectoryError:
        raise ConfigError(f"{file}: is a folder, not a settings file. Check {named_by}.") from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not valid TOML: it is not UTF-8: {error.reason}") from None


def variables(environ: Mapping[str, str]) -> Iterator[tuple[str, list[str], VariableText]]:
    """`LOWTIDE_SERVER__PORT=1` -> name, ["server", "port"], "1".

    Empty ones count as unset, as templates leave them behind. A line end at the end of a value is
    what files that variables are made from end with; no setting has one.
    """
    for name, text in sorted(environ.items()):
        if not name.startswith(ENV_PREFIX) or not text.strip():
            continue
        path = name.removeprefix(ENV_PREFIX).lower().split("__")
        if len(path) == 1 and path[0] not in ARRAYS:
            continue  # LOWTIDE_API_KEY and the like belong to the command line
        yield name, path, VariableText(text.rstrip("\r\n"))


_HEADER: Final = re.compile(r"\s*(\[\[?)\s*([^\[\]#]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY: Final = re.compile(r"\s*([\w.\-]+|\"[^\"]*\"|'[^']*')\s*=(.*)$")
_TOKEN: Final = re.compile(
    r'"""|\'\'\'|"(?:\\.|[^"\\])*"|\'[^\']*\'|#.*|[\[\]{}]|[^"\'#\[\]{}]+|.', re.DOTALL
)


def key_lines(text: str) -> dict[KeyPath, int]:
    """The line, from 1, of each section and key of a valid TOML text."""
    lines: dict[KeyPath, int] = {}
    counts: dict[str, int] = {}
    section: KeyPath = ()
    reading = _Value()
    for number, line in enumerate(text.splitlines(), 1):
        if reading.goes_on:
            reading.feed(line)
        elif header := _HEADER.match(line):
            section = _section(header[1] == "[[", _steps(header[2]), counts)
            lines.setdefault(section, number)
        elif key := _KEY.match(line):
            lines.setdefault((*section, *_steps(key[1])), number)
            reading.feed(key[2])
    return lines


def _steps(dotted: str) -> list[str]:
    if dotted[0] in "\"'":
        return [dotted[1:-1]]
    return [step.strip(" \t\"'") for step in dotted.split(".")]


def _section(is_element: bool, steps: list[str], counts: dict[str, int]) -> KeyPath:
    """The path of a header; below a list it is the list's last element that is meant."""
    path: list[str | int] = []
    for place, step in enumerate(steps):
        path.append(step)
        name = ".".join(steps[: place + 1])
        if is_element and place == len(steps) - 1:
            counts[name] = counts.get(name, -1) + 1
        if name in counts:
            path.append(counts[name])
    return tuple(path)


class _Value:
    """Whether a value of several lines is still open: a list, or text within three quotes."""

    def __init__(self) -> None:
        self._depth = 0
        self._quotes = ""

    @property
    def goes_on(self) -> bool:
        return bool(self._depth or self._quotes)

    def feed(self, line: str) -> None:
        for token in _TOKEN.findall(line):
            if self._quotes:
                self._quotes = "" if token == self._quotes else self._quotes
            elif token in ('"""', "'''"):
                self._quotes = token
            elif token in "[{":
                self._depth += 1
            elif token in "]}":
                self._depth = max(0, self._depth - 1)
