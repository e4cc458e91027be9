"""A table of a million rows through `lowtide run`, and the memory of every process of ours.

    make million-rows

Behind a target of its own because it takes minutes. A Parquet file goes in and one comes out; the
command is alone (submitter, server and dispatcher in one process) before an engine that answers at
once. Each row of the output is compared with its row of the input. Ends with 1 when the process
needed more than PEAK_MB_MAX.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from bench.backend import MODEL
from bench.processes import Server, backend

PEAK_MB_MAX: Final = 400.0
ROWS: Final = 1_000_000
BATCH: Final = 10_000
SAMPLE_EVERY_S: Final = 0.5
PROGRESS_EVERY_S: Final = 20.0
RUN_TIMEOUT_S: Final = 3_000.0
PROMPT: Final = "Is this review good or bad? {{ text }}"
TEXT: Final = "The harbour was quiet and the water cold, but we would come again. " * 3


def write_table(path: Path, rows: int) -> None:
    """Reviews of about 200 characters, with a number and a text of their own."""
    schema = pa.schema([("id", pa.string()), ("stars", pa.int64()), ("text", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, rows, BATCH):
            numbers = range(first, min(first + BATCH, rows))
            columns = [
                [f"{n:07}" for n in numbers],
                [n % 5 + 1 for n in numbers],
                [f"Review {n}. {TEXT}" for n in numbers],
            ]
            writer.write_table(pa.table(columns, schema=schema))


def check_output(source: Path, output: Path, rows: int) -> None:
    """The same rows in the same order with all columns, and an answer in each."""
    files = [pq.ParquetFile(path).iter_batches(BATCH) for path in (source, output)]
    before, after = ((row for batch in file for row in batch.to_pylist()) for file in files)
    count = 0
    for row, found in zip(before, after, strict=True):
        if not row.items() <= found.items() or not found["answer"] or found["_error"]:
            raise RuntimeError(f"row {count:,} of the output is {found}")
        count += 1
    if count != rows:
        raise RuntimeError(f"the output has {count:,} rows, not {rows:,}")


def run(source: Path, output: Path, engine: str) -> tuple[dict[str, Any], float]:
    """`lowtide run`; what it says at its end, and its largest resident set in MB."""
    words = ["run", str(source), "-o", str(output), "--prompt", PROMPT, "--json"]
    words += ["--url", engine, "--model", MODEL, "--window", "64", "--param", "max_tokens=64"]
    started = reported_at = time.monotonic()
    peak_mb = 0.0
    with subprocess.Popen(
        [sys.executable, "-m", "lowtide", *words], stdout=subprocess.PIPE
    ) as process:
        server = Server("", process.pid)
        try:
            while process.poll() is None:
                if time.monotonic() - started > RUN_TIMEOUT_S:
                    raise RuntimeError(f"it did not end within {RUN_TIMEOUT_S:.0f} s")
                peak_mb = max(peak_mb, _peak_of(server))
                if time.monotonic() - reported_at > PROGRESS_EVERY_S:
                    reported_at = time.monotonic()
                    tell(f"{reported_at - started:.0f} s: {peak_mb:.0f} MB")
                time.sleep(SAMPLE_EVERY_S)
        finally:
            process.kill()
        assert process.stdout is not None
        said = process.stdout.read()
    if process.returncode != 0:
        raise RuntimeError(f"lowtide run ended with {process.returncode}: {said!r}")
    answer: dict[str, Any] = json.loads(said)
    return answer, peak_mb


def _peak_of(server: Server) -> float:
    try:
        return server.peak_memory_mb()
    except (OSError, AssertionError):
        return 0.0  # it has ended since


def tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="lowtide-rows-", dir=arguments.folder) as folder,
        backend() as engine,
    ):
        source, output = Path(folder) / "reviews.parquet", Path(folder) / "out.parquet"
        write_table(source, arguments.rows)
        tell(f"{arguments.rows:,} rows, {source.stat().st_size / 1e6:.0f} MB")
        began = time.monotonic()
        answer, peak_mb = run(source, output, engine)
        took_s = time.monotonic() - began
        check_output(source, output, arguments.rows)
    print(
        f"{answer['rows']:,} rows as {len(answer['batches'])} batches in {took_s:.0f} s;"
        f" lowtide run at most {peak_mb:.0f} MB",
        flush=True,
    )
    return 0 if peak_mb < PEAK_MB_MAX else 1


if __name__ == "__main__":
    sys.exit(main())
