"""Reports of workers as the list of engines. Pure; the route, the console and the command call it.

Invariant: a replica that several workers report is shown as the one sees it that may call it.
"""

from collections.abc import Iterable
from datetime import datetime

from lowtide.api.objects.engines import EngineList, EngineLoad, EngineObject, WorkerObject
from lowtide.core.reporting.standing import split
from lowtide.core.reporting.worker_report import ReplicaReport, WorkerReport


def engine_list(reports: Iterable[WorkerReport], now: datetime) -> EngineList:
    """What the workers that live say of their replicas at `now`, and who has fallen silent."""
    live, gone = split(reports, now)
    owners: dict[str, str] = {}
    for report in live:
        for replica in report.replicas:
            if replica.is_owned or replica.name not in owners:
                owners[replica.name] = report.worker_id
    engines = [
        _engine(replica, report.worker_id)
        for report in live
        for replica in report.replicas
        if owners[replica.name] == report.worker_id
    ]
    return EngineList(
        data=sorted(engines, key=lambda each: (each.name, each.models, each.endpoints)),
        workers=[_worker(each, is_gone=False) for each in live]
        + [_worker(each, is_gone=True) for each in gone],
    )


def _engine(replica: ReplicaReport, worker_id: str) -> EngineObject:
    load = replica.load
    return EngineObject(
        name=replica.name,
        worker=worker_id,
        models=replica.models,
        endpoints=replica.endpoints,
        condition=replica.condition,
        reason=replica.reason or None,
        remedy=replica.remedy or None,
        since=int(replica.since.timestamp()) if replica.since is not None else None,
        load=None
        if load is None
        else EngineLoad(
            in_flight=load.in_flight,
            window=load.window,
            bound=load.bound,
            running=load.running,
            waiting=load.waiting,
            kv_used=load.kv_used,
        ),
    )


def _worker(report: WorkerReport, *, is_gone: bool) -> WorkerObject:
    return WorkerObject(
        id=report.worker_id, seen_at=int(report.seen_at.timestamp()), is_gone=is_gone
    )
