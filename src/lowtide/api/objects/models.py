"""Models as each vendor shows them (protocol.md sections 2.9 and 3.3), and who a caller is."""

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from lowtide.api.objects.amounts import PricingObject, TogetherPricing
from lowtide.api.objects.limits import LimitObject


class ModelObject(msgspec.Struct, frozen=True, kw_only=True):
    """OpenAI's Model, and its prices. `created` is not known of a served model: 0."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str
    type: str
    size: str | None
    context_length: int | None
    pricing: PricingObject


class ModelListObject(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[ModelObject]


class TogetherModel(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of Together's model list. Prices in dollars per million tokens, live."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    type: str
    display_name: str
    organization: str
    link: str | None = None
    license: str | None = None
    context_length: int | None
    pricing: TogetherPricing
    size: str | None
    batch_discount: float


class ModelWeights(msgspec.Struct, frozen=True, kw_only=True):
    context_length: str | None = msgspec.field(name="contextLength")


class ProjectModel(TogetherModel, frozen=True, kw_only=True):
    """A model as `models.list()` of together 3.x reads it."""

    name: str
    project_id: str = msgspec.field(name="projectId")
    organization_id: str = msgspec.field(name="organizationId")
    visibility: str = "VISIBILITY_INTERNAL"
    weights: ModelWeights


class ProjectModelPage(msgspec.Struct, frozen=True, kw_only=True):
    """The cursor page of together 3.x; there is never a next one."""

    data: list[ProjectModel]
    next_cursor: str | None = None


class WhoamiKey(msgspec.Struct, frozen=True):
    id: str


class WhoamiProject(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    slug: str
    name: str


class WhoamiOrganization(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str


class WhoamiObject(msgspec.Struct, frozen=True, kw_only=True):
    """Key, person, project and organization, flat and nested: two generations of clients."""

    api_key_id: str
    organization_id: str
    organization_name: str
    project_id: str
    project_name: str
    project_slug: str
    user_id: str
    type: Literal["project_api_key"] = "project_api_key"
    api_key: WhoamiKey
    project: WhoamiProject
    organization: WhoamiOrganization
    scopes: list[str]
    limits: list[LimitObject] | UnsetType = UNSET
