"""The check of `lowtide doctor` on each place where engines are found, and on the engines there.

Each source is asked once, as a worker does it at its start; the engines that it tells are checked
like those that the settings name. Invariant: nothing is changed, and no request is generated for.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

from lowtide import limits
from lowtide.cli.doctor.finding import Finding
from lowtide.cli.doctor.replicas import check_replicas
from lowtide.cli.terminal.units import listed
from lowtide.config import Settings, SourceSettings
from lowtide.config.sources import ConfigError
from lowtide.core.replicas.found_engines import FoundEngine
from lowtide.ports.sources import SourceError
from lowtide.wiring.replicas.found_replicas import check_template
from lowtide.wiring.replicas.sources import open_source

REMEDIES: Final[Mapping[str, str]] = {
    "file": "Write the file anew beside it and rename it, or correct path of this [[source]].",
    "dns": "Ask with `dig` whether the name is right, and whether nameserver answers.",
    "kubernetes": "Check namespace, service and port; may this service account get, list and watch"
    " endpointslices? Out of a cluster, give api_url.",
    "ray": "Is dashboard the address of Ray's dashboard (port 8265), and does the application run?",
}
"""What to do about a source that cannot be asked, by its kind."""


async def check_sources(settings: Settings, engine_names: Mapping[str, str]) -> list[Finding]:
    """The findings on all sources and the engines that they tell, at most
    `limits.DOCTOR_ENGINES_MAX` of each. `engine_names`: see `check_replica`.
    """
    checks = (_check(source, engine_names) for source in settings.source)
    return [finding for findings in await asyncio.gather(*checks) for finding in findings]


async def _check(source: SourceSettings, engine_names: Mapping[str, str]) -> list[Finding]:
    name = f"source {source.label}"
    try:
        check_template(source)
    except ConfigError as error:
        return [Finding(name, "fail", str(error), "Correct this [[source]].")]
    opened = open_source(source)
    try:
        listing = await opened.read()
    except SourceError as error:
        return [Finding(name, "fail", str(error), REMEDIES[source.kind])]
    finally:
        await opened.aclose()
    engines = listing.engines
    checked = engines[: limits.DOCTOR_ENGINES_MAX]
    replicas = [source.replica_for(engine) for engine in checked]
    return [_described(name, engines), *await check_replicas(replicas, engine_names)]


def _described(name: str, engines: tuple[FoundEngine, ...]) -> Finding:
    if not engines:
        return Finding(name, "ok", "says that there is no engine at present: batches wait for one")
    return Finding(name, "ok", f"tells {listed([engine.name for engine in engines])}")
