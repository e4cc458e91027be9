"""A batch and its retries: which lines of the input still have no success, and which to run again.

A tree of retries is one input file and the batches over it: the first one, and each retry of any of
them. Called by service/batches/retries.py. Pure. Invariant: a line that succeeded anywhere in the
tree is in no later retry, so no line is charged twice.
"""

from collections.abc import Collection, Iterable
from typing import Final, Literal, get_args

import msgspec
import numpy as np

from lowtide.core.batches.line import UnexecutedCode
from lowtide.core.batches.line_sets import FailedLines, Lines, combined

RetryOnly = Literal["failed", "expired", "cancelled", "all_unsuccessful"]
"""failed: an engine refused the line, or gave no usable answer. expired, cancelled: it never ran,
because its batch expired or was cancelled."""

RETRY_ONLY: Final[tuple[RetryOnly, ...]] = get_args(RetryOnly)
_NEVER_RUN: Final[frozenset[str]] = frozenset(get_args(UnexecutedCode))
_CODE_OF: Final = {"expired": "batch_expired", "cancelled": "batch_cancelled"}


class MemberOutcome(msgspec.Struct, frozen=True):
    """How one ended batch of a tree came out. `succeeded`: the lines with success, ascending."""

    failed: FailedLines
    succeeded: Lines


def without_success(first: FailedLines, retries: Iterable[MemberOutcome]) -> FailedLines:
    """Lines of the tree without a success, each with the code of its last failure.

    `first`: of the batch that the tree began with; `retries` in the order in which they were made.
    """
    left = first
    for retry in retries:
        left = combined(left, retry.failed)
        left = left.of(~np.isin(left.lines, retry.succeeded, assume_unique=True))
    return left


def chosen(
    left: FailedLines, only: RetryOnly, codes: Collection[str], groups: Collection[str] = ()
) -> FailedLines:
    """The lines without success that a retry asks for. No `codes`, no `groups`: any."""
    wanted = [  # every line has a code
        is_asked(name, only, codes) and (not groups or group in groups)
        for name, group in zip(left.names, left.groups, strict=True)
    ]
    return left.of(np.array(wanted, bool)[left.codes]) if wanted else left


def is_asked(code: str, only: RetryOnly, codes: Collection[str] = ()) -> bool:
    """Whether a retry asks for lines with that code."""
    if codes and code not in codes:
        return False
    if only == "all_unsuccessful":
        return True
    if only == "failed":
        return code not in _NEVER_RUN
    return code == _CODE_OF[only]
