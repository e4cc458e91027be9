"""Every way a file comes in: Together's announce-then-PUT, and forms that carry the bytes.

Which one a `POST /v1/files` is, its content decides (protocol.md section 1, rule 2d): a form with
a `file` part is a direct upload, one with `file_name` alone announces a PUT. Bodies are never
whole in memory, and an upload that ends early leaves nothing behind.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response

from lowtide import limits
from lowtide.api.files.file_objects import file_object
from lowtide.api.http.errors import as_lowtide_error, envelope
from lowtide.api.http.idempotency_key import key_of
from lowtide.api.http.json_body import declared_length, json_response, read_bounded
from lowtide.api.http.multipart_form import UploadForm, boundary_of, read_form
from lowtide.api.middleware.auth import set_audit_subject
from lowtide.api.middleware.caller import DEFAULT_CALLER, accept, identify, services_of
from lowtide.api.middleware.paths import dialect_of
from lowtide.api.objects.files import ReceivedFile
from lowtide.core.accounts.tenancy import DEFAULT_ORGANIZATION
from lowtide.core.errors import LowtideError
from lowtide.core.files.file import File
from lowtide.core.validation.first_line import read_first_line
from lowtide.ports.blobs import BlobError
from lowtide.ports.store import StoreError
from lowtide.service.files.files import (
    checked_checksum,
    checked_expiry,
    checked_filename,
    checked_purpose,
)
from lowtide.service.files.signing import UploadPermit
from lowtide.service.files.upload_writer import UploadWriter

_HOST: Final = re.compile(r"[A-Za-z0-9._~-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")


async def create_file(request: Request) -> Response:
    """`POST /v1/files` and `/v1/files/upload`."""
    caller = identify(request)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _read_upload(request, caller.project_id)
    if kind in ("application/x-www-form-urlencoded", ""):
        body = await read_bounded(request, limits.FORM_FIELD_BYTES_MAX)
        fields = dict(parse_qsl(body.decode("utf-8", "replace")))
        return await _announce(request, caller.project_id, fields)
    raise LowtideError(
        "invalid_request",
        f"Content-Type {kind} is no upload: send multipart/form-data with the parts 'purpose' and"
        " 'file'.",
    )


async def receive_signed(request: Request, file_id: str) -> Response:
    """`PUT /v1/uploads/signed/{file_id}`: the bytes of an announced file. No credentials arrive
    here.

    Answers exactly 200 or a 4xx: after a 5xx together 1.x sends an empty body to a broken address
    (section 2.3), so that a PUT that failed once can never succeed.
    """
    try:
        await _receive_signed(request, file_id)
    except (StoreError, BlobError) as error:
        known = as_lowtide_error(error)
        assert known is not None, "every error of the ports is known"
        return envelope(400, known.message, known.code)
    return json_response(ReceivedFile(id=file_id))


async def _receive_signed(request: Request, file_id: str) -> None:
    files = services_of(request).files
    permit = await permit_of(request, file_id)
    file = await files.awaiting(permit.subject)
    project_id = file.project_id
    if file.status == "uploaded":
        again = await files.measure(project_id)
        async for piece in body_of(request):
            await again.write(piece)
        files.check_same(file, again.content)
        return
    async with files.receive(project_id, permit.subject, declared_length(request)) as intake:
        async for piece in body_of(request):
            await intake.write(piece)
        if permit.checksum not in ("", intake.content.sha256):
            raise LowtideError(
                "upload_invalid",
                "The bytes do not hash to the checksum that was announced, so nothing was kept:"
                " the file changed during the upload. Upload it again.",
                "checksum",
            )
    await files.fill(project_id, permit.subject, intake.content)


async def permit_of(request: Request, subject: str) -> UploadPermit:
    """What the signed address that was called allows. Raises LowtideError `upload_invalid`,
    `upload_expired`.

    Where keys are needed, an address is good only as long as the key that asked for it.
    """
    services, query = services_of(request), request.query_params
    expires = query.get("expires", "")
    permit = UploadPermit(
        subject=subject,
        expires=int(expires) if re.fullmatch("[0-9]{1,12}", expires) else 0,
        checksum=query.get("checksum", ""),
        key_id=query.get("key", ""),
    )
    services.uploads.check(permit, query.get("signature", ""), services.files.now())
    organization_id = DEFAULT_ORGANIZATION
    if services.settings.auth.mode != "open":
        owner = await services.access.owner_of(permit.key_id)
        if owner is None:
            raise LowtideError(
                "upload_invalid",
                "The API key that asked for this upload address is revoked or expired; nothing was"
                " kept. Upload again with a valid key.",
            )
        organization_id = owner.organization.id
    accept(request.scope, organization_id)
    return permit


def signed_address(
    request: Request, subject: str, since: datetime, checksum: str = "", ttl_s: int | None = None
) -> str:
    """An absolute address that takes the bytes of `subject` for `ttl_s` seconds from `since`."""
    services, caller = services_of(request), identify(request)
    key_id = "" if caller is DEFAULT_CALLER else caller.key_id
    query = services.uploads.query(subject, since, checksum, ttl_s, key_id=key_id)
    return f"{public_base(request)}/v1/uploads/signed/{subject}?{query}"


async def _read_upload(request: Request, project_id: str) -> Response:
    form = await receive_form(request, project_id)
    if not isinstance(form, File):
        return await _announce(request, project_id, form)
    return json_response(file_object(form, dialect_of(request, form.dialect)))


async def receive_form(
    request: Request,
    project_id: str,
    before_file: Callable[[UploadForm], None] = lambda _: None,
    *,
    may_lack_purpose: bool = False,
) -> File | Mapping[str, str]:
    """The file that a form brought, kept; the form's fields where it brought none.

    `before_file` sees its name and the fields in front of it, and may refuse it before a byte is
    kept. `may_lack_purpose`: the first line tells it where no field does. Raises LowtideError.
    """
    files = services_of(request).files
    sent = key_of(request, "file", None)  # one that can be none is refused before the bytes come
    owner, key = identify(request).organization_id, None if sent is None else sent.key
    async with files.keys.turn(owner, key) as is_repetition:
        return await _receive_form(
            request,
            project_id,
            before_file,
            is_repetition=is_repetition,
            may_lack_purpose=may_lack_purpose,
        )


async def _receive_form(
    request: Request,
    project_id: str,
    before_file: Callable[[UploadForm], None],
    *,
    is_repetition: bool,
    may_lack_purpose: bool,
) -> File | Mapping[str, str]:
    """`is_repetition`: the file is here already, as an upload with the same key made it."""
    files = services_of(request).files
    least = max(0, declared_length(request) - limits.UPLOAD_OVERHEAD_BYTES_MAX)
    if not is_repetition:
        await files.check_room(project_id, least)
    boundary = boundary_of(request.headers["content-type"])
    file_id = files.new_file_id()
    intake: UploadWriter | None = None
    async with AsyncExitStack() as stack:

        async def open_file() -> UploadWriter:
            nonlocal intake
            if is_repetition:
                intake = await files.measure(project_id)
            else:
                receiving = files.receive(project_id, file_id, least)
                intake = await stack.enter_async_context(receiving)
            return intake

        form = await read_form(body_of(request), boundary, open_file, before_file=before_file)
        if intake is None:
            return form.fields
        # Refusals must come before the stack is left: leaving it in peace keeps the bytes.
        named = _field(request, form.fields, "purpose")
        if not named and may_lack_purpose:
            named = read_first_line(intake.head).purpose
        purpose = checked_purpose(named)
        expires_after_s = _expiry(form.fields)
        filename = checked_filename(form.fields.get("file_name") or form.filename)
    means = (filename, purpose, expires_after_s, intake.content.sha256)
    key = key_of(request, "file", means)
    if is_repetition:
        file = await files.repeated(project_id, key)
    else:
        file = await files.keep(
            project_id,
            file_id,
            intake.content,
            filename=filename,
            purpose=purpose,
            expires_after_s=expires_after_s,
            key=key,
        )
    set_audit_subject(request, file.id)
    return file


async def _announce(request: Request, project_id: str, fields: Mapping[str, str]) -> Response:
    """Together's step 1: 302 with a signed absolute address. JS repeats the fields in the query."""
    services = services_of(request)
    file_name = _field(request, fields, "file_name")
    if not file_name:
        raise LowtideError(
            "missing_required_parameter",
            "Missing required parameter: 'file' (the bytes, as a form part), or 'file_name' to get"
            " an address to send them to.",
            "file",
        )
    checksum = checked_checksum(_field(request, fields, "checksum"))
    filename = checked_filename(file_name)
    purpose = checked_purpose(_field(request, fields, "purpose"))
    expires_after_s = _expiry(fields)
    key = key_of(request, "file", ("announced", filename, purpose, expires_after_s, checksum))
    file = await services.files.announce(
        project_id,
        filename=filename,
        purpose=purpose,
        expires_after_s=expires_after_s,
        key=key,
    )
    set_audit_subject(request, file.id)
    since = file.created_at if key is None else services.files.now()  # perhaps of a day ago
    location = signed_address(request, file.id, since, checksum)
    return Response(status_code=302, headers={"location": location, "x-together-file-id": file.id})


