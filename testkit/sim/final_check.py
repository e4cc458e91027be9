"""The final check of a run: every line once, every answer said by an engine, all paid for.

Looks at what lasts (rows, blobs) and at what clients saw, never into a process. Called when all
batches have ended, and again when the sweeper has had its time.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from lowtide.core.accounts.money import ModelPrices
from lowtide.core.batches.batch import TERMINAL, error_file_id, output_file_id
from lowtide.core.batches.result_index import SUFFIX
from lowtide.core.usage import Usage
from testkit.sim.client import Intention, fields_of
from testkit.sim.evidence import Evidence
from testkit.sim.invariants import InvariantCheck, Violation
from testkit.sim.memory_blobs import BlobDisk


class FinalCheck:
    """Checks one database and one disk at the end of a run."""

    def __init__(
        self,
        path: str,
        disk: BlobDisk,
        answers: Mapping[str, list[Any]],
        prices: Mapping[str, ModelPrices],
        evidence: Evidence,
        watch: InvariantCheck,
    ) -> None:
        self._watch = watch
        self._evidence = evidence
        self._path = path
        self._disk = disk
        self._answers = answers
        self._prices = prices

    def settle(self, intentions: Sequence[Intention]) -> None:
        """Checks the world when all batches have ended and nothing was swept yet.
        Raises Violation.
        """
        rows = {row["id"]: row for row in self._rows("SELECT * FROM batches")}
        for intention in intentions:
            assert intention.batch is not None
            self._settle_one(intention, rows.pop(intention.batch.id))
            for retry in intention.retries:
                self._settle_retry(intention, rows.pop(retry.id))
            self._tree_agrees(intention)
            for batch_id in self._earlier(intention, intention.batch.id, rows):
                del rows[batch_id]
        require(not rows, f"{len(rows)} batches are there that nobody wanted: {sorted(rows)}")
        left = self._rows("SELECT * FROM chunks WHERE state IN ('waiting', 'paused', 'leased')")
        require(not left, f"chunks are left: {[tuple(row) for row in left]}")
        tasks = self._rows("SELECT id FROM batches WHERE task_expires_at IS NOT NULL")
        require(not tasks, f"tasks are leased: {[tuple(row) for row in tasks]}")
        (enqueued,) = self._rows(
            "SELECT coalesce(sum(planned_tokens - settled_tokens), 0) FROM batch_models"
        )[0]
        require(enqueued == 0, f"{enqueued} tokens are still enqueued")

    def _earlier(
        self, intention: Intention, batch_id: str, rows: Mapping[str, sqlite3.Row]
    ) -> list[str]:
        """Batches of the same intention that were over when it was repeated: so it was another
        one."""
        begun_s, ended_s = self._watch.begun_at_s[batch_id], self._watch.ended_at_s
        return [
            row["id"]
            for row in rows.values()
            if json.loads(row["metadata"]).get("intention") == str(intention.number)
            and ended_s.get(row["id"], float("inf")) <= begun_s
        ]

    def swept(self) -> None:
        """Checks, an hour after the sweeper began, that blobs and rows name each
        other one to one.
        """
        named = {row[0] for row in self._rows("SELECT blob_key FROM files WHERE blob_key <> ''")}
        indexes = {f"{key}{SUFFIX}" for key in named}  # each beside its file, which names it
        there = set(self._disk.blobs) - indexes
        require(named == there, f"orphans {there - named}, missing {named - there}")
        require(not self._disk.staged, "writers left bytes behind")
        for table in ("slices", "chunks", "garbage"):
            rows = self._rows(f"SELECT * FROM {table}")
            require(not rows, f"{table} has {len(rows)} rows left")

    def emptied(self) -> None:
        """Checks that no blob is left once every file is past its life."""
        require(not self._disk.blobs, f"blobs are kept for ever: {sorted(self._disk.blobs)}")

    def _settle_deleted(self, intention: Intention, row: sqlite3.Row) -> None:
        """Checks that a deleted batch left its bill, and nothing that it was told or said."""
        batch_id = row["id"]
        output = intention.deleted[batch_id]
        require(row["deleted_at"] is not None, f"{batch_id} was deleted, and is there")
        require(row["metadata"] == "{}", f"{batch_id} was deleted, and has {row['metadata']}")
        results = (output_file_id(batch_id), error_file_id(batch_id))
        left = self._rows(
            "SELECT id FROM files WHERE id IN (?, ?) AND deleted_at IS NULL", *results
        )
        require(not left, f"{batch_id} was deleted, and has {[tuple(each) for each in left]}")
        self._each_answer_was_said(intention, batch_id, output)
        self._charges_match(intention, row, output)

    def _settle_one(self, intention: Intention, row: sqlite3.Row) -> None:
        status, batch_id = row["status"], row["id"]
        require(status in TERMINAL, f"{batch_id} is {status}")
        if batch_id in intention.deleted:
            self._settle_deleted(intention, row)
            return
        require(
            status in _possible(intention), f"{batch_id} is {status}; it was {_possible(intention)}"
        )
        output = self._lines(output_file_id(batch_id))
        errors = self._lines(error_file_id(batch_id))
        counts = (row["total"], row["completed"], row["failed"])
        sizes = (len(output) + len(errors), len(output), len(errors))
        require(counts == sizes, f"{batch_id}: counts {counts}, lines {sizes}")
        if row["total"]:
            self._each_line_once(intention, batch_id, output, errors)
        else:
            require(status != "completed", f"{batch_id} completed without a request")
        self._each_answer_was_said(intention, batch_id, output)
        self._nothing_burnt(intention, batch_id, errors)
        self._charges_match(intention, row, output)
        if intention.reads:
            self._read_as_stored(intention, output_file_id(batch_id), output)
            self._read_as_stored(intention, error_file_id(batch_id), errors)

    def _settle_retry(self, intention: Intention, row: sqlite3.Row) -> None:
        """Checks a retry as any batch, but over some of the lines."""
        batch_id = row["id"]
        require(row["status"] in TERMINAL, f"{batch_id} is {row['status']}")
        if batch_id in intention.deleted:
            self._settle_deleted(intention, row)
            return
        output = self._lines(output_file_id(batch_id))
        errors = self._lines(error_file_id(batch_id))
        counts = (row["total"], row["completed"], row["failed"])
        sizes = (len(output) + len(errors), len(output), len(errors))
        require(counts == sizes, f"{batch_id}: counts {counts}, lines {sizes}")
        self._each_answer_was_said(intention, batch_id, output)
        self._charges_match(intention, row, output)

    def _tree_agrees(self, intention: Intention) -> None:
        """Checks that over a batch and its retries each line succeeds once at most, and that the
        joined results have every success that there is."""
        assert intention.batch is not None
        tree = [intention.batch.id, *(retry.id for retry in intention.retries)]
        succeeded = Counter(
            fields_of(line)["custom_id"]
            for batch_id in tree
            for line in self._output(intention, batch_id)
        )
        twice = [custom_id for custom_id, count in succeeded.items() if count > 1]
        require(not twice, f"{tree}: succeeded, and were charged, more than once: {twice}")
        if intention.joined is not None:
            require(intention.joined == set(succeeded), f"{tree}: joined {intention.joined}")

    def _read_as_stored(self, intention: Intention, file_id: str, lines: list[bytes]) -> None:
        """Checks that each reader by offset saw each line once, in any order."""
        read = Counter(intention.read.get(file_id, []))
        require(read == Counter(lines), f"{file_id}: read along {read}, stored {lines}")

    def _each_line_once(
        self, intention: Intention, batch_id: str, output: list[bytes], errors: list[bytes]
    ) -> None:
        order = {custom_id: place for place, custom_id in enumerate(intention.prompts)}
        ids = [[fields_of(line)["custom_id"] for line in lines] for lines in (output, errors)]
        for found in ids:
            places = [order[custom_id] for custom_id in found]
            require(places == sorted(places), f"{batch_id}: out of order: {found}")
        account = Counter(ids[0] + ids[1])
        lost, doubled = set(order) - set(account), [i for i, n in account.items() if n > 1]
        require(not lost and not doubled, f"{batch_id}: lost {lost}, doubled {doubled}")

    def _each_answer_was_said(
        self, intention: Intention, batch_id: str, output: list[bytes]
    ) -> None:
        for line in output:
            fields = fields_of(line)
            said = self._answers.get(intention.prompts[fields["custom_id"]], [])
            body = fields["response"]["body"]
            require(body in said, f"{batch_id}: no engine said {line!r}")

    def _nothing_burnt(self, intention: Intention, batch_id: str, errors: list[bytes]) -> None:
        """Checks that every line in the error file was at fault itself."""
        ended = []
        for line in errors:
            fields = fields_of(line)
            error: dict[str, Any] = fields["error"] or {"code": fields["response"]["status_code"]}
            ended.append((intention.prompts[fields["custom_id"]], str(error["code"])))
        burnt = self._evidence.burnt(ended)
        require(not burnt, f"{batch_id}: burnt {len(burnt)} lines, as {burnt[:5]}")

    def _charges_match(self, intention: Intention, row: sqlite3.Row, output: list[bytes]) -> None:
        total, charge = Usage(), 0
        for line in output:
            fields = fields_of(line)
            said = fields["response"]["body"]["usage"]
            usage = Usage(
                said["prompt_tokens"],
                said["prompt_tokens_details"]["cached_tokens"],
                said["completion_tokens"],
            )
            total += usage
            charge += self._prices[intention.models[fields["custom_id"]]].batch.charge(usage)
        counted = Usage(row["input_tokens"], row["cached_tokens"], row["output_tokens"])
        require(counted == total, f"{row['id']}: usage {counted}, in the output {total}")
        (charged,) = self._rows(
            "SELECT coalesce(sum(charge_pico), 0) FROM ledger WHERE batch_id = ?", row["id"]
        )[0]
        require(charged == charge, f"{row['id']}: charged {charged}, the output costs {charge}")

    def _output(self, intention: Intention, batch_id: str) -> list[bytes]:
        """The lines of its output, or those that it had before it was deleted."""
        if batch_id in intention.deleted:
            return intention.deleted[batch_id]
        return self._lines(output_file_id(batch_id))

    def _lines(self, file_id: str) -> list[bytes]:
        found = self._rows("SELECT * FROM files WHERE id = ?", file_id)
        if not found:
            return []
        (file,) = found
        require(file["status"] == "uploaded", f"{file_id} is {file['status']}")
        data = self._disk.get(file["blob_key"])
        lines = data.splitlines(keepends=True)
        require((len(data), len(lines)) == (file["bytes"], file["lines"]), f"{file_id}: sizes")
        return lines

    def _rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with sqlite3.connect(self._path, isolation_level=None) as db:
            db.row_factory = sqlite3.Row
            rows = db.execute(query, values).fetchall()
        db.close()
        return rows


def require(fact: bool, otherwise: str) -> None:
    if not fact:
        raise Violation(otherwise)


def _possible(intention: Intention) -> set[str]:
    """How this batch may have ended."""
    ends = {"completed"} if intention.valid else {"failed"}
    if intention.asked_to_cancel:
        ends.add("cancelled")
    if intention.window != "24h":
        ends.add("expired")
    return ends
