"""What a person types into the filter box of the list: `state:running model:qwen created:>2d text`.

Pure. `state:paused` asks for a hold and `state:running` for none, `error:CODE` for a failed line
with that code. `>` is older than, `<` younger than. Words without a name, and those behind `text:`,
are one text, in their order. A name that there is not is refused: it would find nothing.
"""

import re
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final, get_args

import msgspec

from lowtide import limits
from lowtide.api.dialects.openai import statuses_shown_as
from lowtide.api.objects.batches import BatchStatus
from lowtide.api.objects.instants import unix
from lowtide.core.batches.batch_filter import BatchFilter
from lowtide.core.errors import LowtideError

_STATES: Final[tuple[BatchStatus, ...]] = get_args(BatchStatus)
STATES_OFFERED: Final = ("running", "paused", *(each for each in _STATES if each != "in_progress"))
"""What `state:` takes, in the words of the console; `in_progress` is running or paused."""

KEYS: Final = ("state", "model", "created", "error", "text")
_KEY: Final = re.compile("[A-Za-z_]+")
_AGE: Final = re.compile(r"([<>])(\d{1,4})([hd])")
_UNIT: Final = MappingProxyType({"h": timedelta(hours=1), "d": timedelta(days=1)})


def read_filter(typed: str, now: datetime) -> BatchFilter:
    """The filter that was typed. Raises LowtideError `invalid_request`, which says what may be."""
    if len(typed) > limits.FILTER_CHARS_MAX:
        raise _wrong(f"it has more than {limits.FILTER_CHARS_MAX} characters")
    batch_filter, words = BatchFilter(), list[str]()
    for word in typed.split():
        name, colon, value = word.partition(":")
        if not colon or not _KEY.fullmatch(name):
            words.append(word)
        elif name == "text":
            words.append(value)
        else:
            batch_filter = msgspec.structs.replace(batch_filter, **_part(name, value, now))
    return msgspec.structs.replace(batch_filter, text=" ".join(words))


def query_of(which: BatchFilter) -> dict[str, str | int]:
    """The same as `GET /v1/batches` takes it."""
    after, before = which.created_after, which.created_before
    asked: dict[str, str | int | None] = {
        "status": which.statuses[0] if which.statuses else None,
        "held": None if which.is_held is None else str(which.is_held).lower(),
        "model": which.model,
        "created_after": unix(after),
        "created_before": unix(before),
        "text": which.text,
        "error_code": which.error_code,
    }
    return {name: value for name, value in asked.items() if value not in (None, "")}


def _part(name: str, value: str, now: datetime) -> dict[str, object]:
    if name == "model":
        return {"model": value}
    if name == "error":
        return {"error_code": value}
    if (name, value) == ("state", "paused"):
        return {"is_held": True}
    if (name, value) == ("state", "running"):
        return {"statuses": statuses_shown_as("in_progress"), "is_held": False}
    if name == "state":
        shown = next((each for each in _STATES if each == value), None)
        if shown is None:
            raise _wrong(f"state: is one of {', '.join(STATES_OFFERED)}, not '{value}'")
        return {"statuses": statuses_shown_as(shown)}
    if name != "created":
        known = ", ".join(f"{key}:" for key in KEYS)
        raise _wrong(f"there is no {name}:, only {known}; text:{name}:{value} looks for the word")
    age = _AGE.fullmatch(value)
    if age is None:
        raise _wrong(f"created: is an age as >2d (older) or <12h (younger), not '{value}'")
    at = now - int(age[2]) * _UNIT[age[3]]
    return {"created_before" if age[1] == ">" else "created_after": at}


def _wrong(why: str) -> LowtideError:
    return LowtideError("invalid_request", f"The filter cannot be read: {why}.", "q")
