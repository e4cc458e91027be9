"""`lowtide engines`: which replicas there are, how full each is, and what holds it."""

from rich.markup import escape

from lowtide.api.objects.engines import EngineList, EngineObject, EngineTotals, SourceObject
from lowtide.api.objects.scale import ScalerObject
from lowtide.cli.accounts.admin_target import OpenAdmin, admin_command
from lowtide.cli.client.objects import read_view
from lowtide.cli.server_commands import Answers
from lowtide.cli.terminal import console, table, units
from lowtide.core.reporting.bound_words import bound_words
from lowtide.core.reporting.worker_report import SETTINGS_LABEL


@admin_command
def engines(open_admin: OpenAdmin) -> Answers:
    """Show the engines: what each serves, how full it is, why it takes no calls, what the sources
    tell in which engines are found, and what the scalers were asked that start and stop them.
    """
    backend = open_admin()
    engine_list = backend.engines()
    yield engine_list
    listed = read_view(engine_list, EngineList)
    for worker in listed.workers:
        if worker.is_gone:
            at = units.human_instant(worker.seen_at)
            console.info(f"Worker {escape(worker.id)} has not reported since {at}.")
    for source in listed.sources:
        console.info(source_line(source, len(listed.workers)))
    for scaler in listed.scalers:
        console.info(scaler_line(scaler))
    if not listed.data:
        console.info("No worker reports an engine: is one running? See `lowtide doctor`.")
        return
    table.show_table(
        (
            table.name("engine"),
            table.whole("state"),
            table.number("calls"),
            table.number("window"),
            table.name("why not more"),
            table.number("waiting"),
            table.name("models"),
        ),
        [_row(each) for each in listed.data],
    )
    own = {each.name: None for each in listed.data if each.load and each.load.bounds_steps}
    if own:
        console.info(escape(f"Not paced, as the scheduler class does it inside: {', '.join(own)}."))
    if listed.totals is not None:
        console.info(totals_line(listed.totals))
    for each in listed.data:
        if each.reason:
            console.write(f"{escape(each.name)}: {escape(each.reason)}")
            if each.remedy:
                console.write(f"  {escape(each.remedy)}")


def totals_line(totals: EngineTotals) -> str:
    """All engines together."""
    words = (
        f"{totals.ready:,} of {totals.engines:,} take batch calls: {totals.in_flight:,} of"
        f" {totals.window:,} in flight, {totals.free:,} free, {totals.waiting_requests:,} requests"
        f" wait. In the last minute {totals.requests_per_s:,.1f} requests/s and"
        f" {totals.tokens_per_s:,.0f} tokens/s of batches"
    )
    if totals.live_ttft_p99_s is not None:
        words += f"; {totals.live_streams:,} live streams, first byte p99"
        words += f" {totals.live_ttft_p99_s * 1000:,.0f} ms"
    if totals.gave_way_s:
        words += f"; batch gave way for {totals.gave_way_s:,.0f} s"
    return f"{words}."


def source_line(source: SourceObject, workers: int) -> str:
    """What a source says, and which workers see it so where not all do."""
    count = len(source.engines)
    words = f"Source {source.source}: {count:,} engine{'' if count == 1 else 's'}"
    if source.source == SETTINGS_LABEL:
        words = "The settings file is not taken over"
    elif source.stale_since is not None:
        words += f", no answer since {units.human_instant(source.stale_since)}"
    if source.trouble:
        words += f": {source.trouble}"
    if len(source.workers) < workers:
        words += f" (seen by {', '.join(source.workers)})"
    return escape(f"{words}.")


def scaler_line(scaler: ScalerObject) -> str:
    """What a scaler has and was asked for last, and what fails."""
    words = f"Scaler {scaler.scaler}{' (dry run)' if scaler.dry_run else ''}: "
    words += (
        f"{scaler.running} of {scaler.target} running"
        if scaler.target is not None
        else "not read yet"
    )
    if scaler.asked is not None:
        at = units.human_instant(scaler.asked_at or 0)
        verb = "would have been asked" if scaler.dry_run else "asked"
        words += f", {verb} for {scaler.asked} at {at} ({scaler.reason})"
    if scaler.trouble:
        since = scaler.trouble_since
        words += f". {scaler.trouble}{f', since {units.human_instant(since)}' if since else ''}"
    return escape(f"{words}.")


def _row(engine: EngineObject) -> tuple[str, ...]:
    load = engine.load
    return (
        engine.name,
        engine.condition,
        "-" if load is None else f"{load.in_flight:,}",
        "-" if load is None else f"{load.window:,}",
        "-" if load is None else bound_words(load.bound),
        "-" if load is None or load.waiting is None else f"{load.waiting:,}",
        ", ".join(engine.models),
    )
