"""A batch from upload to results with Together's client: the steps of the launch announcement.

    python examples/cookbook/launch_together.py

The server's address is LOWTIDE_SERVER, or http://127.0.0.1:8000.
"""

import json
import os
import time
from pathlib import Path

from together import Together

HERE = Path(__file__).parent
POLL_S = 1  # for a batch of hours, 30 to 60 seconds are enough

client = Together(
    base_url=os.environ.get("LOWTIDE_SERVER", "http://127.0.0.1:8000"),
    api_key=os.environ.get("LOWTIDE_API_KEY", "none"),
)

# 1. Upload the file.
uploaded = client.files.upload(file=HERE / "launch_together.jsonl", purpose="batch-api")

# 2. Create the job.
batch = client.batches.create(input_file_id=uploaded.id, endpoint="/v1/chat/completions").job

# 3. Wait for its end.
while batch.status not in ("COMPLETED", "FAILED", "EXPIRED", "CANCELLED"):
    time.sleep(POLL_S)
    batch = client.batches.retrieve(batch.id)
print(f"{batch.status}, {batch.progress:.0f} %")
if batch.status == "FAILED":  # some lines are wrong: nothing ran, and nothing is charged
    raise SystemExit(batch.error)

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
        print(f"{failed['custom_id']} failed: {failed['error']['message']}")
