"""The model routes: what a line may name, in the shape of the client that asks
(protocol.md 2.9, 3.3).
"""

from starlette.requests import Request
from starlette.responses import Response

from lowtide.api.dialects import openai, together
from lowtide.api.http.json_body import json_response
from lowtide.api.middleware.caller import identify, services_of
from lowtide.api.middleware.paths import client_dialect
from lowtide.api.objects.models import ModelListObject, ModelObject, ProjectModelPage, TogetherModel
from lowtide.api.openapi.answers import answers
from lowtide.api.openapi.routes import Routes
from lowtide.core.errors import LowtideError

routes = Routes("models")


@routes.add("GET", "/v1/models", answers((ModelListObject, list[TogetherModel])))
async def list_models(request: Request) -> Response:
    """All models: OpenAI's list object, or Together's bare array with prices."""
    entries = services_of(request).models.list()
    if client_dialect(request) == "together":
        return json_response(together.model_list(entries))
    return json_response(openai.model_list(entries))


@routes.add(
    "GET", "/v1/models/{name:path}", answers((ModelObject, TogetherModel), "model_not_found")
)
async def retrieve(request: Request, name: str) -> Response:
    """One model by id or alias; the slash of `org/name` may come raw or as %2F."""
    entry = services_of(request).models.get(name)
    shape = together if client_dialect(request) == "together" else openai
    return json_response(shape.model(entry))


@routes.add(
    "GET", "/v2/projects/{project_id}/models", answers(ProjectModelPage, "project_not_found")
)
async def list_project_models(request: Request, project_id: str) -> Response:
    """The same for together 3.x, which asks per project and reads a cursor page."""
    services, caller = services_of(request), identify(request)
    if project_id != caller.project_id and services.settings.auth.mode == "keys":
        raise LowtideError("project_not_found", f"No project found with id '{project_id}'.")
    data = [
        together.project_model(entry, project_id=project_id, organization_id=caller.organization_id)
        for entry in services.models.list()
    ]
    return json_response(ProjectModelPage(data=data))
