"""Groups of failures as the rows of a table, for a batch's page and its report. Pure."""

from collections.abc import Sequence
from typing import Final, get_args

import msgspec

from lowtide.core.batches.failures import OTHER, FailureGroup
from lowtide.core.batches.line import UnexecutedCode

_NEVER_RUN: Final = frozenset(get_args(UnexecutedCode))


class FailureRow(msgspec.Struct, frozen=True):
    """A group. The first of each code has how many groups and lines have that code, for the one
    button that retries them all; the others have 0. `of_code` 0: no retry can name the code.
    """

    group: FailureGroup
    groups_of_code: int = 0
    of_code: int = 0


def rows_of(groups: Sequence[FailureGroup]) -> list[FailureRow]:
    """The rows, those of one code together, otherwise in the order given."""
    alike: dict[str, list[FailureGroup]] = {}
    for group in groups:
        alike.setdefault(group.code, []).append(group)
    found: list[FailureRow] = []
    for code, (first, *others) in alike.items():
        # Several codes are counted as OTHER, and a retry goes by code.
        lines = 0 if code == OTHER else first.requests + sum(each.requests for each in others)
        found.append(FailureRow(first, 1 + len(others), lines))
        found += map(FailureRow, others)
    return found


def unrun_in(groups: Sequence[FailureGroup]) -> int:
    """Lines of the error file that no engine saw: their batch ended before."""
    return sum(each.requests for each in groups if each.code in _NEVER_RUN)
