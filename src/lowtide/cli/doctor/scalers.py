"""The check of `lowtide doctor` on each scaler: it can be read, and would take a number.

Invariant: no number is changed, and nothing is started or stopped.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

from lowtide import limits
from lowtide.cli.doctor.finding import Finding
from lowtide.config import ScalerSettings, Settings
from lowtide.ports.scalers import ScalerError
from lowtide.wiring.replicas.scalers import open_scaler

REMEDIES: Final[Mapping[str, str]] = {
    "kubernetes": "Check namespace and deployment; may this service account get and patch"
    " deployments/scale? deploy/kubernetes-scaler has a Role for it.",
    "ray": "Check dashboard, application and deployment; the application needs"
    " external_scaler_enabled: true, and no autoscaling_config.",
    "command": "Is the program of start and stop on PATH, and may this user write to folder?",
}
"""What to do about a scaler that cannot be asked, by its kind."""


async def check_scalers(settings: Settings) -> list[Finding]:
    """The findings on all scalers."""
    return await asyncio.gather(*(_check(scaler, settings) for scaler in settings.scaler))


async def _check(scaler: ScalerSettings, settings: Settings) -> Finding:
    name = f"scaler {scaler.label}"
    opened = open_scaler(scaler, settings.server.data_dir)
    try:
        async with asyncio.timeout(limits.SCALER_ASK_S):
            await opened.check()
            status = await opened.read()
    except ScalerError as error:
        return Finding(name, "fail", str(error), REMEDIES[scaler.kind])
    except TimeoutError:
        words = f"has not answered for {limits.SCALER_ASK_S:g} s"
        return Finding(name, "fail", words, REMEDIES[scaler.kind])
    finally:
        await opened.aclose()
    dry = ", in a dry run: it is asked nothing" if scaler.dry_run else ""
    bounds = scaler.bounds(settings.scale.replicas_max)
    between = f"from {bounds.replicas_min} to {bounds.replicas_max}"
    what = f"has {status.running} of {status.target} replicas, may have {between}{dry}"
    if _has_no_engines(settings):
        remedy = "Name a [[source]] or a [[replica]] by which they are found."
        return Finding(name, "warn", f"{what}; no source finds what it starts", remedy)
    return Finding(name, "ok", what)


def _has_no_engines(settings: Settings) -> bool:
    return not settings.source and not settings.replica
