"""A batch from upload to results with OpenAI's client.

    python examples/cookbook/launch_openai.py

The server's address is LOWTIDE_SERVER, or http://127.0.0.1:8000.
"""

import json
import os
import time
from pathlib import Path

from openai import OpenAI

HERE = Path(__file__).parent
POLL_S = 1  # for a batch of hours, 30 to 60 seconds are enough

client = OpenAI(
    base_url=os.environ.get("LOWTIDE_SERVER", "http://127.0.0.1:8000") + "/v1",
    api_key=os.environ.get("LOWTIDE_API_KEY", "none"),
)

# 1. Upload the file. Each line also names its method and its endpoint.
with (HERE / "launch_openai.jsonl").open("rb") as lines:
    uploaded = client.files.create(file=lines, purpose="batch")

# 2. Create the job.
batch = client.batches.create(
    input_file_id=uploaded.id,
    endpoint="/v1/chat/completions",
    completion_window="24h",
    metadata={"recipe": "launch"},
)

# 3. Wait for its end.
while batch.status not in ("completed", "failed", "expired", "cancelled"):
    time.sleep(POLL_S)
    batch = client.batches.retrieve(batch.id)
counts = batch.request_counts
print(f"{batch.status}: {counts.completed} of {counts.total} succeeded, {counts.failed} failed")
if batch.status == "failed":  # some lines are wrong: nothing ran, and nothing is charged
    raise SystemExit(
        "\n".join(f"line {error.line}: {error.message}" for error in batch.errors.data)
    )

# 4. Read the results: one line for each request that succeeded, in the order of the input.
if batch.output_file_id:
    for line in client.files.content(batch.output_file_id).iter_lines():
        result = json.loads(line)
        answer = result["response"]["body"]["choices"][0]["message"]["content"]
        print(f"{result['custom_id']}: {' '.join(answer.split())}")

# 5. Read the error file: one line for each request that failed, with the reason.
if batch.error_file_id:
    for line in client.files.content(batch.error_file_id).iter_lines():
        failed = json.loads(line)
        # The engine's own error, or why the request never ran.
        error = failed["error"] or failed["response"]["body"]["error"]
        print(f"{failed['custom_id']} failed: {error['message']}")
