"""Many batches for one table, against a server with limits: cut, waited for, gone on with."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from lowtide import limits
from lowtide.cli.client.http_client import ServerRefused
from lowtide.cli.client.objects import JsonObject
from lowtide.cli.client.server_client import Copied, ServerClient
from lowtide.cli.run.run_state import RunFolder, lock
from lowtide.cli.tables.table_batches import TableBatches
from lowtide.cli.tables.table_parts import PartFiles
from lowtide.cli.tables.table_state import Part, TableState
from lowtide.cli.terminal.command_errors import CommandError
from lowtide.cli.terminal.progress import BatchBar
from lowtide.tables.answers import read_answers
from lowtide.tables.json_text import json_bytes
from lowtide.tables.requests import PartBounds, RowIndexEntry

TOKENS = 10  # of each line


class LimitedServer:
    """As much of a server as the batches ask for. `beat` lets the oldest batch end."""

    def __init__(self, **bounds: int) -> None:
        self.lines_max = bounds.get("lines", 1 << 40)
        self.bytes_max = bounds.get("bytes", 1 << 40)
        self.tokens_max = bounds.get("tokens", 1 << 40)
        self.others_tokens = bounds.get("others", 0)
        self.files: dict[str, list[str]] = {}
        self.made: dict[str, JsonObject] = {}
        self.pauses: list[float] = []
        self.peak = 0

    # ---- the client ----

    def upload(self, path: Path, _purpose: str) -> JsonObject:
        if path.stat().st_size > self.bytes_max:
            raise ServerRefused(413, "file_too_large", "too large")
        name = f"file-{len(self.files)}"
        self.files[name] = [
            json.loads(line)["custom_id"] for line in path.read_bytes().splitlines()
        ]
        return {"id": name}

    def create_batch(
        self, file_id: str, _endpoint: str, *_: Any, dry_run: bool = False
    ) -> JsonObject:
        asked = len(self.files[file_id]) * TOKENS
        if dry_run:
            limit = {"limit": "enqueued", "code": "token_limit_exceeded", "asked": asked}
            exceeded = [limit | {"allowed": self.tokens_max}] * (asked > self.tokens_max)
            return {"requests": 1, "models": [], "totals": {}, "would_exceed": exceeded}
        batch = {"id": f"batch-{len(self.made)}", "input_file_id": file_id}
        refusal = None
        if len(self.files[file_id]) > self.lines_max:
            refusal = "too_many_tasks"
        elif self.enqueued + self.others_tokens + asked > self.tokens_max:
            refusal = "token_limit_exceeded"
        batch["status"] = "failed" if refusal else "in_progress"
        if refusal:
            batch["errors"] = {"data": [{"code": refusal, "message": "no"}]}  # type: ignore[assignment]
        self.made[batch["id"]] = batch
        self.peak = max(self.peak, len(self.running))
        return batch

    def batches(self, limit: int) -> JsonObject:
        return {"data": list(self.made.values())[-limit:]}

    def batch(self, batch_id: str) -> JsonObject:
        return self.made[batch_id]

    def download(self, file_id: str, target: Path) -> Copied:
        lines = []
        for custom_id in self.files[file_id]:
            body = {"choices": [{"message": {"content": f"to {custom_id}"}}]}
            lines.append({"custom_id": custom_id, "response": {"status_code": 200, "body": body}})
        target.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return Copied(1, len(lines))

    # ---- time ----

    @property
    def running(self) -> list[JsonObject]:
        return [batch for batch in self.made.values() if batch["status"] == "in_progress"]

    @property
    def enqueued(self) -> int:
        return sum(len(self.files[batch["input_file_id"]]) for batch in self.running) * TOKENS

    def beat(self, pause_s: float) -> None:
        self.pauses.append(pause_s)
        self.others_tokens = 0 if pause_s == limits.TABLE_ROOM_RETRY_S else self.others_tokens
        for batch in self.running[:1]:
            lines = len(self.files[batch["input_file_id"]])
            batch |= {"status": "completed", "output_file_id": batch["input_file_id"]}
            batch["request_counts"] = {"total": lines, "completed": lines, "failed": 0}
            batch["usage"] = {"input_tokens": lines, "output_tokens": 2 * lines}
            batch["cost"] = {"amount": "0.10", "live_amount": "0.20", "saved": "0.10"}


def write_part(first: int, end: int, bounds: PartBounds, files: PartFiles) -> Part:
    """Every fifth row cannot be made into a request."""
    entries, lines, row = [], 0, first
    with files.requests.open("w") as stream:
        while row < end and lines < bounds.requests:
            is_bad = row % 5 == 4
            entries.append(
                RowIndexEntry(row, None if is_bad else f"r{row}", "no" if is_bad else None)
            )
            if not is_bad:
                stream.write(json.dumps({"custom_id": f"r{row}"}) + "\n")
                lines += 1
            row += 1
    files.index.write_bytes(b"".join(json_bytes(entry) + b"\n" for entry in entries))
    return Part(first=first, rows=row - first, lines=lines)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    with lock(tmp_path / "out.csv") as held:
        yield held


def fresh(rows: int, requests_max: int = 8) -> TableState:
    return TableState(
        table="t.csv", identity="", rows=rows, asked={}, model="m",
        requests_max=requests_max, bytes_max=1 << 40,
    )  # fmt: skip


def batches_of(
    server: LimitedServer,
    folder: RunFolder,
    state: TableState,
    sleep: Callable[[float], None] | None = None,
) -> TableBatches:
    return TableBatches(
        cast(ServerClient, server), folder, state, write_part, BatchBar(quiet=True),
        endpoint="/v1/chat/completions", window=None, sleep=sleep or server.beat,
    )  # fmt: skip


def texts(folder: RunFolder, state: TableState) -> list[str | None]:
    found = []
    for part in state.parts:
        with PartFiles(folder, part.first).answers.open("rb") as stream:
            found += [
                (answer.number, answer.text or answer.error) for answer in read_answers(stream)
            ]
    assert [number for number, _ in found] == list(range(state.rows))
    return [text for _, text in found]


def expected(rows: int) -> list[str]:
    return ["no" if row % 5 == 4 else f"to r{row}" for row in range(rows)]


@pytest.mark.parametrize("rows", [1, 5, 7, 40, 41])
def test_every_row_gets_its_answer_in_order_and_the_figures_add_up(
    rows: int, folder: RunFolder
) -> None:
    server = LimitedServer()
    state = batches_of(server, folder, fresh(rows)).run()
    assert state.is_done
    assert texts(folder, state) == expected(rows)
    lines = sum(text != "no" for text in expected(rows))
    totals = state.totals
    assert (totals.succeeded, totals.failed) == (lines, rows - lines)
    assert (totals.input_tokens, totals.output_tokens) == (lines, 2 * lines)
    assert float(totals.live_amount) == pytest.approx(0.2 * len(server.made))


def test_no_more_batches_are_under_way_than_the_bound_says(folder: RunFolder) -> None:
    server = LimitedServer()
    batches_of(server, folder, fresh(200)).run()
    assert server.peak == limits.TABLE_PARTS_IN_FLIGHT


@pytest.mark.parametrize("bounds", [{"lines": 3}, {"bytes": 60}, {"tokens": 35}, {"lines": 1}])
def test_a_batch_that_a_limit_would_never_take_is_cut(
    bounds: dict[str, int], folder: RunFolder
) -> None:
    server = LimitedServer(**bounds)
    state = batches_of(server, folder, fresh(40)).run()
    assert texts(folder, state) == expected(40)
    assert all(part.lines <= 4 for part in state.parts)


def test_what_does_not_fit_beside_the_others_waits_until_one_has_ended(folder: RunFolder) -> None:
    server = LimitedServer(tokens=17 * TOKENS)
    state = batches_of(server, folder, fresh(60)).run()
    assert texts(folder, state) == expected(60)
    assert server.peak == 2  # two of eight lines fit
    assert {part.lines for part in state.parts} == {8, 0}  # the last row becomes no line
    failed = [batch for batch in server.made.values() if batch["status"] == "failed"]
    assert len(failed) <= len(state.parts)  # asked again only when one of ours has ended


def test_room_that_others_take_is_asked_for_again_after_a_long_pause(folder: RunFolder) -> None:
    server = LimitedServer(tokens=100, others=50)
    state = batches_of(server, folder, fresh(10)).run()
    assert texts(folder, state) == expected(10)
    assert limits.TABLE_ROOM_RETRY_S in server.pauses
    assert len(server.made) == 2


def test_a_row_that_alone_is_too_large_ends_the_run_with_its_number(folder: RunFolder) -> None:
    with pytest.raises(CommandError, match="row 1 alone"):
        batches_of(LimitedServer(tokens=TOKENS - 1), folder, fresh(10)).run()


def test_another_refusal_ends_the_run_in_the_server_s_words_and_may_be_tried_again(
    folder: RunFolder,
) -> None:
    server = LimitedServer()
    error = {"data": [{"code": "model_not_found", "message": "no such model"}]}
    made = server.create_batch

    def refuse(*how: Any, **more: Any) -> JsonObject:
        batch = made(*how, **more)
        return batch.update({"status": "failed", "errors": error}) or batch

    server.create_batch = refuse  # type: ignore[method-assign]
    with pytest.raises(CommandError, match="no such model"):
        batches_of(server, folder, fresh(10)).run()
    server.create_batch = made  # type: ignore[method-assign]
    kept = folder.load(TableState)
    assert kept is not None
    assert texts(folder, batches_of(server, folder, kept).run()) == expected(10)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("beats", range(6))
def test_a_run_that_is_stopped_at_any_moment_goes_on_without_running_a_row_twice(
    beats: int, folder: RunFolder
) -> None:
    server = LimitedServer(tokens=17 * TOKENS)

    def stop_after(pause_s: float) -> None:
        if len(server.pauses) == beats:
            raise Stopped
        server.beat(pause_s)

    with pytest.raises(Stopped):
        batches_of(server, folder, fresh(60), stop_after).run()
    kept = folder.load(TableState)
    assert kept is not None
    state = batches_of(server, folder, kept).run()
    assert texts(folder, state) == expected(60)
    ran = [b["input_file_id"] for b in server.made.values() if b["status"] == "completed"]
    ids = [custom_id for file_id in ran for custom_id in server.files[file_id]]
    assert sorted(ids) == sorted(set(ids))


def test_a_batch_that_was_made_and_not_recorded_is_found_again(folder: RunFolder) -> None:
    server = LimitedServer()
    batches_of(server, folder, fresh(8)).run()
    files = PartFiles(folder, 0)
    part = write_part(0, 8, PartBounds(8, 1 << 40), files)
    lost = fresh(8).with_part(Part(first=0, rows=8, lines=part.lines, file_id="file-0"))
    state = batches_of(server, folder, lost).run()
    assert len(server.made) == 1
    assert texts(folder, state) == expected(8)


def test_a_server_that_is_away_for_a_while_is_waited_for(folder: RunFolder) -> None:
    server = LimitedServer()
    answer, refusals = server.batch, [ServerRefused(503, "x", "away")] * 3

    def away(batch_id: str) -> JsonObject:
        if refusals:
            raise refusals.pop()
        return answer(batch_id)

    server.batch = away  # type: ignore[method-assign]
    state = batches_of(server, folder, fresh(8)).run()
    assert texts(folder, state) == expected(8)


def test_a_server_that_forgot_a_batch_ends_the_run_with_what_to_do(folder: RunFolder) -> None:
    server = LimitedServer()

    def forget(_batch_id: str) -> JsonObject:
        raise ServerRefused(404, "batch_not_found", "no such batch")

    server.batch = forget  # type: ignore[method-assign]
    with pytest.raises(CommandError, match="does not know the batch batch-0") as caught:
        batches_of(server, folder, fresh(8)).run()
    assert "--restart" in (caught.value.hint or "")


def test_a_server_that_is_away_while_a_batch_is_made_is_waited_for(folder: RunFolder) -> None:
    server = LimitedServer()
    made, refusals = server.create_batch, [ServerRefused(502, "x", "away")] * 3

    def away(*how: Any, **more: Any) -> JsonObject:
        if refusals:
            raise refusals.pop()
        return made(*how, **more)

    server.create_batch = away  # type: ignore[method-assign]
    state = batches_of(server, folder, fresh(8)).run()
    assert texts(folder, state) == expected(8)
    assert len(server.files) == 1  # the file was not sent again
