"""Where settings come from: a TOML file and the environment, as one tree of plain values.

Called by config.py, which says what the values must be. Nothing here knows a single key.
"""

import tomllib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final

import msgspec

ENV_PREFIX: Final = "LOWTIDE_"
_ARRAYS: Final = frozenset({"replica", "model"})


class ConfigError(Exception):
    """The configuration cannot be used; the message says which key, why, and what would do."""


def read_toml(file: Path | Traversable, named_by: str = "--config") -> dict[str, Any]:
    """Numbers with a point stay exact: prices are among them."""
    try:
        with file.open("rb") as stream:
            return tomllib.load(stream, parse_float=Decimal)
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such file. Check {named_by}.") from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not valid TOML: {error}") from None


_environment_json: Final = msgspec.json.Decoder(float_hook=Decimal)


def from_environment(environ: Mapping[str, str]) -> list[tuple[list[str], Any]]:
    """`LOWTIDE_SERVER__PORT=1` -> (["server", "port"], "1"); arrays are given as JSON."""
    found: list[tuple[list[str], Any]] = []
    for name, text in sorted(environ.items()):
        if not name.startswith(ENV_PREFIX):
            continue
        path = name.removeprefix(ENV_PREFIX).lower().split("__")
        if len(path) == 1 and path[0] not in _ARRAYS:
            continue  # LOWTIDE_API_KEY and the like belong to the command line
        value: Any = text
        if text[:1] in "[{":
            try:
                value = _environment_json.decode(text)
            except msgspec.DecodeError as error:
                raise ConfigError(f"{name}: not valid JSON: {error}") from None
        found.append((path, value))
    return found


def put(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for step in path[:-1]:
        branch = tree.setdefault(step, {})
        if not isinstance(branch, dict):
            raise ConfigError(f"{'.'.join(path)}: {step!r} is not a section")
        tree = branch
    tree[path[-1]] = value
