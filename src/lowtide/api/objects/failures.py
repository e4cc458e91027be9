"""Why lines of a batch failed: groups of alike failures, as `GET /v1/batches/{id}/errors` has them.

The retry route answers with a batch (objects/batches.py); the command line reads these.
"""

from typing import Literal

import msgspec


class FailureExampleObject(msgspec.Struct, frozen=True, kw_only=True):
    """One failed line of a group; `line` counts from 1."""

    line: int
    custom_id: str
    message: str


class FailureGroupObject(msgspec.Struct, frozen=True, kw_only=True):
    """Failures with one code and one shape of message: the message with `#` for numbers and ids.

    The group `other` counts what is beyond the first hundred shapes. A retry names a group by its
    `id`, which is the same for that code and shape in every batch.
    """

    id: str = ""
    code: str
    message: str
    count: int
    examples: tuple[FailureExampleObject, ...] = ()


class RetryCount(msgspec.Struct, frozen=True, kw_only=True):
    """What a retry made now would run. `lines` null: all lines of a file that was not read before
    its batch ended."""

    object: Literal["batch.retry_count"] = "batch.retry_count"
    batch_id: str
    lines: int | None


class FailureGroupList(msgspec.Struct, frozen=True, kw_only=True):
    """The largest group first; `total` is the sum of their counts."""

    object: Literal["list"] = "list"
    data: tuple[FailureGroupObject, ...] = ()
    total: int = 0
