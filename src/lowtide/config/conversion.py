"""Converts a tree of plain values to the settings, and reports every mistake, not only the first.

Called by `settings.load`. It knows types and names of keys from the sections themselves; which
values make sense is said by each section's own check.
"""

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, TypeVar, get_args, get_origin

import msgspec

from lowtide.config.placeholders import holds_template
from lowtide.config.problems import Problem, nearest
from lowtide.config.sections import Section
from lowtide.config.sources import ARRAYS, ENV_PREFIX, KeyPath, VariableText

Tree = TypeVar("Tree", bound=Section)

_VALUE_CHARS_SHOWN: Final = 40
_WORDS: Final = {
    "int": "a whole number",
    "float": "a number",
    "decimal": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
}
_SIZES: Final = {
    f"{letter}{unit}": factor**power
    for power, letter in enumerate("kmgt", start=1)
    for unit, factor in (("b", 1000), ("ib", 1024))
}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?) ?([kmgt]i?b)", re.IGNORECASE)
_EXPECTED: Final = re.compile(r"Expected `([^`]+)`")
_json: Final = msgspec.json.Decoder(float_hook=Decimal)


class Conversion:
    """Converts one tree; `problems` has what was found on the way."""

    def __init__(self, known_sections: Mapping[str, Iterable[str]]) -> None:
        """`known_sections`: the keys of every section, to say where a misplaced key belongs."""
        self._known_sections = known_sections
        self.problems: list[Problem] = []

    def section(self, kind: type[Tree], value: Any, path: KeyPath) -> Tree | None:
        """Converts a section; None where it cannot be made. What can be is, so that it
        is checked, too.
        """
        if not isinstance(value, dict):
            self._find(path, f"is a section: write [{path[0]}] and its keys below it")
            return None
        fields = {field.name: field for field in msgspec.structs.fields(kind)}
        given: dict[str, Any] = {}
        for key, raw in value.items():
            if key not in fields:
                self._find((*path, key), self._unknown(key, fields, path))
                continue
            is_usable, converted = self._value(fields[key].type, raw, (*path, key), kind)
            if is_usable:
                given[key] = converted
        for name, field in fields.items():
            if field.required and name not in value:
                self._find(path, f"needs the key {name}")
        return kind(**given) if all(n in given for n, f in fields.items() if f.required) else None

    def table(self, kind: type[Tree], value: Any, name: str) -> tuple[tuple[int, Tree], ...]:
        """Converts the entries of a list of sections that can be made, with their places from 0."""
        if isinstance(value, VariableText):
            try:
                value = _json.decode(str(value))
            except msgspec.DecodeError:
                self._find((name,), f'must be a JSON list, as [{{"{_first_key(kind)}": ...}}]')
                return ()
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            self._find((name,), f"is a list: write [[{name}]], with two brackets, for each entry")
            return ()
        made = ((n, self.section(kind, entry, (name, n))) for n, entry in enumerate(value))
        return tuple((n, entry) for n, entry in made if entry is not None)

    def unknown_section(self, name: str, known: Iterable[str]) -> None:
        """Reports a section, or a key outside of any, that is none of the known."""
        self._find((name,), self._unknown(name, known, (), "section"))

    def _value(
        self, kind: Any, raw: Any, path: KeyPath, section: type[Section]
    ) -> tuple[bool, Any]:
        is_typed = not isinstance(raw, VariableText)
        if not is_typed:
            raw = self._from_variable(kind, str(raw))
        if str(path[-1]).endswith("_bytes"):
            raw = _bytes_of(raw)
        if Any in get_args(kind):
            raw = _with_floats(raw)
        elif path[-1] not in section.COMMAND_KEYS and holds_template(raw):
            self._find(path, _template_refused(path, section))
            return False, None
        try:
            return True, msgspec.convert(raw, kind, strict=is_typed, dec_hook=_path)
        except msgspec.ValidationError as error:
            shown = "" if path[-1] in section.SECRET_KEYS else f", not {_shown(raw)}"
            hint = ": leave out the quotes" if is_typed and _is_quoted(kind, raw) else ""
            self._find(path, f"must be {_allowed(kind, str(error))}{shown}{hint}")
            return False, None

    def _from_variable(self, kind: Any, text: str) -> Any:
        """Text is taken as it is, whatever it begins with; a list or a table is given as JSON."""
        if _is_text(kind):
            return text
        text = text.strip()
        if text[:1] in ("[", "{"):
            try:
                return _json.decode(text)
            except msgspec.DecodeError:
                return text
        return text

    def _unknown(self, key: str, known: Iterable[str], path: KeyPath, what: str = "key") -> str:
        for name, keys in self._known_sections.items():
            if key in keys and (not path or name != path[0]):
                shown = f"[[{name}]]" if name in ARRAYS else f"[{name}]"
                return f"there is no such {what} here; {key!r} belongs to {shown}"
        if (near := nearest(key, known)) is not None:
            return f"there is no such {what}. Did you mean {near!r}?"
        return f"there is no such {what}. Known are {', '.join(sorted(known))}."

    def _find(self, path: KeyPath, words: str) -> None:
        self.problems.append(Problem(path, words))


