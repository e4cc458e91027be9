"""What the buttons of a batch's page do: each calls the verb of the API's route of that name.

A refusal is told on the page that has the button, above the batch as it is now. The rules are
those of the services.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from types import MappingProxyType
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lowtide.api.console.answers import Fields, form_on, go_to_batch
from lowtide.api.console.failures import Handler
from lowtide.api.console.forms import whole_number, with_name
from lowtide.api.middleware.auth import set_audit_subject
from lowtide.api.middleware.caller import identify, services_of
from lowtide.api.middleware.console_paths import ROOT
from lowtide.service.batches.retries import RetryBatch
from lowtide.service.batches.steering import ChangeBatch, PauseBatch

Act = Callable[[Request, str, Fields], Awaitable[str | None]]
"""What a button does to a batch; the id of the batch whose page comes next, None: the list."""


def _button(act: Act) -> Handler:
    @form_on(f"{ROOT}/batches/{{batch_id}}")
    @wraps(act)  # the audit log names it
    async def pressed(request: Request, fields: Fields) -> Response:
        batch_id: str = request.path_params["batch_id"]
        set_audit_subject(request, batch_id)
        return go_to_batch(request, await act(request, batch_id, fields))

    return pressed


async def cancel(request: Request, batch_id: str, _fields: Fields) -> str:
    """Cancels the batch."""
    caller, service = identify(request), services_of(request).batches
    await service.cancel(caller.project_id, batch_id, caller.user_id)
    return batch_id


async def retry(request: Request, batch_id: str, fields: Fields) -> str:
    """Runs the lines without success again: those of one group, or all; leads to the new batch."""
    group, caller = fields.get("group"), identify(request)
    asked = RetryBatch(
        only=fields.get("only", "all_unsuccessful"), groups=() if group is None else (group,)
    )
    batch = await services_of(request).retries.retry(
        caller.project_id, caller.user_id, batch_id, asked
    )
    set_audit_subject(request, batch.id)
    return batch.id


async def pause(request: Request, batch_id: str, fields: Fields) -> str:
    """Starts no further requests; the calls under way end, or are aborted, as `in_flight` says."""
    asked = PauseBatch(in_flight=fields.get("in_flight", "finish"))
    caller, service = identify(request), services_of(request).steering
    await service.pause(caller.project_id, batch_id, asked, caller.user_id)
    return batch_id


async def resume(request: Request, batch_id: str, _fields: Fields) -> str:
    """Lifts the pause of the project's users."""
    caller, service = identify(request), services_of(request).steering
    await service.resume(caller.project_id, batch_id, caller.user_id)
    return batch_id


async def change(request: Request, batch_id: str, fields: Fields) -> str:
    """Changes the name, the priority and the completion window, as far as they are given."""
    services, caller = services_of(request), identify(request)
    project_id = caller.project_id
    priority, window, name = (
        fields.get(each, "").strip() for each in ("priority", "completion_window", "name")
    )
    metadata = None
    if "name" in fields:
        kept = dict((await services.batches.get(project_id, batch_id)).metadata)
        metadata = with_name(kept, name)
        metadata = None if metadata == kept else metadata
    asked = ChangeBatch(
        priority=whole_number(priority, "priority"),
        completion_window=window or None,
        metadata=metadata,
    )
    await services.steering.change(project_id, batch_id, asked, caller.user_id)
    return batch_id


async def delete(request: Request, batch_id: str, _fields: Fields) -> None:
    """Deletes an ended batch with its results; leads to the list."""
    await services_of(request).steering.delete(identify(request).project_id, batch_id)


ACTS: Final[Mapping[str, Act]] = MappingProxyType(
    {act.__name__: act for act in (cancel, retry, pause, resume, change, delete)}
)

ROUTES: Final = tuple(
    Route(f"{ROOT}/batches/{{batch_id}}/{name}", _button(act), methods=["POST"])
    for name, act in ACTS.items()
)
