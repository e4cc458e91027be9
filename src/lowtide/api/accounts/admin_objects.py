"""Organizations, projects and keys as the admin routes and the operator's commands show them."""

from lowtide.api.objects.accounts import (
    KeyObject,
    LimitsObject,
    NewKeyObject,
    OrganizationObject,
    ProjectObject,
)
from lowtide.api.objects.instants import unix
from lowtide.core.accounts.money import dollars_text
from lowtide.core.accounts.tenancy import ApiKey, Organization, OrganizationLimits, Project


def organization_object(organization: Organization) -> OrganizationObject:
    cap = organization.spend_cap_pico
    return OrganizationObject(
        id=organization.id,
        name=organization.name,
        created_at=unix(organization.created_at),
        limits=limits_object(organization.limits),
        spend_cap=None if cap is None else dollars_text(cap),
        paused_at=unix(organization.paused_at),
    )


def limits_object(limits: OrganizationLimits) -> LimitsObject:
    """The limits with every key; null where the default applies."""
    return LimitsObject(**{name: getattr(limits, name) for name in limits.__struct_fields__})


def project_object(project: Project) -> ProjectObject:
    return ProjectObject(
        id=project.id,
        organization_id=project.organization_id,
        name=project.name,
        created_at=unix(project.created_at),
    )


def key_object(key: ApiKey) -> KeyObject:
    """The key without its secret, which is shown only when the key is created."""
    return KeyObject(
        id=key.id,
        project_id=key.project_id,
        name=key.name,
        hint=key.hint,
        scopes=tuple(sorted(key.scopes)),
        created_at=unix(key.created_at),
        expires_at=unix(key.expires_at),
        revoked_at=unix(key.revoked_at),
        last_used_at=unix(key.last_used_at),
    )


def new_key_object(key: ApiKey, credential: str) -> NewKeyObject:
    """The key with its secret: the answer to its creation."""
    shown = key_object(key)
    return NewKeyObject(
        **{name: getattr(shown, name) for name in shown.__struct_fields__}, key=credential
    )
