"""Who asks. Every route calls `identify` and acts for the project that it names.

In open mode (loopback only) there is one project, and credentials of any kind are accepted and
ignored: the SDKs refuse to start without a key, so people type one. Keys mode is refused here until
there are keys: a door that cannot check must not open.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from starlette.requests import HTTPConnection

from lowtide.core.errors import LowtideError

if TYPE_CHECKING:
    from lowtide.service.services import Services


@dataclass(frozen=True, slots=True)
class Caller:
    """Project, person and key behind a request (whoami shows them, protocol.md section 2.8)."""

    project_id: str
    user_id: str
    organization_id: str
    key_id: str


DEFAULT_CALLER: Final = Caller(
    project_id="proj_default",
    user_id="user_default",
    organization_id="org_default",
    key_id="key_default",
)


def identify(request: HTTPConnection) -> Caller:
    """The caller behind a request. Raises LowtideError `unauthorized`."""
    if services_of(request).settings.auth.mode == "open":
        return DEFAULT_CALLER
    if credential(request) is None:
        raise LowtideError("unauthorized", "No API key: send Authorization: Bearer KEY.")
    raise LowtideError("unauthorized", "The API key was not recognised.")


def credential(request: HTTPConnection) -> str | None:
    """The key as sent:

    `Authorization: Bearer KEY` or `X-Api-Key: KEY` (protocol.md section 1, rule 3).
    """
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    return request.headers.get("x-api-key", "").strip() or None


def services_of(request: HTTPConnection) -> "Services":
    """The verbs that `create_app` was given."""
    services: Services = request.app.state.services
    return services
