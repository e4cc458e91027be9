"""A script that was written for OpenAI's hosted Batch API, unchanged but for what is said below.

    OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=none \
        python examples/cookbook/from_openai.py

Client, calls, file and model name are those of the hosted service: the address comes from the
environment, and the server knows the model by its hosted name (an alias in lowtide.toml). New are
the window of six hours, which the hosted service does not have, and the reading while it runs.
"""

import json
import time

from openai import OpenAI

REVIEWS = ("I love this lamp.", "It broke after one day.", "Good value, and it arrived early.")

client = OpenAI()

lines = [
    {
        "custom_id": f"review-{number}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": "gpt-4o-mini",
            "messages": [{"role": "user", "content": f"Answer yes or no: is this good? {review}"}],
            "max_tokens": 4,
            "temperature": 0,
        },
    }
    for number, review in enumerate(REVIEWS, 1)
]
content = "\n".join(json.dumps(line) for line in lines).encode()

uploaded = client.files.create(file=("reviews.jsonl", content), purpose="batch")
batch = client.batches.create(
    input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="6h"
)
while batch.status not in ("completed", "failed", "expired", "cancelled"):
    time.sleep(1)
    batch = client.batches.retrieve(batch.id)
if batch.output_file_id is None:
    raise SystemExit(f"{batch.status}: {batch.errors}")

for result in map(json.loads, client.files.content(batch.output_file_id).text.splitlines()):
    body = result["response"]["body"]
    print(result["custom_id"], body["model"], body["usage"]["total_tokens"], "tokens")
hours = (batch.expires_at - batch.created_at) / 3600
print(f"{batch.status} within its window of {hours:.0f} hours, for {batch.cost['amount']} dollars")
