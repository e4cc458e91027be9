"""Together's upload of a large file: begin, a signed PUT per part, complete (protocol.md 2.4).

The client sends four parts at once to addresses that all were signed at the beginning, and tells
the ETag of each at the end. A part that fails ends the upload: the client aborts it.
"""

from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from lowtide import limits
from lowtide.api.files.file_objects import together_file
from lowtide.api.files.uploads import body_of, permit_of, signed_address
from lowtide.api.http.idempotency_key import PARAMETERS, key_of
from lowtide.api.http.json_body import as_struct, declared_length, json_response, read_json
from lowtide.api.middleware.auth import set_audit_subject
from lowtide.api.middleware.caller import identify, services_of
from lowtide.api.objects.files import (
    AbortedMultipart,
    BegunMultipart,
    CompletedMultipart,
    PartAddress,
    ReceivedPart,
)
from lowtide.api.openapi.answers import (
    JSON_WRITES,
    OCTETS,
    UPLOAD_BEGINS,
    UPLOAD_COMPLETES,
    answer,
    answers,
    body,
    json_body,
    public_refusals,
)
from lowtide.api.openapi.routes import Routes
from lowtide.core.errors import LowtideError, missing_parameter
from lowtide.core.files.file import PURPOSES
from lowtide.core.files.upload import Choice, Upload
from lowtide.service.files.files import checked_checksum, checked_filename, checked_purpose
from lowtide.service.files.uploads import NewUpload, not_found, part_too_large

routes = Routes("files")

_TEXT: Final = {"type": "string"}
_NEW: Final = {
    "file_name": _TEXT,
    "file_size": {"type": "integer", "minimum": 1},
    "num_parts": {"type": "integer", "minimum": 1, "maximum": limits.MULTIPART_PARTS_MAX},
    "purpose": {"enum": sorted(PURPOSES)},
    "file_type": _TEXT,
    "checksum": _TEXT,
}
_WHICH: Final = {"upload_id": _TEXT, "file_id": _TEXT}
_CLAIMS: Final = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"part_number": {"type": "integer"}, "etag": _TEXT},
        "required": ["part_number", "etag"],
    },
}


class AskedMultipart(msgspec.Struct, frozen=True):
    """The body of an initiate, as far as it is read."""

    file_name: str | None = None
    file_size: int | None = None
    num_parts: int | None = None
    purpose: str | None = None
    checksum: str | None = None


class Claim(msgspec.Struct, frozen=True):
    """A part as the client knows it."""

    part_number: int
    etag: str


class AskedEnd(msgspec.Struct, frozen=True):
    """The body of a complete or an abort."""

    upload_id: str | None = None
    file_id: str | None = None
    parts: tuple[Claim, ...] = ()


@routes.add(
    "POST",
    "/v1/files/multipart/initiate",
    answers(BegunMultipart, *UPLOAD_BEGINS),
    parameters=PARAMETERS,
    requestBody=json_body(
        {
            "type": "object",
            "properties": _NEW,
            "required": ["file_name", "file_size", "num_parts", "purpose"],
        }
    ),
)
async def initiate(request: Request) -> Response:
    """Begin an upload in parts; the answer has an address for each."""
    services = services_of(request)
    asked = as_struct(await read_json(request), AskedMultipart)
    for name in ("file_name", "file_size", "num_parts"):
        if getattr(asked, name) is None:
            raise missing_parameter(name)
    count = asked.num_parts or 0
    if not 1 <= count <= limits.MULTIPART_PARTS_MAX:
        raise LowtideError(
            "invalid_request", f"num_parts must be 1 to {limits.MULTIPART_PARTS_MAX}.", "num_parts"
        )
    new = NewUpload(
        filename=checked_filename(asked.file_name),
        purpose=checked_purpose(asked.purpose),
        bytes=asked.file_size or 0,
        ttl_s=limits.MULTIPART_TTL_S,
        parts=count,
        checksum=checked_checksum(asked.checksum),
    )
    key = key_of(request, "upload", new)
    upload = await services.parts.begin(identify(request).project_id, new, key)
    set_audit_subject(request, upload.id)
    parts = [
        PartAddress(number=number, url=_address(request, upload, number))
        for number in range(1, count + 1)
    ]
    begun = BegunMultipart(upload_id=upload.id, file_id=upload.file_id, parts=parts)
    return json_response(begun)


