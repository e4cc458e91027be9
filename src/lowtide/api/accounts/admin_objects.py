"""Organizations, projects and keys as the admin routes and the operator's commands show them."""

from lowtide.api.objects.accounts import (
    KeyObject,
    LimitsObject,
    NewKeyObject,
    OrganizationObject,
    ProjectObject,
)
from lowtide.api.objects.instants import object_of
from lowtide.core.accounts.money import dollars_text
from lowtide.core.accounts.tenancy import ApiKey, Organization, Project


def organization_object(organization: Organization) -> OrganizationObject:
    cap = organization.spend_cap_pico
    shown_cap = None if cap is None else dollars_text(cap)
    limits = object_of(LimitsObject, organization.limits)
    return object_of(OrganizationObject, organization, limits=limits, spend_cap=shown_cap)


def project_object(project: Project) -> ProjectObject:
    return object_of(ProjectObject, project)


def key_object(key: ApiKey) -> KeyObject:
    """The key without its secret, which is shown only when the key is created."""
    return object_of(KeyObject, key, scopes=tuple(sorted(key.scopes)))


def new_key_object(key: ApiKey, credential: str) -> NewKeyObject:
    """The key with its secret: the answer to its creation."""
    return object_of(NewKeyObject, key_object(key), key=credential)
