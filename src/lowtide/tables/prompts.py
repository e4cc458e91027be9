"""Prompt templates: Jinja2 in its sandbox, checked against the table's columns before any row.

A column is a variable by its name; `row["any name"]` reaches the others. A null is an empty text.
Invariants: a template cannot read files, import, or change what it is given; a column that the
table does not have is named before anything runs.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lowtide.tables.errors import TableError

_ROW: Final = "row"
_LOADERS: Final = (nodes.Include, nodes.Extends, nodes.Import, nodes.FromImport)
_ROW_FAULTS: Final = (
    TemplateError,
    SecurityError,
    TypeError,
    ValueError,
    ArithmeticError,
    LookupError,
    AttributeError,
    RecursionError,
)
"""What an expression in a template may raise over an odd value."""


class RowFault(Exception):
    """One row that cannot be rendered or sent; the others go on."""


def _shown(value: Any) -> Any:
    return "" if value is None else value


_environment: Final = ImmutableSandboxedEnvironment(
    undefined=StrictUndefined, finalize=_shown, autoescape=False, keep_trailing_newline=False
)


class Prompt:
    """One template, compiled. `columns`: those that it uses, of the table's."""

    def __init__(self, text: str, columns: Sequence[str], option: str) -> None:
        """`option` is the one that the text came by. Raises TableError for a template that does not
        parse, reads other templates, or names a column that is not there."""
        try:
            tree = _environment.parse(text)
            self._template = _environment.from_string(tree)
        except TemplateSyntaxError as error:
            raise TableError(
                f"{option}, line {error.lineno}: {error.message}.",
                "The template is Jinja2: {{ column }} stands for a column's value.",
                code="bad_template",
            ) from None
        if any(True for _ in tree.find_all(_LOADERS)):
            raise TableError(
                f"{option}: a prompt cannot include or import other templates.",
                "Put the text into the prompt itself.",
                code="bad_template",
            )
        self.text = text
        self.columns = _columns_of(tree, columns, option)

    def render(self, row: Mapping[str, Any]) -> str:
        """The text for one row. Raises RowFault."""
        try:
            return self._template.render({_ROW: row} | dict(row))
        except _ROW_FAULTS as error:
            raise RowFault(f"The prompt cannot be made: {error}") from None


def _columns_of(tree: nodes.Template, columns: Sequence[str], option: str) -> frozenset[str]:
    free = meta.find_undeclared_variables(tree)
    known = set(columns)
    named = free - _environment.globals.keys() - {_ROW} | free & known
    if _ROW in free and _ROW not in known:
        constant = _constant_members(tree)
        named = named | (known if constant is None else constant)
    unknown = sorted(named - known)
    if unknown:
        raise TableError(
            f"{option} names {_quoted(unknown)}, and the table has no such column.",
            _suggestion(unknown, columns),
            code="unknown_column",
        )
    return frozenset(named)


def _constant_members(tree: nodes.Template) -> set[str] | None:
    """The columns in row["..."] and row.name; None where `row` is used in another way."""
    members = set()
    uses = 0
    for member in tree.find_all(nodes.Getattr):
        if _is_row(member.node):
            members.add(member.attr)
            uses += 1
    for item in tree.find_all(nodes.Getitem):
        if _is_row(item.node):
            if not isinstance(item.arg, nodes.Const) or not isinstance(item.arg.value, str):
                return None
            members.add(item.arg.value)
            uses += 1
    names = sum(map(_is_row, tree.find_all(nodes.Name)))
    return members if names == uses else None


def _is_row(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Name) and node.name == _ROW


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"{{{{ {name} }}}}" for name in names)


def _suggestion(unknown: Sequence[str], columns: Sequence[str]) -> str:
    close = get_close_matches(unknown[0], columns, 1)
    meant = f"Did you mean {close[0]}? " if close else ""
    odd = next((name for name in columns if not name.isidentifier()), None)
    reach = f' A name like that is reached by {{{{ row["{odd}"] }}}}.' if odd else ""
    return f"{meant}Its columns: {', '.join(columns)}.{reach}"
