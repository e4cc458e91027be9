"""The columns that a run adds: the answer, or the fields of a schema with types, and `_error`,
`_finish_reason` and `_tokens`. Pure.

The CLI makes them before anything runs, so that a name which the table has already is refused
then. Invariant: a value that does not fit its column becomes null with an `_error`, never a value
of another type.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import pyarrow as pa

from lowtide.limits import TABLE_ERROR_CHARS_MAX
from lowtide.tables.answers import Answer
from lowtide.tables.errors import TableError
from lowtide.tables.json_fields import is_json_field, json_field
from lowtide.tables.json_text import json_text

ERROR: Final = "_error"
FINISH_REASON: Final = "_finish_reason"
TOKENS: Final = "_tokens"
EMBEDDING_SCHEMA: Final = {"type": "array", "items": {"type": "number"}}

_SCALARS: Final[Mapping[str, pa.DataType]] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
}
_FLOAT_MAX: Final = sys.float_info.max
_REFERENCES_MAX: Final = 16  # one behind another; a schema that refers to itself has no end


class Misfit(Exception):
    """A value that is not what its column holds."""


def misfit_text(why: str, answer: Answer) -> str:
    """What `_error` says of an answer that is not what was asked for."""
    cut = " It was cut short: allow more tokens." * (answer.finish_reason == "length")
    return f"{why}.{cut} The answer: {answer.text}"[:TABLE_ERROR_CHARS_MAX]


class ResultColumns:
    """The added columns, in order, and how an answer fills them."""

    def __init__(
        self,
        columns: Sequence[str],
        schema: Mapping[str, Any] | None,
        answer_column: str,
        prefix: str = "",
    ) -> None:
        """`columns`: those of the table. `answer_column`: where an answer goes that has no fields;
        `prefix` stands before every name. Raises TableError for a schema that is none, and for
        names that collide."""
        self._schema = schema
        self._is_object = schema is not None and _kind_of(schema, schema) == "object"
        self._required: frozenset[str] = frozenset()
        if schema is None:
            fields = [pa.field(answer_column, pa.string())]
        elif self._is_object:
            resolved = _resolved(schema, schema)
            members = resolved.get("properties")
            if not isinstance(members, Mapping) or not members:
                raise TableError("The schema names no properties.", code="bad_schema")
            self._required = frozenset(resolved.get("required") or ()) & members.keys()
            fields = [_field(name, member, schema) for name, member in members.items()]
        else:
            fields = [_field(answer_column, schema, schema)]
        self._members = [field.name for field in fields]
        self._are_json = [is_json_field(field) for field in fields]
        fields += [
            pa.field(ERROR, pa.string()),
            pa.field(FINISH_REASON, pa.string()),
            pa.field(TOKENS, pa.int64()),
        ]
        self.fields = tuple(field.with_name(prefix + field.name) for field in fields)
        names = [field.name for field in self.fields]
        taken = [name for name in names if name in set(columns)]
        taken += sorted({name for name in names if names.count(name) > 1})
        if taken:
            raise TableError(
                f"The result would have two columns called {', '.join(taken)}.",
                "Give --prefix, for example --prefix result_, which stands before the name of each"
                " new column; or rename the column of the table.",
                code="column_collision",
            )

    def arrays(self, answers: Sequence[Answer]) -> list[pa.Array]:
        """One array for each field."""
        rows = [self._row(answer) for answer in answers]
        columns = zip(*rows, strict=True) if rows else ((),) * len(self.fields)
        return [
            pa.array(values, field.type) for values, field in zip(columns, self.fields, strict=True)
        ]

    def _row(self, answer: Answer) -> list[Any]:
        values: list[Any] = [None] * len(self._members)
        error = answer.error
        if answer.text is not None and error is None:
            try:
                values = self._values(answer.text)
            except Misfit as misfit:
                error = misfit_text(str(misfit), answer)
        return [*values, error, answer.finish_reason, answer.tokens]

    def error_of(self, answer: Answer) -> str | None:
        """What `_error` will say of it."""
        return answer.error if self._schema is None else self._row(answer)[len(self._members)]

    def _values(self, text: str) -> list[Any]:
        if self._schema is None:
            return [text]
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            raise Misfit("The answer is no JSON") from None
        if not self._is_object:
            return [self._one(value, 0, "The answer")]
        if not isinstance(value, dict):
            raise Misfit("The answer is no JSON object")
        missing = sorted(self._required - value.keys())
        if missing:
            raise Misfit(f"The answer lacks {', '.join(missing)}")
        return [self._one(value.get(name), n, name) for n, name in enumerate(self._members)]

    def _one(self, value: Any, place: int, name: str) -> Any:
        if self._are_json[place]:
            return None if value is None else json_text(value)
        return _fitted(value, self.fields[place].type, name)


def _resolved(schema: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema behind its references, without the choice of null."""
    for _ in range(_REFERENCES_MAX):
        if not isinstance(schema, Mapping):
            raise TableError("The schema is no JSON object.", code="bad_schema")
        if isinstance(reference := schema.get("$ref"), str):
            schema = _followed(reference, root)
            continue
        choices = schema.get("anyOf") or schema.get("oneOf")
        if not choices:
            return schema
        real = [each for each in choices if not (isinstance(each, Mapping) and _is_null(each))]
        if len(real) != 1:
            return {}
        schema = real[0]
    return {}


