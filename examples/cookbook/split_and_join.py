"""Run a JSONL file that is larger than the server's limits: in parts, joined again in its order.

    python examples/cookbook/split_and_join.py requests.jsonl results.jsonl 5

The last argument is how many requests a part may have. All parts are submitted before the first
is awaited, so that the engines always have work. The result file has one line for each request,
failed ones too, in the order of the input. The server's address is LOWTIDE_SERVER, or
http://127.0.0.1:8000.
"""

import json
import os
import sys
from pathlib import Path

import lowtide

source, target, size = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
requests = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]

with lowtide.Client(os.environ.get("LOWTIDE_SERVER", "http://127.0.0.1:8000")) as client:
    parts = [
        client.submit(requests[first : first + size]) for first in range(0, len(requests), size)
    ]
    results = {}
    for number, part in enumerate(parts, 1):
        ended = client.wait(part, progress=False)
        print(f"part {number} of {len(parts)}: {ended.status}, {ended.completed} of {ended.total}")
        for error in ended.errors:  # the part was refused, and nothing of it ran
            raise SystemExit(f"line {error.line} of the part: {error.message}")
        results |= {result.custom_id: result for result in client.results(part)}

with target.open("w", encoding="utf-8") as file:
    for request in requests:
        result = results[request["custom_id"]]
        line = {"custom_id": result.custom_id, "text": result.text, "error": result.error}
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