@routes.add(
    "PUT",
    "/v1/uploads/signed/{upload_id}/parts/{number}",
    {
        200: answer(ReceivedPart),
        **public_refusals(
            "invalid_request",
            "upload_busy",
            "upload_interrupted",
            "upload_closed",
            "upload_invalid",
            "upload_not_found",
            "upload_expired",
            "file_too_large",
            "storage_full",
            "storage_unavailable",
        ),
    },
    requestBody=body(OCTETS),
    parameters=[
        {"name": name, "in": "query", "schema": _TEXT} for name in ("expires", "signature", "key")
    ],
)
async def receive_part(request: Request, upload_id: str, number: str) -> Response:
    """The bytes of one part; the signature is the permission. Sent again, it replaces."""
    uploads = services_of(request).parts
    await permit_of(request, _subject(upload_id, number))
    upload = await uploads.awaiting(upload_id)
    if declared_length(request) > upload.bytes:
        raise part_too_large(upload.bytes)
    async with uploads.part(upload, upload.bytes, int(number)) as intake:
        async for piece in body_of(request):
            await intake.write(piece)
    part = await uploads.keep_part(upload, intake, int(number))
    return json_response(ReceivedPart(part.id), headers={"etag": f'"{part.md5}"'})


@routes.add(
    "POST",
    "/v1/files/multipart/complete",
    answers(CompletedMultipart, *UPLOAD_COMPLETES),
    requestBody=json_body(
        {
            "type": "object",
            "properties": {**_WHICH, "parts": _CLAIMS},
            "required": ["upload_id", "file_id", "parts"],
        }
    ),
)
async def complete(request: Request) -> Response:
    """Put the parts together, in the order of their numbers."""
    asked = as_struct(await read_json(request), AskedEnd)
    upload = await _upload(request, asked)
    choice = Choice(
        numbers=tuple((c.part_number, c.etag.strip().strip('"').lower()) for c in asked.parts)
    )
    owner = identify(request).organization_id
    file = await services_of(request).completions.complete(upload, choice, owner)
    return json_response(CompletedMultipart(together_file(file)))


@routes.add(
    "POST",
    "/v1/files/multipart/abort",
    answers(
        AbortedMultipart,
        *JSON_WRITES,
        "missing_required_parameter",
        "upload_closed",
        "upload_not_found",
        "upload_expired",
    ),
    requestBody=json_body(
        {"type": "object", "properties": _WHICH, "required": ["upload_id", "file_id"]}
    ),
)
async def abort(request: Request) -> Response:
    """Abort an upload and delete its parts."""
    upload = await _upload(request, as_struct(await read_json(request), AskedEnd))
    await services_of(request).parts.cancel(upload.project_id, upload.id)
    return json_response(AbortedMultipart(upload_id=upload.id, file_id=upload.file_id))


async def _upload(request: Request, asked: AskedEnd) -> Upload:
    if asked.upload_id is None:
        raise missing_parameter("upload_id")
    set_audit_subject(request, asked.upload_id)
    upload = await services_of(request).parts.get(identify(request).project_id, asked.upload_id)
    if asked.file_id != upload.file_id:
        raise not_found(asked.upload_id)
    return upload


def _address(request: Request, upload: Upload, number: int) -> str:
    subject = _subject(upload.id, str(number))
    return signed_address(request, subject, upload.created_at, ttl_s=limits.MULTIPART_TTL_S)


def _subject(upload_id: str, number: str) -> str:
    return f"{upload_id}/parts/{number}"
