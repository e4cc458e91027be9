"""Write a file of equal requests, to try what happens to a long run.

python examples/cookbook/many_requests.py 60 many.jsonl slow-model
"""

import json
import sys
from pathlib import Path

count, target, model = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
with target.open("w", encoding="utf-8") as lines:
    for number in range(1, count + 1):
        messages = [{"role": "user", "content": f"Write about the number {number}."}]
        body = {"model": model, "messages": messages, "max_tokens": 100}
        lines.write(json.dumps({"custom_id": f"r{number}", "body": body}) + "\n")
