"""Who the caller is: every `together` command asks this first (protocol.md section 2.8).

Two generations of the CLI read two schemas, one flat, one nested; the answer is both at once.
`PathMiddleware` (paths.py) brings the other spellings of the path here.
"""

import re
from contextlib import suppress

from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from lowtide.api.accounts.limits import limit_objects
from lowtide.api.http.json_body import json_response
from lowtide.api.middleware.caller import identify
from lowtide.api.objects.instants import object_of
from lowtide.api.objects.limits import LimitObject
from lowtide.api.objects.models import (
    WhoamiKey,
    WhoamiObject,
    WhoamiOrganization,
    WhoamiProject,
)
from lowtide.api.openapi.answers import answers
from lowtide.api.openapi.routes import Routes
from lowtide.ports.store import StoreError

routes = Routes("whoami")


@routes.add("GET", "/v1/whoami", answers(WhoamiObject))
async def whoami(request: Request) -> Response:
    """Key, person, project and organization behind the credentials."""
    caller = identify(request)
    limits: list[LimitObject] | UnsetType = UNSET
    with suppress(StoreError):  # who asks is known without them
        limits = await limit_objects(request)
    name, slug = caller.project_name, slug_of(caller.project_name)
    return json_response(
        object_of(
            WhoamiObject,
            caller,
            api_key_id=caller.key_id,
            project_slug=slug,
            api_key=WhoamiKey(caller.key_id),
            project=WhoamiProject(id=caller.project_id, slug=slug, name=name),
            organization=WhoamiOrganization(
                id=caller.organization_id, name=caller.organization_name
            ),
            scopes=sorted(caller.scopes),
            limits=limits,
        )
    )


def slug_of(name: str) -> str:
    """The name as the CLI shows it in an address: lower case, words joined by dashes."""
    return "-".join(re.findall(r"[a-z0-9]+", name.lower())) or "project"
