"""An upload in parts: its states, its record, and which parts make the file.

The verbs (service/files/uploads.py, service/files/uploads_completion.py) decide with it, the store
guards every change of state with its table. Guards: a file is made of all the bytes that were
announced or not at all. OpenAI's uploads name parts by id and choose their order at the end;
Together's number them from 1 and are told where to send each.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from types import MappingProxyType
from typing import Final, Literal

import msgspec

from lowtide import limits
from lowtide.core.errors import LowtideError

UploadStatus = Literal["pending", "completed", "cancelled", "expired"]
UploadEvent = Literal["complete", "cancel", "expire"]


def _table() -> Mapping[UploadStatus, Mapping[UploadEvent, UploadStatus]]:
    rows: dict[UploadStatus, dict[UploadEvent, UploadStatus]] = {
        "pending": {"complete": "completed", "cancel": "cancelled", "expire": "expired"},
        "completed": {},
        "cancelled": {},
        "expired": {},
    }
    return MappingProxyType({state: MappingProxyType(row) for state, row in rows.items()})


TRANSITIONS: Final = _table()


class IllegalUploadTransition(Exception):
    """The event cannot happen in that state."""

    def __init__(self, status: UploadStatus, event: UploadEvent) -> None:
        super().__init__(f"an upload that is {status} cannot take the event {event}")
        self.status = status
        self.event = event


def step(status: UploadStatus, event: UploadEvent) -> UploadStatus:
    """The state after `event`. Raises IllegalUploadTransition."""
    try:
        return TRANSITIONS[status][event]
    except KeyError:
        raise IllegalUploadTransition(status, event) from None


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is on its way in parts. `bytes` is what was announced."""

    id: str
    project_id: str
    file_id: str
    """The id of the file that the upload becomes; no file is found under it before that."""
    purpose: str
    filename: str
    bytes: int
    parts: int = 0
    """How many numbered parts there will be (Together); 0: any, named by id (OpenAI)."""
    checksum: str = ""
    """SHA-256 in hex that the whole must have; "": any."""
    file_ttl_s: int
    status: UploadStatus = "pending"
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None = None
    completion_expires_at: datetime | None = None
    """The end of a completion's hold. Before it, some process puts the parts together and no
    others are taken.
    """
    choice_digest: str = ""
    """The digest of the choice it was completed with, so that a repetition is recognised."""

    @property
    def room(self) -> int:
        """Bytes that the upload's parts may have together while they are kept apart.

        Numbered parts replace each other. A part that OpenAI's client sends again after a broken
        answer is another part, so there is room for as much again, and for one part at least.
        """
        if self.parts:
            return self.bytes
        return self.bytes + max(self.bytes, limits.UPLOAD_PART_BYTES_MAX)

    def is_completing(self, now: datetime) -> bool:
        return self.completion_expires_at is not None and now < self.completion_expires_at


class UploadPart(msgspec.Struct, frozen=True, kw_only=True):
    """A part that has arrived. `number` counts from 1 (Together); None: named by id (OpenAI)."""

    id: str
    upload_id: str
    number: int | None = None
    bytes: int
    md5: str
    """The MD5 in hex; as an ETag it tells Together's client which bytes the server has."""
    blob_key: str
    created_at: datetime


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Which parts a client asks to be put together: ids in order, or numbers with their ETags."""

    ids: tuple[str, ...] = ()
    numbers: tuple[tuple[int, str], ...] = ()
    md5: str = ""
    """The MD5 in hex that the whole file must have; "": any."""

    @property
    def digest(self) -> str:
        return sha256(msgspec.json.encode(self)).hexdigest()


def choose_parts(upload: Upload, parts: Sequence[UploadPart], choice: Choice) -> list[UploadPart]:
    """The parts in the order of the file. Raises LowtideError `invalid_request`."""
    chosen = _by_number(upload, parts, choice) if upload.parts else _by_id(upload, parts, choice)
    held = sum(part.bytes for part in chosen)
    if held != upload.bytes:
        raise _refused(
            f"The parts have {held} bytes together, and {upload.id} was announced with"
            f" {upload.bytes}. Send what is missing, or begin a new upload with the right size.",
            "parts" if upload.parts else "part_ids",
        )
    return chosen


def _by_id(upload: Upload, parts: Sequence[UploadPart], choice: Choice) -> list[UploadPart]:
    known = {part.id: part for part in parts}
    chosen: dict[str, UploadPart] = {}
    for part_id in choice.ids:
        if part_id not in known:
            raise _refused(f"{part_id!r} is no part of {upload.id}.", "part_ids")
        if part_id in chosen:
            raise _refused(f"{part_id!r} is named twice.", "part_ids")
        chosen[part_id] = known[part_id]
    return list(chosen.values())


def _by_number(upload: Upload, parts: Sequence[UploadPart], choice: Choice) -> list[UploadPart]:
    known = {part.number: part for part in parts}
    etags = dict(choice.numbers)
    if len(etags) != len(choice.numbers) or sorted(etags) != list(range(1, upload.parts + 1)):
        raise _refused(
            f"{upload.id} was begun with {upload.parts} parts: name each of 1 to {upload.parts}"
            " once.",
            "parts",
        )
    chosen = []
    for number in sorted(etags):
        part = known.get(number)
        if part is None or part.md5 != etags[number].strip('"').lower():
            raise _refused(
                f"Part {number} of {upload.id} has not arrived, or is not the one with this ETag."
                " Send it again.",
                "parts",
            )
        chosen.append(part)
    return chosen


def closed(upload: Upload, now: datetime) -> LowtideError | None:
    """Why the upload takes nothing any more; None while it does."""
    if upload.status == "expired" or (upload.status == "pending" and upload.expires_at <= now):
        return LowtideError(
            "upload_expired",
            f"{upload.id} was to be completed within its time, which is over; its parts are gone."
            " Begin a new upload.",
        )
    if upload.status == "completed":
        return LowtideError(
            "upload_closed",
            f"{upload.id} is completed already: its file is {upload.file_id}.",
        )
    if upload.status == "cancelled":
        return LowtideError("upload_closed", f"{upload.id} is cancelled. Begin a new upload.")
    return None


def _refused(message: str, param: str) -> LowtideError:
    return LowtideError("invalid_request", message, param)
