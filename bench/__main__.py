"""`make bench`: every benchmark, one after another, and a report in Markdown.

    python -m bench [--write]

Each figure stands beside a yardstick from the same run: this machine's cores are shared and
noisy, so ratios mean more than absolute figures. `--write` puts the report into bench/RESULTS.md,
beside what was written there by hand (sections.py).
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bench.scheduling_tables import scheduling_tables
from bench.sections import merged

RESULTS: Final = Path(__file__).with_name("RESULTS.md")
BENCHES: Final = (
    "bench_http_client", "bench_validate", "bench_end_to_end", "bench_live_calls",
    "bench_engine_sim", "bench_claims", "bench_deadlines", "bench_eta", "bench_scale",
)  # fmt: skip


def run(name: str) -> dict[str, Any]:
    """Run one benchmark in a process of its own; the JSON of its last line."""
    print(f"-- {name}", file=sys.stderr)
    command = [sys.executable, "-m", f"bench.{name}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def report(
    client: dict[str, Any],
    validate: dict[str, Any],
    whole: dict[str, Any],
    live: dict[str, Any],
    engine: dict[str, Any],
    *scheduling: dict[str, Any],
) -> str:
    lines = [
        "# Benchmarks",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, `make bench`, {os.cpu_count()} cores, "
        f"{platform.system()} {platform.machine()}, Python {platform.python_version()}.",
        "Server, backend and client share these cores, and the cores are shared with others: "
        "read the ratios.",
        "",
        "## End to end",
        "",
        "From `POST /batches` to the finished output file: API, validation, dispatch, durable "
        "results (fsynced segments, SQLite with `synchronous=FULL`), assembly. Every output is "
        "checked: each request once, in input order. The bare loop is the same HTTP client, same "
        "concurrency (64), same backend, in the same run, keeping nothing.",
        "",
        "| requests | backend | seconds | requests/s | bare loop | ratio | peak memory | idle |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['requests']:,} | instant | {r['seconds']:.2f} | {r['requests_per_s']:,} | "
        f"{r['bare_loop_per_s']:,} | {r['ratio']:.2f} | {r['peak_memory_mb']:.0f} MB | "
        f"{r['idle_memory_mb']:.0f} MB |"
        for r in whole["instant"]
    ]
    slow = whole["delayed"]
    lines += [
        "",
        f"With a backend that takes {slow['delay_ms']:.0f} ms and window 64: "
        f"{slow['requests']:,} requests in {slow['seconds']:.2f} s, "
        f"{slow['requests_per_s']:,} requests/s, **{slow['share_of_ideal']:.1%}** of the ideal "
        f"{slow['ideal_per_s']:,.0f}/s; the bare loop reaches {slow['bare_share']:.1%}.",
        "",
        "## Validation",
        "",
        "50,000 lines in 100 MB, validated and planned, against a bare msgspec parse of each line "
        "plus the SHA-256 of the same bytes in the same process. Median of the rounds.",
        "",
        "| text | validate | yardstick | ratio | MB/s |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {text} | {f['validate_s']:.3f} s | {f['yardstick_s']:.3f} s | {f['ratio']:.2f} | "
        f"{f['validate_mb_per_s']:,.0f} |"
        for text, f in validate["results"].items()
    ]
    lines += [
        "",
        "## Engine client alone",
        "",
        f"{client['requests_per_s']:,} requests/s, {client['requests_per_cpu_s']:,} per CPU-second "
        f"({client['loop']}, concurrency {client['concurrency']}).",
        "",
    ]
    lines += live_table(live)
    lines += engine_table(engine)
    lines += scheduling_tables(*scheduling)
    return "\n".join(lines)


def live_table(live: dict[str, Any]) -> list[str]:
    """What Lowtide adds to a call, as a table."""
    return [
        "## The live API",
        "",
        f"{live['rate_per_s']:.0f} calls a second through Lowtide, in turn with as many straight "
        "to the instant backend (open loop, Poisson arrivals); a stream is timed to its first "
        f"event. Medians of {live['rounds']} rounds. The best round is the one that other work on "
        "these cores disturbed least.",
        "",
        "| call | percentile | direct | through Lowtide | added | best round | worst round |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {kind} | {name} | {f['direct_ms']:.2f} ms | {f['through_ms']:.2f} ms | "
            f"**{f['added_ms']:.2f} ms** | {f['best_ms']:.2f} ms | {f['worst_ms']:.2f} ms |"
            for kind in ("whole", "stream")
            for name, f in live[kind].items()
        ),
        "",
    ]


def engine_table(engine: dict[str, Any]) -> list[str]:
    """The simulated engine beside published throughput of a real one, as a table."""
    speed = engine["speed"]
    return [
        "## The simulated engine",
        "",
        "Output tokens a second at points that were published for TensorRT-LLM on H100, beside the "
        "best of four windows. "
        f"{speed['requests']:,} chats with {speed['output_tokens']:,} generated tokens are "
        f"{speed['virtual_s']:.0f} s on one H100 and were simulated in {speed['wall_s']:.1f} s.",
        "",
        "| profile | prompt/output | published | simulated | ratio |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {p['prompt']}/{p['output']} | {p['published']:,} | {p['simulated']:,} | "
            f"{p['ratio']:.2f} |"
            for name, profile in engine["profiles"].items()
            for p in profile["points"]
        ),
        "",
        *(
            f"{name}: {p['least']:.2f} to {p['greatest']:.2f}, geometric mean {p['geo_mean']:.2f}."
            for name, p in engine["profiles"].items()
        ),
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help="put the report into RESULTS.md")
    write = parser.parse_args().write
    text = report(*(run(name) for name in BENCHES))
    print(text)
    if write:
        RESULTS.write_text(merged(RESULTS.read_text(), text))


if __name__ == "__main__":
    main()