def _bytes_of(raw: Any) -> Any:
    """Returns a size such as `100MB` or `8 GiB` in bytes; anything else as it is."""
    sized = _SIZE.fullmatch(raw.strip()) if isinstance(raw, str) else None
    if sized is None:
        return raw
    size = Decimal(sized[1]) * _SIZES[sized[2].lower()]
    return int(size) if size == int(size) else raw


def _first_key(kind: type[Section]) -> str:
    """A key that an entry of the list must have."""
    return next(field.name for field in msgspec.structs.fields(kind) if field.required)


def _is_text(kind: Any) -> bool:
    kinds = {k for k in (get_args(kind) or (kind,)) if k is not type(None)}
    return kinds <= {str, Path}


def _is_quoted(kind: Any, raw: Any) -> bool:
    """Whether it is right but for being text, as "8000" for a port."""
    if not isinstance(raw, str):
        return False
    try:
        msgspec.convert(raw, kind, strict=False, dec_hook=_path)
    except msgspec.ValidationError:
        return False
    return True


def _template_refused(path: KeyPath, section: type[Section]) -> str:
    """What to do instead of a `${NAME}` that nothing fills in. The value may be a secret."""
    key = path[-1]
    if f"{key}_env" in section.__struct_fields__:
        remedy = f'give the name of the variable as {key}_env = "NAME"'
    elif len(path) == 2 and path[0] not in ARRAYS:
        variable = f"{ENV_PREFIX}{path[0]}__{key}".upper()
        remedy = f"set the variable {variable} instead"
    else:
        remedy = "write the value itself"
    return f"has a variable or template in it that nothing has filled in: {remedy}"


def _allowed(kind: Any, words: str) -> str:
    choices = _choices(kind)
    others = [k for k in get_args(kind) if k is not type(None) and get_origin(k) is None]
    if choices:
        shown = " or ".join(repr(choice) for choice in choices)
        return f"{shown}, or a whole number" if int in others else shown
    expected = _EXPECTED.search(words)
    if words.startswith("Invalid decimal"):
        return "a number"
    if expected is None:
        return words.partition(" - at `")[0].removeprefix("Expected ")
    names = [part.strip() for part in expected[1].split("|")]
    shown = " or ".join(_WORDS.get(name, name) for name in names if name != "null")
    _, is_inner, where = words.partition(" - at `$")
    if not is_inner:
        return shown
    return f"a {'list, each entry' if where[1:2].isdigit() else 'table, each value'} {shown}"


def _choices(kind: Any) -> tuple[Any, ...]:
    """The values of a Literal, also within a union."""
    args = get_args(kind)
    if args and not any(isinstance(arg, type) or get_args(arg) for arg in args):
        return args
    return next((get_args(a) for a in args if _choices(a)), ())


def _shown(raw: Any) -> str:
    text = str(raw) if isinstance(raw, Decimal) else repr(raw)
    if isinstance(raw, bool):
        text = text.lower()
    elif isinstance(raw, dict):
        return "a table"
    elif isinstance(raw, list):
        return "a list"
    return text if len(text) <= _VALUE_CHARS_SHOWN else f"{text[:_VALUE_CHARS_SHOWN]}..."


def _with_floats(raw: Any) -> Any:
    """The value with floats for exact numbers: engines read JSON numbers; exact
    ones are for prices.
    """
    match raw:
        case Decimal():
            return float(raw)
        case dict():
            return {name: _with_floats(value) for name, value in raw.items()}
        case list():
            return [_with_floats(value) for value in raw]
    return raw


def _path(kind: type, value: object) -> Path:
    """Decodes a path: the one type of the tree that msgspec does not know."""
    assert kind is Path, "a setting of a new type needs its own conversion"
    if not isinstance(value, str) or not value:
        raise ValueError("Expected the path of a folder")
    try:
        return Path(value).expanduser()
    except RuntimeError:  # this user has no home folder
        raise ValueError("Expected a path without ~, for this user has no home folder") from None
