"""The command line of the Together SDK before 2.0: files only."""

import json
import subprocess
import sys
from pathlib import Path

from checks import check, write_input


def together(*arguments: str) -> str:
    command = [str(Path(sys.executable).with_name("together")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    check(f"together {' '.join(arguments[:2])}: {done.stderr[-500:]}", done.returncode == 0)
    return done.stdout


write_input("batch.jsonl", together=True)
uploaded = together("files", "upload", "batch.jsonl", "--purpose", "batch-api")
file_id = json.loads(uploaded[uploaded.index("{") :])["id"]
check("list", file_id in together("files", "list"))
check("retrieve", file_id in together("files", "retrieve", file_id))
together("files", "retrieve-content", file_id, "--output", "back.jsonl")
check("the same bytes", Path("back.jsonl").read_bytes() == Path("batch.jsonl").read_bytes())
check("delete", "true" in together("files", "delete", file_id).lower())
