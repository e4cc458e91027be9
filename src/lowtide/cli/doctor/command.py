"""`lowtide doctor`: checks whether all that `lowtide serve` needs is there, and says what
would repair it.

Each check is a value; nothing is changed, started or written beyond what a probe takes away again.
Only `--repair` changes something, and only the drift between rows and blobs (integrity.py).
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer
from rich.markup import escape

from lowtide import config
from lowtide.cli.doctor.finding import NO_REPLICA, Finding
from lowtide.cli.options import ConfigOption, JsonOption
from lowtide.cli.terminal import command_errors, console, units
from lowtide.cli.terminal.counter import delayed_counter
from lowtide.config import Settings
from lowtide.config.sources import ConfigError
from lowtide.ports.blobs import BlobError
from lowtide.ports.store import StoreError

if TYPE_CHECKING:
    from lowtide.cli.doctor.integrity import DriftReport, Repairs

_NAME_COLUMNS_MAX: Final = 22
_MARKS: Final = {"ok": "[green]ok  [/]", "warn": "[yellow]warn[/]", "fail": "[bold red]FAIL[/]"}


class DoctorOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the options ask of the comparison of rows and blobs."""

    repair: bool
    yes: bool
    deep: bool
    quick: bool
    accept_loss: bool
    as_json: bool