async def body_of(request: Request) -> AsyncIterator[bytes]:
    """The body piece by piece, as long as pieces come. Raises LowtideError `upload_interrupted`."""
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(limits.UPLOAD_STALL_S):
                piece = await anext(stream, None)
        except TimeoutError:
            raise LowtideError(
                "upload_interrupted",
                f"No byte arrived for {limits.UPLOAD_STALL_S:.0f} seconds; nothing was kept.",
            ) from None
        if piece is None:
            return
        yield piece


def public_base(request: Request) -> str:
    """The address where clients reach this server: `server.public_url`, else what a proxy
    says, else Host.
    """
    server = services_of(request).settings.server
    if server.public_url:
        base = server.public_url.rstrip("/")
        return base if base.endswith(server.path_prefix) else base + server.path_prefix
    headers = request.headers
    scheme = headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower()
    if scheme not in ("http", "https"):
        scheme = request.scope["scheme"]
    host = headers.get("x-forwarded-host", "").partition(",")[0].strip() or headers.get("host", "")
    if not _HOST.fullmatch(host):
        address, port = request.scope["server"]
        host = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return f"{scheme}://{host}{server.path_prefix}"


def _field(request: Request, fields: Mapping[str, str], name: str) -> str | None:
    return fields.get(name) or request.query_params.get(name)


def _expiry(fields: Mapping[str, str]) -> int | None:
    return checked_expiry(fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]"))
