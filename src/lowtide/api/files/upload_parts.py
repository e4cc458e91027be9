"""OpenAI's Uploads API: a large file in parts of at most 64 MB (protocol.md section 3.2).

Answers are OpenAI's objects whatever the mount or the purpose: no other client calls these paths.
"""

from contextlib import AsyncExitStack
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from lowtide import limits
from lowtide.api.files.file_objects import openai_file
from lowtide.api.files.uploads import body_of
from lowtide.api.http.idempotency_key import PARAMETERS, key_of
from lowtide.api.http.json_body import as_struct, declared_length, json_response, read_json
from lowtide.api.http.multipart_form import boundary_of, read_form
from lowtide.api.middleware.auth import set_audit_subject
from lowtide.api.middleware.caller import identify, services_of
from lowtide.api.objects.files import UploadObject, UploadPartObject
from lowtide.api.objects.instants import object_of
from lowtide.api.openapi.answers import UPLOAD_BEGINS, UPLOAD_COMPLETES, answers, body, json_body
from lowtide.api.openapi.routes import Routes
from lowtide.core.errors import LowtideError, missing_parameter
from lowtide.core.files.file import PURPOSES, File
from lowtide.core.files.upload import Choice, Upload
from lowtide.service.files.files import checked_expiry, checked_filename, checked_purpose
from lowtide.service.files.uploads import NewUpload, PartIntake, part_too_large

routes = Routes("uploads")

_PART_FIELD: Final = "data"
_TEXT: Final = {"type": "string"}
_NEW: Final = {
    "bytes": {"type": "integer", "minimum": 1, "maximum": limits.UPLOAD_BYTES_MAX},
    "filename": _TEXT,
    "mime_type": _TEXT,
    "purpose": {"enum": sorted(PURPOSES)},
    "expires_after": {
        "type": "object",
        "properties": {"anchor": {"const": "created_at"}, "seconds": {"type": "integer"}},
        "required": ["anchor", "seconds"],
    },
}
_REQUIRED: Final = ("bytes", "filename", "mime_type", "purpose")
_PART_FORM: Final = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "properties": {_PART_FIELD: {"type": "string", "format": "binary"}},
            "required": [_PART_FIELD],
        }
    }
}


class ExpiresAfter(msgspec.Struct, frozen=True):
    """When the file, once it is there, expires."""

    anchor: str
    seconds: int


class AskedUpload(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a create, as far as it is read."""

    bytes: int | None = None
    filename: str | None = None
    mime_type: str | None = None
    purpose: str | None = None
    expires_after: ExpiresAfter | None = None


class AskedCompletion(msgspec.Struct, frozen=True):
    part_ids: tuple[str, ...] | None = None
    md5: str | None = None


@routes.add(
    "POST",
    "/v1/uploads",
    answers(UploadObject, *UPLOAD_BEGINS),
    parameters=PARAMETERS,
    requestBody=json_body({"type": "object", "properties": _NEW, "required": [*_REQUIRED]}),
)
async def create_upload(request: Request) -> Response:
    """Begin an upload in parts."""
    asked = as_struct(await read_json(request), AskedUpload)
    for name in _REQUIRED:
        if getattr(asked, name) is None:
            raise missing_parameter(name)
    size, expiry = asked.bytes or 0, asked.expires_after
    if size > limits.UPLOAD_BYTES_MAX:
        raise LowtideError(
            "file_too_large",
            f"An upload in parts may have {limits.UPLOAD_BYTES_MAX} bytes (8 GiB) in all.",
            "bytes",
        )
    new = NewUpload(
        filename=checked_filename(asked.filename),
        purpose=checked_purpose(asked.purpose),
        bytes=size,
        ttl_s=limits.UPLOAD_TTL_S,
        file_ttl_s=checked_expiry(expiry.anchor, str(expiry.seconds)) if expiry else None,
    )
    services, project_id = services_of(request), identify(request).project_id
    upload = await services.parts.begin(project_id, new, key_of(request, "upload", new))
    set_audit_subject(request, upload.id)
    done = upload.status == "completed"  # by an earlier request with the same key
    file = await services.files.get(project_id, upload.file_id) if done else None
    return json_response(upload_object(upload, file))


@routes.add(
    "POST",
    "/v1/uploads/{upload_id}/parts",
    answers(
        UploadPartObject,
        "invalid_request",
        "missing_required_parameter",
        "upload_busy",
        "upload_interrupted",
        "upload_closed",
        "upload_not_found",
        "upload_expired",
        "file_too_large",
        "storage_full",
    ),
    requestBody=body(_PART_FORM),
)
async def add_part(request: Request, upload_id: str) -> Response:
    """Add a part; the order is told at the end."""
    uploads = services_of(request).parts
    upload = await uploads.get(identify(request).project_id, upload_id)
    uploads.check_open(upload)
    bytes_max = limits.UPLOAD_PART_BYTES_MAX
    if declared_length(request) > bytes_max + limits.UPLOAD_OVERHEAD_BYTES_MAX:
        raise part_too_large(bytes_max)
    boundary = boundary_of(request.headers.get("content-type", ""))
    intake: PartIntake | None = None
    async with AsyncExitStack() as stack:

        async def open_part() -> PartIntake:
            nonlocal intake
            intake = await stack.enter_async_context(uploads.part(upload, bytes_max))
            return intake

        await read_form(body_of(request), boundary, open_part, _PART_FIELD)
        if intake is None:
            raise missing_parameter(_PART_FIELD)
    return json_response(object_of(UploadPartObject, await uploads.keep_part(upload, intake)))


@routes.add(
    "POST",
    "/v1/uploads/{upload_id}/complete",
    answers(UploadObject, *UPLOAD_COMPLETES),
    requestBody=json_body(
        {
            "type": "object",
            "properties": {"part_ids": {"type": "array", "items": _TEXT}, "md5": _TEXT},
            "required": ["part_ids"],
        }
    ),
)
async def complete_upload(request: Request, upload_id: str) -> Response:
    """Put the parts together, in the order of `part_ids`."""
    services, caller = services_of(request), identify(request)
    upload = await services.parts.get(caller.project_id, upload_id)
    asked = as_struct(await read_json(request), AskedCompletion)
    if asked.part_ids is None:
        raise missing_parameter("part_ids")
    choice = Choice(ids=asked.part_ids, md5=(asked.md5 or "").strip().lower())
    file = await services.completions.complete(upload, choice, caller.organization_id)
    done = await services.parts.get(caller.project_id, upload_id)
    return json_response(upload_object(done, file))


@routes.add(
    "POST",
    "/v1/uploads/{upload_id}/cancel",
    answers(UploadObject, "upload_closed", "upload_not_found", "upload_expired", "storage_full"),
)
async def cancel_upload(request: Request, upload_id: str) -> Response:
    """Cancel an upload and delete its parts."""
    parts = services_of(request).parts
    return json_response(upload_object(await parts.cancel(identify(request).project_id, upload_id)))


def upload_object(upload: Upload, file: File | None = None) -> UploadObject:
    shown = None if file is None else openai_file(file)
    return object_of(UploadObject, upload, file=shown)