def doctor(
    config_file: ConfigOption = None,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Instead of the one in the settings.")
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend the drift between rows and blobs; asks before.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --repair: do not ask.")] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also read every file and compare its digest.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Do not compare rows and blobs one by one.")
    ] = False,
    accept_loss: Annotated[
        bool,
        typer.Option("--accept-loss", help="With --repair: even when every blob is missing."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check settings, data directory, store, blobs, drift between the two, keys, prices, replicas
    and the embedded engine.

    Exit code: 0 nothing failed, 1 something did.
    """
    options = DoctorOptions(
        repair=repair, yes=yes, deep=deep, quick=quick, accept_loss=accept_loss, as_json=as_json
    )
    _check_options(options)
    started = time.monotonic()
    try:
        flags = {"server.data_dir": str(data_dir) if data_dir else None}
        config_file = config.settings_file(config_file, system=True)
        settings = config.load(config_file, flags=flags)
    except ConfigError as error:
        findings = [Finding("config", "fail", str(error), "Correct it; the rest was not checked.")]
        repairs = None
    else:
        findings, repairs = _examine_and_mend(settings, config_file, options)
    failed = any(finding.verdict == "fail" for finding in findings)
    if as_json:
        _emit(findings, repairs, failed)
    else:
        _show(findings, time.monotonic() - started)
    raise typer.Exit(1 if failed else command_errors.DONE)


def _check_options(options: DoctorOptions) -> None:
    if options.quick and (options.repair or options.deep):
        raise typer.BadParameter("--quick leaves out what --repair and --deep are about.")
    if (options.yes or options.accept_loss) and not options.repair:
        raise typer.BadParameter("--yes and --accept-loss go with --repair.")
    if options.as_json and options.repair and not options.yes:
        raise typer.BadParameter("--repair --json cannot ask: add --yes.")


def _examine_and_mend(
    settings: Settings, config_file: Path | None, options: DoctorOptions
) -> "tuple[list[Finding], Repairs | None]":
    """Runs all checks; after a repair, returns those of a second pass."""
    findings = asyncio.run(_examine(settings, config_file))
    verdicts = {finding.name: finding.verdict for finding in findings}
    usable = {verdicts.get("store", "fail"), verdicts.get("blobs", "fail")}
    if options.quick or "fail" in usable:
        return findings, None  # drift was not asked for, or cannot be told
    from lowtide.cli.doctor import integrity

    if not asyncio.run(integrity.can_check(settings)):
        return findings, None
    report = _check_blobs(settings, options)
    if isinstance(report, Finding):
        return [*findings, report], None
    if not (options.repair and report.kinds):
        return [*findings, *report.findings], None
    _ask(report, options)
    repairs = _mend(settings, options)
    again = _check_blobs(settings, options)
    left = [again] if isinstance(again, Finding) else again.findings
    if repairs.waiting:
        what = f"{units.plural(repairs.waiting, 'repair')} must wait for leases to end"
        left.append(Finding("repair", "warn", what, "Run it again in a minute."))
    return [*findings, *left], repairs


def _check_blobs(settings: Settings, options: DoctorOptions) -> "DriftReport | Finding":
    from lowtide.cli.doctor import integrity

    try:
        with delayed_counter("comparing rows and blobs") as advance:
            return asyncio.run(
                integrity.check_blobs(
                    settings, deep=options.deep, on_progress=lambda n: advance(n, None)
                )
            )
    except (StoreError, BlobError) as error:
        return Finding("drift", "fail", f"rows and blobs cannot be compared: {error}")


def _ask(report: "DriftReport", options: DoctorOptions) -> None:
    """Asks for confirmation. Raises CommandError where the answer is no."""
    if report.all_missing and not options.accept_loss:
        raise command_errors.CommandError(
            f"None of {units.plural(report.checked, 'blob')} that rows need is there: this looks"
            " like another folder or bucket than the server's. Nothing was changed.",
            "Check server.blob_url and that it is mounted. If the blobs are truly gone, add"
            " --accept-loss.",
            code="all_blobs_missing",
        )
    if options.yes:
        return
    for finding in report.findings:
        console.info(f"{escape(finding.what)}\n  [dim]{escape(finding.remedy)}[/]")
    if not typer.confirm("Repair this now?", err=True):
        raise command_errors.CommandError("Nothing was changed.", code="not_confirmed")


def _mend(settings: Settings, options: DoctorOptions) -> "Repairs":
    from lowtide.cli.doctor import integrity
    from lowtide.service.integrity.repair import RepairResult

    def tell(mended: RepairResult) -> None:
        if not options.as_json:
            console.info(f"{escape(mended.inconsistency.key)}: {escape(mended.did)}")

    with delayed_counter("mending") as advance:
        return asyncio.run(
            integrity.repair(
                settings,
                deep=options.deep,
                on_progress=lambda n: advance(n, None),
                on_mended=tell,
            )
        )


async def _examine(settings: Settings, config_file: Path | None) -> list[Finding]:
    """Runs all checks, in the order in which problems are best understood."""
    # Every adapter: slow to load, so not at the start.
    from lowtide.cli.doctor import accounts, checks, replicas, scalers, sources, states, workers
    from lowtide.wiring.database import is_single_machine

    findings = [checks.check_config(settings, config_file)]
    findings += checks.check_data_dir(settings)
    usable = all(finding.verdict != "fail" for finding in findings)
    if usable:
        store = await checks.check_store(settings)
        findings += [store, await checks.check_blobs(settings)]
        if store.verdict == "ok":
            findings += await accounts.check_accounts(settings, datetime.now(UTC))
        if store.verdict != "fail":
            findings += await states.check_states(settings)
        if store.verdict != "fail" and not is_single_machine(settings):
            findings += await workers.check_fleet(settings)
    findings += accounts.check_prices(settings)
    findings.append(checks.check_port(settings))
    findings.append(checks.check_embedded_engine())
    names = {
        name: model.engine_name
        for model in settings.model
        if model.engine_name is not None
        for name in (model.id, *model.aliases)
    }
    findings += await replicas.check_replicas(settings.replica, names)
    findings += await sources.check_sources(settings, names)
    findings += await scalers.check_scalers(settings)
    if not settings.replica and not settings.source:
        findings.append(NO_REPLICA)
    return findings


def _emit(findings: Sequence[Finding], repairs: "Repairs | None", failed: bool) -> None:
    answer: dict[str, Any] = {"ok": not failed, "checks": msgspec.to_builtins(findings)}
    if repairs is not None:
        from lowtide.cli.doctor.integrity import mended_object

        answer["repairs"] = [mended_object(mended) for mended in repairs.listed]
    console.emit_json(answer)


def _show(findings: Sequence[Finding], took_s: float) -> None:
    width = min(max(len(finding.name) for finding in findings), _NAME_COLUMNS_MAX)
    for finding in findings:
        name = f"[bold]{escape(finding.name):{width}}[/]"
        column = width + 8
        words = f"{_MARKS[finding.verdict]}  {name}  {escape(finding.what)}"
        console.write(words, hanging=column)
        if finding.remedy:
            console.write(f"{'':{column}}[dim]{escape(finding.remedy)}[/]", hanging=column)
    failed = sum(finding.verdict == "fail" for finding in findings)
    warned = sum(finding.verdict == "warn" for finding in findings)
    if failed:
        verdict = f"[red]{units.plural(failed, 'check')} failed.[/]"
    elif warned:
        verdict = f"[yellow]Works, with {units.plural(warned, 'warning')}.[/]"
    else:
        verdict = "[green]All is well.[/]"
    console.write(f"{verdict} [dim]({units.human_seconds(took_s)})[/]")
