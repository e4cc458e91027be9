"""The same lines to the same server by Ray Data's HTTP processor, or by LiteLLM's batch_completion.

    python bench/vllm_race/peers.py ray URL IN.jsonl OUT.jsonl

Run by __main__.py with the Python of an environment of its own. Each is used as its own pages show,
with enough calls at once to fill the engine's seats. Writes lines as Lowtide does, and prints the
seconds to its start and those of the work, as JSON.
"""

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

AT_ONCE: Final = 32
"""Calls at once: the engine's seats."""
RAY_WORKERS: Final = 8
"""Ray's worker sends one call of a batch after the other, so calls at once need as many processes.
32 of them took 9.5 GB and most of the time on two cores."""
Line = Mapping[str, Any]
Answer = tuple[str, Any]


def by_ray(url: str, lines: Sequence[Line]) -> tuple[float, Iterable[Answer]]:
    """Ray Data, with a pool of processes."""
    os.environ["RAY_AUTH_MODE"] = "disabled"  # else it leaves a token that changes every later Ray
    import ray  # type: ignore[import-not-found]
    from ray.data.llm import (  # type: ignore[import-not-found]
        HttpRequestProcessorConfig,
        build_processor,
    )

    ray.init(num_cpus=RAY_WORKERS + 4, include_dashboard=False, log_to_driver=False)
    config = HttpRequestProcessorConfig(
        url=f"{url}/chat/completions", concurrency=RAY_WORKERS, batch_size=1
    )
    processor = build_processor(
        config,
        preprocess=lambda row: {"payload": json.loads(row["body"]), "custom_id": row["custom_id"]},
        postprocess=lambda row: {
            "custom_id": row["custom_id"],
            "answer": json.dumps(row["http_response"], default=str),
        },
    )
    rows = [{"custom_id": each["custom_id"], "body": json.dumps(each["body"])} for each in lines]
    began_s = time.monotonic()
    done = processor(ray.data.from_items(rows)).take_all()
    return began_s, [(row["custom_id"], json.loads(row["answer"])) for row in done]


def by_litellm(url: str, lines: Sequence[Line]) -> tuple[float, Iterable[Answer]]:
    """LiteLLM: a pool of threads."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # nothing is fetched
    import litellm  # type: ignore[import-not-found]

    body = lines[0]["body"]
    began_s = time.monotonic()
    answers = litellm.batch_completion(
        model=f"hosted_vllm/{body['model']}",
        messages=[each["body"]["messages"] for each in lines],
        api_base=url,
        api_key="none",
        max_tokens=body["max_tokens"],
        temperature=body["temperature"],
        max_workers=AT_ONCE,
        extra_body={"ignore_eos": body["ignore_eos"]},
    )
    ids = [each["custom_id"] for each in lines]
    return began_s, [(name, answer.model_dump()) for name, answer in zip(ids, answers, strict=True)]


def main() -> None:
    name, url, source, output = sys.argv[1:]
    started_s = time.monotonic()
    lines = [json.loads(raw) for raw in Path(source).read_bytes().splitlines()]
    began_s, answers = {"ray": by_ray, "litellm": by_litellm}[name](url, lines)
    with Path(output).open("w") as out:
        for custom_id, body in answers:
            out.write(json.dumps({"custom_id": custom_id, "response": {"body": body}}) + "\n")
    times = {"ready_s": began_s - started_s, "seconds": time.monotonic() - began_s}
    print(json.dumps(times))


if __name__ == "__main__":
    main()
