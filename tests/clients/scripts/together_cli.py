"""The command line of the Together SDK since 2.32, with batches."""

import json
import re
import subprocess
import sys
from pathlib import Path

from checks import SLOW_TEXTS, check, check_results, until, write_input


def together(*arguments: str) -> str:
    command = [str(Path(sys.executable).with_name("together")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    check(f"together {' '.join(arguments[:2])}: {said[-300:]!r}", done.returncode == 0)
    return done.stdout


def status_of(batch_id: str) -> str:
    return str(json.loads(together("batches", "retrieve", batch_id, "--json"))["status"])


write_input("batch.jsonl", together=True)
uploaded = together("files", "upload", "batch.jsonl", "--purpose", "batch-api", "--json")
file_id = json.loads(uploaded[uploaded.index("{") :])["id"]
check("files list has it", file_id in together("files", "list", "--json"))
together("files", "retrieve", file_id)
together("files", "retrieve-content", file_id, "--output", "back.jsonl")
check("the same bytes", Path("back.jsonl").read_bytes() == Path("batch.jsonl").read_bytes())

submitted = together("batches", "submit", "batch.jsonl", "chat.completions", "--json")
found = re.search(r"batch_[0-9a-z]+|[0-9a-f]{8}-[0-9a-f-]{27}", submitted)
check(f"the batch's id is told: {submitted[:200]!r}", found)
assert found
batch_id = found[0]
until(lambda: status_of(batch_id), lambda status: status == "COMPLETED")
check("the list has it", batch_id in together("batches", "list", "--json"))
together("batches", "retrieve", batch_id)
together("batches", "download", batch_id, "--output", "results.jsonl")
check_results(Path("results.jsonl").read_bytes(), Path("results.errors.jsonl").read_bytes())

write_input("slow.jsonl", SLOW_TEXTS, together=True)
slow = together("files", "upload", "slow.jsonl", "--purpose", "batch-api", "--json")
slow_id = json.loads(slow[slow.index("{") :])["id"]
found = re.search(r"batch_[0-9a-z]+", together("batches", "submit", slow_id, "chat.completions", "--json"))  # fmt: skip # noqa: E501
assert found
until(lambda: status_of(found[0]), lambda status: status == "IN_PROGRESS")
together("batches", "cancel", found[0])
until(lambda: status_of(found[0]), lambda status: status == "CANCELLED")
check("cancelled by the command line", True)
check("deleted", "true" in together("files", "delete", file_id, "--json").lower())