def _is_null(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "null"


def _followed(reference: str, root: Mapping[str, Any]) -> Any:
    value: Any = root
    for step in reference.removeprefix("#").strip("/").split("/"):
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(value, Mapping) or (name and name not in value):
            raise TableError(
                f"The schema refers to {reference}, which it lacks.", code="bad_schema"
            )
        value = value[name] if name else value
    return value


def _kind_of(schema: Any, root: Mapping[str, Any]) -> str | None:
    """The one type that values have beside null; None where there are several or none is named."""
    resolved = _resolved(schema, root)
    kind = resolved.get("type")
    kinds = [each for each in (kind if isinstance(kind, list) else [kind]) if each != "null"]
    if len(kinds) == 1 and kinds[0] is not None:
        return str(kinds[0])
    if "properties" in resolved:
        return "object"
    values = resolved.get("enum") or ([resolved["const"]] if "const" in resolved else [])
    return "string" if values and all(isinstance(each, str) for each in values) else None


def _field(name: str, schema: Any, root: Mapping[str, Any]) -> pa.Field:
    kind = _type(schema, root, 0)
    return json_field(name) if kind is None else pa.field(name, kind)


def _type(schema: Any, root: Mapping[str, Any], depth: int) -> pa.DataType | None:
    """The type of a column; None for what only JSON text can hold."""
    if depth > _REFERENCES_MAX:
        return None
    kind = _kind_of(schema, root)
    if kind is not None and kind in _SCALARS:
        return _SCALARS[kind]
    resolved = _resolved(schema, root)
    if kind == "array" and "items" in resolved:
        item = _type(resolved["items"], root, depth + 1)
        return None if item is None else pa.list_(item)
    if kind == "object" and resolved.get("properties"):
        members = {n: _type(m, root, depth + 1) for n, m in resolved["properties"].items()}
        if all(member is not None for member in members.values()):
            return pa.struct(list(members.items()))
    return None


def _fitted(value: Any, kind: pa.DataType, name: str) -> Any:
    """The value as the column holds it. Raises Misfit."""
    if value is None:
        return None
    if pa.types.is_list(kind) and isinstance(value, list):
        return [_fitted(each, kind.value_type, name) for each in value]
    if pa.types.is_struct(kind) and isinstance(value, dict):
        members = (kind.field(place) for place in range(kind.num_fields))
        return {m.name: _fitted(value.get(m.name), m.type, f"{name}.{m.name}") for m in members}
    if (check := _CHECKS.get(kind)) is not None and check(value):
        return float(value) if kind == pa.float64() else value
    raise Misfit(f"{name} is no {_WORDS.get(kind, kind)}")


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -_FLOAT_MAX <= value <= _FLOAT_MAX


def _is_whole(value: Any) -> bool:
    return _is_number(value) and value == int(value) and -(2**63) <= value < 2**63


_CHECKS: Final[Mapping[pa.DataType, Callable[[Any], bool]]] = {
    pa.string(): lambda value: isinstance(value, str),
    pa.int64(): _is_whole,
    pa.float64(): _is_number,
    pa.bool_(): lambda value: isinstance(value, bool),
}
_WORDS: Final = {
    pa.string(): "text",
    pa.int64(): "whole number",
    pa.float64(): "number",
    pa.bool_(): "true or false",
}
