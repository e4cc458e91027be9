"""JSON schemas of the objects that bodies and answers are made of, as the document has them.

Made by msgspec from the structs that are sent and read, so that there is nothing to keep in step.
Invariant: an answer has every field of its struct but those whose default is UNSET, so all others
are required in the document, also where a reader may do without them.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

Kinds = type[Any] | tuple[type[Any], ...]
"""A type, or the types that one answer may be of."""
Schema = Mapping[str, Any]
"""A JSON schema that is written down."""
_PLACE: Final = "#/components/schemas/{name}"


def schema_of(kinds: Kinds) -> dict[str, Any]:
    """The schema of an answer of one of these kinds, with references into `components`."""
    each = kinds if isinstance(kinds, tuple) else (kinds,)
    refs, _ = msgspec.json.schema_components(each, ref_template=_PLACE)
    schemas = [dict(schema) for schema in refs]
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def components(kinds: Iterable[type[Any]]) -> dict[str, Any]:
    """The schemas of these kinds and of all that they are made of, by name."""
    _, schemas = msgspec.json.schema_components(list(kinds), ref_template=_PLACE)
    for struct in _structs(kinds):
        schemas[struct.__name__]["required"] = [
            field.encode_name
            for field in msgspec.structs.fields(struct)
            if field.default is not msgspec.UNSET
        ]
    return schemas


def parameters_of(query: type[msgspec.Struct]) -> list[dict[str, Any]]:
    """The query parameters that a struct reads, none of them required."""
    _, schemas = msgspec.json.schema_components([query], ref_template=_PLACE)
    fields: dict[str, Any] = schemas[query.__name__]["properties"]
    return [{"name": name, "in": "query", "schema": schema} for name, schema in fields.items()]


def _structs(kinds: Iterable[Any]) -> set[type[msgspec.Struct]]:
    """All struct types that these types are made of."""
    structs: set[type[msgspec.Struct]] = set()
    left: list[msgspec.inspect.Type] = [msgspec.inspect.type_info(kind) for kind in kinds]
    while left:
        match left.pop():
            case msgspec.inspect.StructType(cls=cls, fields=fields):
                if cls not in structs:
                    structs.add(cls)
                    left += [field.type for field in fields]
            case msgspec.inspect.UnionType(types=types):
                left += types
            case (
                msgspec.inspect.ListType(item_type=item)
                | msgspec.inspect.VarTupleType(item_type=item)
            ):
                left.append(item)
    return structs
