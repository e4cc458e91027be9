"""`lowtide doctor`: is all there that `lowtide serve` will need, and if not, what would mend it.

Each check is a value; nothing is changed, started or written beyond what a probe takes away again.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.markup import escape

from lowtide import config
from lowtide.cli import exits, screen
from lowtide.cli.finding import NO_REPLICA, Finding
from lowtide.cli.options import ConfigOption, JsonOption
from lowtide.config import Settings
from lowtide.config_sources import ConfigError

_MARKS: Final = {"ok": "[green]ok  [/]", "warn": "[yellow]warn[/]", "fail": "[bold red]FAIL[/]"}


def doctor(
    config_file: ConfigOption = None,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Instead of the one in the settings.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check settings, data directory, store, blobs, keys, prices, replicas and the embedded
    engine.

    Exit code: 0 nothing failed, 1 something did.
    """
    started = time.monotonic()
    try:
        flags = {"server.data_dir": str(data_dir) if data_dir else None}
        settings = config.load(config_file, flags=flags)
    except ConfigError as error:
        findings = [Finding("config", "fail", str(error), "Correct it; the rest was not checked.")]
    else:
        findings = asyncio.run(_examine(settings, config_file))
    failed = any(finding.verdict == "fail" for finding in findings)
    if as_json:
        checks: Any = msgspec.to_builtins(findings)
        screen.emit_json({"ok": not failed, "checks": checks})
    else:
        _show(findings, time.monotonic() - started)
    raise typer.Exit(1 if failed else exits.DONE)


async def _examine(settings: Settings, config_file: Path | None) -> list[Finding]:
    """All checks, in the order in which trouble is best understood."""
    # Every adapter: slow to load, so not at the start.
    from lowtide.cli import account_checkups, checkups

    findings = [checkups.check_config(settings, config_file)]
    findings += checkups.check_data_dir(settings)
    usable = all(finding.verdict != "fail" for finding in findings)
    if usable:
        store = await checkups.check_store(settings)
        findings += [store, await checkups.check_blobs(settings)]
        if store.verdict == "ok":
            findings += await account_checkups.check_accounts(settings, datetime.now(UTC))
    findings += account_checkups.check_prices(settings)
    findings.append(checkups.check_port(settings))
    findings.append(checkups.check_embedded_engine())
    names = {
        name: model.engine_name
        for model in settings.model
        if model.engine_name is not None
        for name in (model.id, *model.aliases)
    }
    findings += await asyncio.gather(
        *(checkups.check_replica(replica, names) for replica in settings.replica)
    )
    if not settings.replica:
        findings.append(NO_REPLICA)
    return findings


def _show(findings: Sequence[Finding], took_s: float) -> None:
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        name = f"[bold]{escape(finding.name):{width}}[/]"
        screen.say(f"{_MARKS[finding.verdict]}  {name}  {escape(finding.what)}")
        if finding.remedy:
            screen.say(f"{'':{width + 8}}[dim]{escape(finding.remedy)}[/]")
    failed = sum(finding.verdict == "fail" for finding in findings)
    warned = sum(finding.verdict == "warn" for finding in findings)
    if failed:
        verdict = f"[red]{screen.plural(failed, 'check')} failed.[/]"
    elif warned:
        verdict = f"[yellow]Works, with {screen.plural(warned, 'warning')}.[/]"
    else:
        verdict = "[green]All is well.[/]"
    screen.say(f"{verdict} [dim]({screen.human_seconds(took_s)})[/]")
