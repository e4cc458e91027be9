"""The answers that the console's routes share: a page of HTML, and the way on after a form."""

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from lowtide.api.middleware.caller import services_of
from lowtide.api.middleware.console_paths import ROOT


def html(text: str, status: int = 200) -> Response:
    """A page."""
    return Response(text, status, media_type="text/html")


def base_of(request: Request) -> str:
    """What stands before every address: `server.path_prefix`."""
    return services_of(request).settings.server.path_prefix


def go_to_batch(request: Request, batch_id: str) -> Response:
    """Leads to the page of a batch: loading that page again repeats nothing."""
    return RedirectResponse(f"{base_of(request)}{ROOT}/batches/{batch_id}", 303)
