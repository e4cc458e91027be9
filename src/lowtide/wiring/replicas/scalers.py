"""The scalers of one process: opened by its settings, exchanged at a reload, owned with the others.

`wiring.application` makes it, and runs its loops in processes that have a worker. Invariant: a
scaler that leads to the same place stays open at a reload; nothing is started or stopped by that.
"""

import hashlib
import re
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from lowtide import limits
from lowtide.config import ScalerSettings, Settings
from lowtide.core.replicas.scaler_asks import ReplicaNeed
from lowtide.core.reporting.worker_report import ScalerReport
from lowtide.loops.replicas.ownership import OwnershipLoop
from lowtide.loops.replicas.scalers import ScalersLoop, ScalerSpec
from lowtide.loops.replicas.seats import Seat, SeatsLoop
from lowtide.loops.runner import Loop, Loops
from lowtide.ports.clock import Clock
from lowtide.ports.ownership import OwnershipStore
from lowtide.ports.scalers import Scaler
from lowtide.service.scale import ScaleService
from lowtide.telemetry.scaler_metrics import count_ask, show_scalers

_CHECKED: Final = "checked by the settings"


def open_scaler(scaler: ScalerSettings, data_dir: Path) -> Scaler:
    """Returns the adapter for a scaler. Nothing is read or sent before its first reading.

    Each kind is imported once it is named, as of sources.
    """
    match scaler.kind:
        case "kubernetes":
            from lowtide.engines.scalers.kubernetes_scale import DeploymentScale
            from lowtide.engines.sources.kubernetes import open_api

            assert scaler.namespace is not None and scaler.deployment is not None, _CHECKED
            api = open_api(scaler.api_url, scaler.token_file, scaler.api_ca_file)
            return DeploymentScale(api, scaler.namespace, scaler.deployment)
        case "ray":
            from lowtide.engines.scalers.ray_scale import RayScale
            from lowtide.engines.sources.json_http import JsonApi

            assert scaler.dashboard is not None and scaler.application is not None, _CHECKED
            assert scaler.deployment is not None, _CHECKED
            api = JsonApi(
                scaler.dashboard, token_file=scaler.token_file, ca_file=scaler.api_ca_file
            )
            return RayScale(api, scaler.application, scaler.deployment)
        case "command":
            return _command(scaler, data_dir)


def _command(scaler: ScalerSettings, data_dir: Path) -> Scaler:
    from lowtide.engines.scalers.command import Commands, CommandScaler

    name = file_name(scaler.label)
    folder = scaler.folder or data_dir / "scalers"
    commands = Commands(
        start=scaler.start, stop=scaler.stop, model=scaler.models[0], stop_s=scaler.stop_s
    )
    return CommandScaler(
        commands, folder / name, lambda replica: data_dir / "logs" / f"{name}-{replica}.log"
    )


def file_name(label: str) -> str:
    """A name for files out of a label, another one for each label."""
    plain = re.sub(r"[^A-Za-z0-9.-]+", "-", label).strip("-.")[:60]
    return f"{plain}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"


class EngineScalers:
    """The scalers as the settings have them at present. They are asked while `running` is open."""

    def __init__(self, clock: Clock, data_dir: Path, wake: Callable[[], None]) -> None:
        """`wake` wakes the loop "scalers"."""
        self._clock = clock
        self._data_dir = data_dir
        self._wake = wake
        self._scalers: tuple[ScalerSettings, ...] = ()
        self._replicas_max = limits.SCALE_REPLICAS_MAX
        self._lease_ttl_s = limits.LEASE_TTL_S
        self._opened: dict[tuple[object, ...], Scaler] = {}
        self._seats: dict[str, Seat] = {}
        self._loop: ScalersLoop | None = None
        self._ownership: OwnershipLoop | None = None

    def configure(self, settings: Settings) -> None:
        """Takes over the scalers of the settings."""
        before, seats = self._opened, self._seats
        self._scalers, self._replicas_max = settings.scaler, settings.scale.replicas_max
        self._lease_ttl_s = settings.dispatch.lease_ttl_s
        self._opened = {
            each.place: before.get(each.place) or open_scaler(each, self._data_dir)
            for each in settings.scaler
        }
        self._seats = {
            each.label: seats.get(each.label) or Seat(_seat_name(each), self._clock)
            for each in settings.scaler
        }
        self._apply()

    def reports(self) -> tuple[ScalerReport, ...]:
        """The state of the scalers that this process asks."""
        return self._loop.reports() if self._loop is not None else ()

    @asynccontextmanager
    async def running(
        self, scale: ScaleService, worker_id: str, store: OwnershipStore | None
    ) -> AsyncIterator[Callable[[str], None]]:
        """Asks the scalers while the context is open; yields what wakes its loops. `scale` tells
        what is wanted; `store` None: no other process has these scalers.
        """

        async def needs() -> Mapping[str, ReplicaNeed]:
            return {model: each.need for model, each in (await scale.all()).items()}

        self._loop = ScalersLoop(
            self._clock, needs, wake=self._wake, on_ask=count_ask, on_update=show_scalers
        )
        loops: list[Loop] = [self._loop]
        if store is not None:
            member = f"{worker_id} scalers"
            self._ownership = OwnershipLoop(
                member, store, self._clock, {}, (), self, lease_ttl_s=self._lease_ttl_s
            )
            loops.append(SeatsLoop(self._ownership, lambda: bool(self._seats)))
        self._apply()
        try:
            async with Loops(loops, self._clock) as running:
                yield running.wake
        finally:
            await self._loop.aclose()
            if self._ownership is not None:
                await self._ownership.leave()
            self._loop = self._ownership = None

    def announce(self) -> None:
        """See `loops.replicas.ownership.WorkSource`: this process has got scalers to ask."""
        self._wake()

    def release_replicas(self, replica_names: frozenset[str], models: frozenset[str]) -> None:
        """See `loops.replicas.ownership.WorkSource`. Before each act a scaler looks at its seat, so
        there is nothing to stop.
        """

    def _apply(self) -> None:
        if self._loop is None:
            return
        if self._ownership is not None:
            self._ownership.replicas_changed({each.name: each for each in self._seats.values()}, ())
            self._wake()
        else:
            for seat in self._seats.values():
                seat.own_until(float("inf"))
        self._loop.watch(
            {
                each.label: (
                    _spec(each, self._replicas_max),
                    self._opened[each.place],
                    self._seats[each.label],
                )
                for each in self._scalers
            }
        )


def _spec(scaler: ScalerSettings, replicas_max: int) -> ScalerSpec:
    """`replicas_max`: that of `[scale]`."""
    patience_s = scaler.stop_s + limits.SCALER_KILL_S if scaler.kind == "command" else 0.0
    return ScalerSpec(
        label=scaler.label,
        models=scaler.models,
        bounds=scaler.bounds(replicas_max),
        dry_run=scaler.dry_run,
        step_s=2 * limits.SCALER_ASK_S + 2 * patience_s,
    )


def _seat_name(scaler: ScalerSettings) -> str:
    """What all workers that have it call it: a command runs on one machine, others elsewhere."""
    name = f"scaler {scaler.label}"
    return f"{name} on {socket.gethostname()}" if scaler.kind == "command" else name
