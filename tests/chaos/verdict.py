"""Whether the account of a round adds up: every line once, every count, every pico-dollar."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from client import Job, Json
from engine import FAILS, usage_of
from installations import PRICES, Env

from lowtide.core.usage import Usage


@dataclass(slots=True)
class Verdict:
    """What is wrong, in words; nothing when the round was good."""

    lines: int = 0
    lost: int = 0
    doubled: int = 0
    failed: int = 0
    """Lines that ended in the error file."""
    wrong: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    """What was right, and took too long or cost too much."""

    @property
    def good(self) -> bool:
        return not self.wrong and not self.late

    def must(self, holds: bool, words: str) -> None:
        if not holds:
            self.wrong.append(words)


async def judge(env: Env, jobs: Sequence[Job]) -> Verdict:
    """Of jobs that have all ended, in a node where nothing else runs."""
    verdict = Verdict()
    for job in jobs:
        _judge_lines(verdict, job)
        await _judge_ledger(verdict, env, job)
    await _judge_rest(verdict, env)
    return verdict


def _judge_lines(verdict: Verdict, job: Job) -> None:
    size = len(job.texts)
    places = [_place(line) for line in job.output] + [_place(line) for line in job.errors]
    seen = Counter(places)
    lost = size - len(seen.keys() & set(range(1, size + 1)))
    doubled = sum(count - 1 for count in seen.values())
    verdict.lines += size
    verdict.lost += lost
    verdict.doubled += doubled
    verdict.failed += len(job.errors)
    verdict.must(not lost and not doubled, f"{job.name}: {lost} lost, {doubled} doubled")
    verdict.must(job.batch["status"] == "completed", f"{job.name} is {job.batch['status']}")
    counts = {"total": size, "completed": len(job.output), "failed": len(job.errors)}
    verdict.must(job.batch["request_counts"] == counts, f"{job.name}: {job.batch}, not {counts}")
    burnt = [line for line in job.errors if not job.texts[_place(line) - 1].endswith(FAILS)]
    verdict.must(not burnt, f"{job.name}: {len(burnt)} good lines ended as errors: {burnt[:2]}")
    for file in (job.output, job.errors):
        in_file = [_place(line) for line in file]
        verdict.must(in_file == sorted(in_file), f"{job.name} is not in input order")
    for line in job.output:
        text = job.texts[_place(line) - 1]
        body = line["response"]["body"]
        said = body["choices"][0]["message"]["content"]
        verdict.must(
            said == f"re: {text}" and body["usage"] == usage_of(text),
            f"{job.name}: {text!r} was answered {said!r}",
        )


async def _judge_ledger(verdict: Verdict, env: Env, job: Job) -> None:
    entries = await env.query(
        "SELECT requests, input_tokens, cached_tokens, output_tokens, charge_pico FROM ledger"
        f" WHERE batch_id = '{job.batch['id']}'"
    )
    charged, requests = sum(int(entry[4]) for entry in entries), sum(int(e[0]) for e in entries)
    owed = price_of(job.output)
    verdict.must(requests == len(job.output), f"{job.name}: the ledger has {requests} requests")
    verdict.must(charged == owed, f"{job.name}: charged {charged}, owed {owed} pico-dollars")


async def _judge_rest(verdict: Verdict, env: Env) -> None:
    """Nothing is left over, and there are as many batches as were asked for."""
    for words, statement in (
        ("chunks left", "SELECT count(*) FROM chunks WHERE state IN ('waiting','paused','leased')"),
        (
            "tokens enqueued",
            "SELECT count(*) FROM batch_models JOIN batches ON id = batch_id"
            " WHERE status = 'in_progress' AND settled_tokens < planned_tokens",
        ),
        (
            "models not settled",
            "SELECT count(*) FROM batch_models WHERE completed + failed <> requests",
        ),
    ):
        count = int((await env.query(statement))[0][0])
        verdict.must(count == 0, f"{count} {words}")
    made = int((await env.query("SELECT count(*) FROM batches"))[0][0])
    verdict.must(made == env.batches, f"{made} batches where {env.batches} were asked for")


def price_of(output: Iterable[Json]) -> int:
    """Pico-dollars of what the output file says was used, at the batch price."""
    used = [line["response"]["body"]["usage"] for line in output]
    return sum(
        PRICES.batch.charge(
            Usage(
                input_tokens=use["prompt_tokens"],
                cached_tokens=use["prompt_tokens_details"]["cached_tokens"],
                output_tokens=use["completion_tokens"],
            )
        )
        for use in used
    )


def _place(line: Json) -> int:
    return int(line["custom_id"].rpartition("-")[2])
