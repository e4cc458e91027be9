"""Bad lines that say the same together: the pages of the console and the CLI tell a fault once."""

from collections.abc import Iterable, Sequence

from lowtide.api.objects.batches import LineErrorObject


def by_fault(errors: Iterable[LineErrorObject]) -> list[Sequence[LineErrorObject]]:
    """The errors that share code, message and parameter, in the order of their first lines."""
    groups: dict[tuple[str | None, str, str | None], list[LineErrorObject]] = {}
    for error in errors:
        groups.setdefault((error.code, error.message, error.param), []).append(error)
    return list(groups.values())


def lines_of(group: Iterable[LineErrorObject]) -> list[int]:
    """The numbers of its lines; none where the fault is the file's as a whole."""
    return [error.line for error in group if error.line is not None]
