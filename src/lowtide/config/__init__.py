"""The settings: one frozen tree, read once at start by the CLI and handed to `wiring`.

Defaults, then the file, then LOWTIDE_* variables, then flags; the later one wins. Every bad key,
type and value is told in one ConfigError with where it stands and what is allowed; nothing starts
on a guess.
"""

from lowtide.config.engine_settings import EngineKind
from lowtide.config.engine_sources import SourceSettings
from lowtide.config.exposure import is_loopback
from lowtide.config.hours import hours_by_model
from lowtide.config.models import ModelSettings
from lowtide.config.replicas import ReplicaSettings
from lowtide.config.scalers import ScalerSettings
from lowtide.config.sections import (
    AuthSettings,
    CatalogueSettings,
    DispatchSettings,
    LimitSettings,
    ScaleSettings,
    ServerSettings,
    WebhookSettings,
)
from lowtide.config.settings import (
    DEFAULT_FILE,
    SYSTEM_FILE,
    Settings,
    check,
    load,
    settings_file,
)

__all__ = [
    "DEFAULT_FILE",
    "SYSTEM_FILE",
    "AuthSettings",
    "CatalogueSettings",
    "DispatchSettings",
    "EngineKind",
    "LimitSettings",
    "ModelSettings",
    "ReplicaSettings",
    "ScaleSettings",
    "ScalerSettings",
    "ServerSettings",
    "Settings",
    "SourceSettings",
    "WebhookSettings",
    "check",
    "hours_by_model",
    "is_loopback",
    "load",
    "settings_file",
]
