"""curl, as the vendors' pages show it: forms for files, JSON for batches."""

import json
import subprocess
from pathlib import Path
from typing import Any

from checks import ADDRESS, CHAT, check, check_results, until, write_input


def curl(path: str, *arguments: str) -> bytes:
    command = ["curl", "--silent", "--show-error", "--fail-with-body", "--location"]
    command += ["--max-time", "60", *arguments]
    command += ["-H", "Authorization: Bearer key", f"{ADDRESS}{path}"]
    done = subprocess.run(command, capture_output=True, check=False)
    said = (done.stderr + done.stdout[-300:]).decode(errors="replace")
    check(f"curl {path.split('?')[0]} {'' if done.returncode == 0 else said}", done.returncode == 0)
    return done.stdout


def post(path: str, body: dict[str, str]) -> Any:
    return json.loads(curl(path, "-H", "Content-Type: application/json", "-d", json.dumps(body)))


def life(base: str, purpose: str, *, together: bool) -> None:
    write_input("batch.jsonl", together=together)
    form = ["-F", f"purpose={purpose}", "-F", "file=@batch.jsonl"]
    file = json.loads(curl(f"{base}/files", *form))
    check(f"purpose {purpose} is kept", file["purpose"] == purpose)
    made = post(f"{base}/batches", {
        "input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h",
    })  # fmt: skip
    batch_id = (made["job"] if together else made)["id"]
    done = until(
        lambda: json.loads(curl(f"{base}/batches/{batch_id}")),
        lambda seen: seen["status"] in ("COMPLETED" if together else "completed", "FAILED"),
    )
    check_results(
        curl(f"{base}/files/{done['output_file_id']}/content"),
        curl(f"{base}/files/{done['error_file_id']}/content"),
    )


def large() -> None:
    """Above 1 MiB curl waits to be told to go on (`Expect: 100-continue`)."""
    write_input("large.jsonl", tuple(f"{'long ' * 100}{n}" for n in range(4000)))
    curl_file = json.loads(curl("/v1/files", "-F", "purpose=batch", "-F", "file=@large.jsonl"))
    check("a large file arrives whole", curl_file["bytes"] == Path("large.jsonl").stat().st_size)
    back = curl(f"/v1/files/{curl_file['id']}/content")
    check("and comes back the same", back == Path("large.jsonl").read_bytes())
    part = curl(f"/v1/files/{curl_file['id']}/content", "--range", "10-19")
    check("or a part of it", part == back[10:20])


life("/v1", "batch-api", together=True)
life("/v1", "batch", together=False)
life("/together/v1", "batch-api", together=True)
life("/openai/v1", "batch", together=False)
large()
