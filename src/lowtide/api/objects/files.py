"""Files and uploads as each vendor shows them (protocol.md sections 2.4, 2.6, 3.1 and 3.2)."""

from typing import Literal

import msgspec


class FileObject(msgspec.Struct, frozen=True, kw_only=True):
    """OpenAI's File. Instants are Unix seconds."""

    id: str
    object: Literal["file"] = "file"
    bytes: int = 0
    created_at: int | None = None
    expires_at: int | None = None
    filename: str = ""
    purpose: str = ""
    status: str | None = None
    status_details: str | None = None


TogetherStatus = Literal["PENDING", "RUNNING", "COMPLETED", "FAILED"]


class TogetherFile(msgspec.Struct, frozen=True, kw_only=True):
    """Together's FileResponse; the odd names are its own."""

    id: str
    object: Literal["file"] = "file"
    created_at: int
    filename: str
    bytes: int
    purpose: str
    file_type: str = msgspec.field(name="FileType")
    is_processed: bool = msgspec.field(name="Processed")
    line_count: int = msgspec.field(name="LineCount")
    processing_status: TogetherStatus


class FilePageObject(msgspec.Struct, frozen=True, kw_only=True):
    """OpenAI's page of files."""

    object: Literal["list"] = "list"
    data: list[FileObject]
    has_more: bool
    first_id: str | None
    last_id: str | None


class TogetherFileList(msgspec.Struct, frozen=True, kw_only=True):
    """Together's list of all files."""

    object: Literal["list"] = "list"
    data: list[TogetherFile]


class DeletedObject(msgspec.Struct, frozen=True, kw_only=True):
    """What was deleted; `object` says what it was."""

    id: str
    object: Literal["file", "response", "batch"]
    deleted: bool = True


class ReceivedFile(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to the bytes of an announced file."""

    id: str
    object: Literal["file"] = "file"


class UploadObject(msgspec.Struct, frozen=True, kw_only=True):
    """OpenAI's Upload; `file` once it is complete."""

    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: Literal["pending", "completed", "cancelled", "expired"]
    file: FileObject | None


class UploadPartObject(msgspec.Struct, frozen=True, kw_only=True):
    """OpenAI's part of an upload."""

    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str


class PartAddress(msgspec.Struct, frozen=True, kw_only=True):
    """The address to which Together's client sends one part."""

    number: int = msgspec.field(name="PartNumber")
    url: str = msgspec.field(name="URL")
    headers: dict[str, str] = msgspec.field(name="Headers", default_factory=dict)


class BegunMultipart(msgspec.Struct, frozen=True, kw_only=True):
    """Together's upload in parts, begun."""

    upload_id: str
    file_id: str
    parts: list[PartAddress]


class ReceivedPart(msgspec.Struct, frozen=True):
    """A part that has arrived; its ETag is in the header."""

    id: str


class CompletedMultipart(msgspec.Struct, frozen=True):
    """Together's upload in parts, put together."""

    file: TogetherFile


class AbortedMultipart(msgspec.Struct, frozen=True, kw_only=True):
    """Together's upload in parts, given up."""

    upload_id: str
    file_id: str
    aborted: bool = True
