"""The idempotency key of a request: from the header of any client, or from the body."""

from typing import Any, Final

from starlette.requests import Request

from lowtide.api.middleware.caller import identify
from lowtide.core.idempotency.request_key import Made, RequestKey
from lowtide.service.idempotency.idempotency import request_key, sent_key

HEADER: Final = "Idempotency-Key"
PARAMETERS: Final = (
    {
        "name": HEADER,
        "in": "header",
        "required": False,
        "description": "The same key and request get the same answer for a day.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    },
)
"""What the document says of it, for routes that take one."""


def key_of(request: Request, kind: Made, asked: Any, field: str | None = None) -> RequestKey | None:
    """The key that stands for `asked`; None where the client sent none. `field`: the one in the
    body. Raises LowtideError.
    """
    key = sent_key(request.headers.get(HEADER), field)
    if key is None:
        return None
    caller = identify(request)
    return request_key(caller.organization_id, caller.project_id, key, kind, asked)
