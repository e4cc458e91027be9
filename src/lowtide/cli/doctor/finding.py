"""What one check of `lowtide doctor` found, as a value."""

from typing import Final, Literal

import msgspec

Verdict = Literal["ok", "warn", "fail"]


class Finding(msgspec.Struct, frozen=True):
    """What one check found. `remedy` is empty where nothing need be done."""

    name: str
    verdict: Verdict
    what: str
    remedy: str = ""


NO_REPLICA: Final = Finding(
    "replicas",
    "warn",
    "none is configured, so nothing answers requests",
    "Add a [[replica]] with url and models to lowtide.toml, or start with --model demo.",
)
