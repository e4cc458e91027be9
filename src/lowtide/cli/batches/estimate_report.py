"""A server's answer to a dry run, in words: tokens and prices by model, and what stands against it.

`batches create --dry-run` prints it. `lowtide validate` is the same without a server.
"""

from typing import Final

from rich.markup import escape

from lowtide.api.objects.batches import ExceededObject
from lowtide.cli.batches.batch_report import show_line_errors, show_warnings
from lowtide.cli.client.objects import AmountsView, EstimateView
from lowtide.cli.terminal import command_errors, console, table, units

ESTIMATE_COLUMNS: Final = (
    table.name("model"),
    *map(table.number, ("requests", "in (about)", "out (at most)", "live", "batch", "saved")),
)


def exit_code_of_estimate(estimate: EstimateView) -> int:
    """0 when the batch would run, 3 when it would not."""
    would_run = estimate.errors is None and not estimate.would_exceed
    return command_errors.DONE if would_run else command_errors.BATCH_FAILED


def show_estimate(estimate: EstimateView) -> None:
    """Prints prices, then limits that the batch would pass, then the verdict."""
    if estimate.errors is not None:
        show_line_errors(estimate)
        errors = units.plural(estimate.errors_total or len(estimate.errors.data), "error")
        console.write(f"[red]Bad:[/] {errors}; the batch would fail before anything runs.")
        return
    table.show_table(
        ESTIMATE_COLUMNS,
        [
            (
                model.model,
                f"{model.requests:,}",
                f"{model.input_tokens:,}",
                f"{model.output_tokens_max:,}",
                *_prices(model),
            )
            for model in estimate.models
        ],
    )
    if estimate.totals.live_amount:
        live, batch, saved = _prices(estimate.totals)
        console.write(f"As a batch {batch}; live {live}. Saved: {saved}.")
    show_warnings(estimate)
    for limit in estimate.would_exceed:
        console.write(f"  [red]{escape(limit.code)}:[/] {escape(_exceeded(limit))}")
    if estimate.would_exceed:
        console.write("[red]It would be refused as it is.[/]")
    else:
        console.write(f"[green]Good:[/] {units.plural(estimate.requests, 'request')} would run.")


def _prices(amounts: AmountsView) -> tuple[str, str, str]:
    """The live price, the batch price and the saving; dashes for a model that has no price."""
    if not amounts.live_amount:
        return "-", "-", "-"
    live, batch, saved = amounts.live_amount, amounts.amount, amounts.saved
    return units.human_dollars(live), units.human_dollars(batch), units.human_dollars(saved)


def _exceeded(limit: ExceededObject) -> str:
    of_model = f" of {limit.model}" if limit.model else ""
    used = f", used {_amount(limit.used)}" if limit.used is not None else ""
    figures = f"allowed {_amount(limit.allowed)}{used}, asked {_amount(limit.asked)}"
    return f"{limit.limit}{of_model}: {figures}"


def _amount(value: int | str | None) -> str:
    """The text of an amount: dollars come as text, counts as numbers."""
    return f"${value}" if isinstance(value, str) else f"{value or 0:,}"
