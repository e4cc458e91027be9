"""One batch of a run over a table: its files on this machine, and what is asked of the server.

`table_batches` decides when. Invariant: a part's answers appear in their file whole or not at all.
"""

from collections.abc import Generator
from typing import Final

from lowtide.cli.client.objects import BatchView, EstimateView, read_view
from lowtide.cli.client.server_client import ServerClient
from lowtide.cli.run.run_state import RunFolder
from lowtide.cli.tables.table_state import Part, TableState, Totals
from lowtide.tables.answers import Answer, merge_answers, read_answers, write_answers
from lowtide.tables.requests import read_index

_FITS: Final = 0.9  # of a limit on tokens is aimed at: rows differ in length


class PartFiles:
    """The paths of a part's files."""

    def __init__(self, folder: RunFolder, first: int) -> None:
        parts = folder.parts_dir
        parts.mkdir(exist_ok=True)
        self.requests = parts / f"{first:012d}.requests.jsonl"
        self.index = parts / f"{first:012d}.index.jsonl"
        self.output = parts / f"{first:012d}.output.jsonl"
        self.errors = parts / f"{first:012d}.errors.jsonl"
        self.answers = parts / f"{first:012d}.answers.jsonl"

    def remove_all_but_answers(self) -> None:
        for path in (self.requests, self.index, self.output, self.errors):
            path.unlink(missing_ok=True)


def read_run(folder: RunFolder, state: TableState) -> Generator[Answer]:
    """The answers of all parts, which are done, in the order of rows."""
    for part in state.parts:
        with PartFiles(folder, part.first).answers.open("rb") as stream:
            yield from read_answers(stream)


def batch_over(client: ServerClient, file_id: str) -> str | None:
    """The batch over this file, where an earlier process created one and could not record it."""
    for known in client.batches(limit=100).get("data", []):
        if known.get("input_file_id") == file_id and known.get("status") != "failed":
            return str(known["id"])
    return None


def fitting_lines(client: ServerClient, part: Part, endpoint: str) -> int:
    """How many of its lines the server's limits would take if nothing else were there."""
    assert part.file_id is not None
    answer = client.create_batch(part.file_id, endpoint, dry_run=True)
    fitting = part.lines
    for limit in read_view(answer, EstimateView).would_exceed:
        if limit.code == "token_limit_exceeded" and limit.allowed and limit.asked:
            share = int(limit.allowed) / int(limit.asked)
            fitting = min(fitting, int(part.lines * share * _FITS))
    return fitting


def fetch_answers(client: ServerClient, batch: BatchView, files: PartFiles) -> Totals:
    """Fetches the results of a batch that is over, and keeps what the columns need of them."""
    for file_id, path in ((batch.output_id, files.output), (batch.error_id, files.errors)):
        path.unlink(missing_ok=True)
        if file_id is not None:
            client.download(file_id, path)
        else:
            path.touch()
    whole = files.answers.with_suffix(".part")
    with (
        files.index.open("rb") as index,
        files.output.open("rb") as output,
        files.errors.open("rb") as errors,
        whole.open("wb") as stream,
    ):
        merged = merge_answers(read_index(index), output, errors)
        count, failed = write_answers(merged, stream)
    whole.replace(files.answers)
    return _totals(batch, count - failed, failed)


def _totals(batch: BatchView, succeeded: int, failed: int) -> Totals:
    usage, cost = batch.usage, batch.cost
    return Totals(
        succeeded=succeeded,
        failed=failed,
        input_tokens=usage.input_tokens if usage else 0,
        cached_tokens=usage.cached_tokens if usage else 0,
        output_tokens=usage.output_tokens if usage else 0,
        amount=cost.amount if cost else Totals().amount,
        live_amount=cost.live_amount if cost else Totals().live_amount,
    )
