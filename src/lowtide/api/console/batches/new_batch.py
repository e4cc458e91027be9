"""A new batch in the browser: a file is uploaded, judged by a dry run, and made a batch.

The file comes as a form of several parts, through the same service as `POST /v1/files`, and is
never whole in memory. Invariants: the session's token stands in front of the file, so a form of
another site stores not a byte; a page creates one batch, however often its button is pressed.
"""

from types import MappingProxyType
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lowtide.api.console.answers import Fields, base_of, form_on, go_to, go_to_batch, show
from lowtide.api.console.batches.draft_views import beside_field, table_command
from lowtide.api.console.failures import told_on_a_page, wants_html
from lowtide.api.console.forms import check_csrf, whole_number, with_name
from lowtide.api.files.uploads import receive_form
from lowtide.api.http.idempotency_key import key_of
from lowtide.api.http.json_body import json_response
from lowtide.api.http.multipart_form import UploadForm
from lowtide.api.middleware.auth import set_audit_subject
from lowtide.api.middleware.caller import identify, services_of
from lowtide.api.middleware.console_paths import ROOT
from lowtide.core.errors import LowtideError
from lowtide.core.files.file import File
from lowtide.core.files.table_name import is_table_name
from lowtide.service.batches.new_batch import NewBatch
from lowtide.service.files.files import checked_filename

PATH: Final = f"{ROOT}/new"


@told_on_a_page
async def upload(request: Request) -> Response:
    """Takes a file, and goes on to what a batch over it would come to."""

    def before_file(form: UploadForm) -> None:
        check_csrf(request, form.fields.get("csrf", ""))
        if is_table_name(form.filename or ""):
            raise _table_refused(request, checked_filename(form.filename))

    try:
        received = await receive_form(
            request, identify(request).project_id, before_file, may_lack_purpose=True
        )
        if not isinstance(received, File):
            check_csrf(request, received.get("csrf", ""))
        if not isinstance(received, File) or not received.bytes:
            raise LowtideError("invalid_request", "Choose a file with requests first.", "file")
    except LowtideError as error:
        if not wants_html(request.scope):
            raise
        return await show(request, PATH, error)
    path = f"{PATH}/{received.id}"
    if not wants_html(request.scope):  # the page's script, which shows how far the upload is
        return json_response({"address": base_of(request) + path})
    return go_to(request, path)


def _table_refused(request: Request, name: str) -> LowtideError:
    return LowtideError(
        "invalid_request",
        f"{name} is a table, and this page takes requests. This asks about each of its rows:"
        f" {table_command(request, name)}",
        "file",
    )


_FIELDS: Final = MappingProxyType(
    {
        "completion_window": "completion_window",
        "priority": "priority",
        "webhook": "webhook",
        "metadata": "name",
        "metadata.name": "name",
    }
)
"""The fields of the form by the parameters that they fill."""


@form_on(PATH + "/{file_id}")
async def create(request: Request, fields: Fields) -> Response:
    """Makes the batch that the page describes. What is wrong with a field is told beside it."""
    try:
        return await _create(request, fields)
    except LowtideError as error:
        field = _FIELDS.get(error.param or "")
        if field is None:
            raise
        page, wrong = f"{PATH}/{request.path_params['file_id']}", {field: beside_field(error)}
        return await show(request, page, error, filled=fields, wrong=wrong)


async def _create(request: Request, fields: Fields) -> Response:
    file_id: str = request.path_params["file_id"]
    caller = identify(request)
    asked = NewBatch(
        input_file_id=file_id,
        endpoint=fields.get("endpoint"),
        completion_window=fields.get("completion_window", "").strip() or None,
        priority=whole_number(fields.get("priority", "").strip(), "priority"),
        metadata=with_name({}, fields.get("name", "").strip()),
        webhook=fields.get("webhook", "").strip() or None,
    )
    key = key_of(request, "batch", asked, fields.get("once"))
    created = await services_of(request).batches.create(
        caller.project_id, caller.user_id, asked, key=key
    )
    set_audit_subject(request, created.batch.id)
    await services_of(request).batches.mark_answered(created.batch.id)
    return go_to_batch(request, created.batch.id)


ROUTES: Final = (
    Route(PATH, upload, methods=["POST"]),
    Route(PATH + "/{file_id}", create, methods=["POST"]),
)
