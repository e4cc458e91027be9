"""Records as the objects that answers show, with instants as whole seconds since 1970."""

from datetime import datetime
from typing import Any, Final, TypeVar

import msgspec

Shown = TypeVar("Shown", bound=msgspec.Struct)

_MISSING: Final = object()


def unix(instant: datetime | None) -> int | None:
    """The second, None for no instant."""
    return None if instant is None else int(instant.timestamp())


def object_of(kind: type[Shown], *records: object, **other: Any) -> Shown:
    """An object whose fields are those of `other`, and what the first of the records that has the
    same name says: instants in Unix seconds. Raises TypeError where a field is left that needs one.
    """
    fields = dict(other)
    for name in kind.__struct_fields__:
        for record in () if name in other else records:
            value = getattr(record, name, _MISSING)
            if value is not _MISSING:
                fields[name] = unix(value) if isinstance(value, datetime) else value
                break
    return kind(**fields)
