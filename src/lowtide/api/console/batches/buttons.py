"""The buttons of a batch's page, each with the same as a command, with curl and in Python. Pure.

Which buttons a batch has follows from its state alone; whether a person has any, from the scopes.
"""

from typing import Final

import msgspec

from lowtide import limits
from lowtide.api.objects.batches import BatchObject
from lowtide.core.batches.batch import STEERABLE, TERMINAL


class Button(msgspec.Struct, frozen=True, kw_only=True):
    """`act`: the last part of the address that its form goes to. `question`: asked before."""

    act: str
    label: str
    question: str = ""
    kind: str = ""
    command: str
    method: str = "POST"
    path: str
    python: str


_CANCEL: Final = "Cancel this batch? What has finished is kept and charged."
_DELETE: Final = "Delete this batch and its results? Nobody can bring them back."


def buttons_of(batch: BatchObject, unfinished_id: str | None) -> list[Button]:
    """`unfinished_id`: a batch over the same input that has not ended, which bars a retry."""
    buttons: list[Button] = []
    has_ended, path = batch.status in TERMINAL, f"/v1/batches/{batch.id}"
    if not has_ended and batch.status != "cancelling":
        python = f'client.batches.cancel("{batch.id}")'
        buttons.append(
            _button(batch.id, "cancel", "Cancel", python, question=_CANCEL, kind="danger")
        )
    if batch.status in STEERABLE:
        act, kind = ("resume", "main") if "user" in batch.holds else ("pause", "")
        buttons.append(_button(batch.id, act, act.capitalize(), _posted(path, act), kind=kind))
    counts = batch.request_counts
    is_retryable = has_ended and batch.status != "failed" and not unfinished_id
    if is_retryable and counts.completed < counts.total:
        python, asked = _posted(path, "retry"), retry_question(counts.total - counts.completed)
        buttons.append(_button(batch.id, "retry", "Retry", python, question=asked, kind="main"))
    if has_ended:
        python = f'client.delete("/batches/{batch.id}", cast_to=object)'
        delete = _button(batch.id, "delete", "Delete", python, question=_DELETE, kind="danger")
        buttons.append(msgspec.structs.replace(delete, method="DELETE", path=path))
    return buttons


def retry_question(lines: int) -> str:
    """What is asked before up to so many lines of one batch run again; empty: nothing.

    A person who looks at one batch sees what the button concerns, and few lines cost next to
    nothing and can be cancelled: a question before each would be clicked away unread.
    """
    if lines < limits.CONSOLE_RETRY_ASKS_LINES:
        return ""
    return f"Run up to {lines:,} line{'' if lines == 1 else 's'} again, charged as a new batch?"


def _button(
    batch_id: str, act: str, label: str, python: str, *, question: str = "", kind: str = ""
) -> Button:
    return Button(
        act=act,
        label=label,
        question=question,
        kind=kind,
        command=f"lowtide batches {act} {batch_id}",
        path=f"/v1/batches/{batch_id}/{act}",
        python=python,
    )


def _posted(path: str, act: str) -> str:
    return f'client.post("{path.removeprefix("/v1")}/{act}", cast_to=object, body={{}})'
