"""Bespoke Curator in batch mode: it uploads, waits, polls and downloads by itself.

Without `delete_successful_batch_files`, which in this version fails before it asks for anything
(`GenericBatch` has no `input_file_id`).
"""

import os

os.environ["CURATOR_CACHE_DIR"] = os.path.abspath("cache")  # noqa: PTH100

import openai
from bespokelabs import curator
from checks import check

TEXTS = [f"question {n} with \u2028 and é" for n in range(7)]


class Ask(curator.LLM):
    """Each text as a prompt; the answer beside it."""

    def prompt(self, row: dict[str, str]) -> str:
        return row["text"]

    def parse(self, row: dict[str, str], response: str) -> dict[str, str]:
        return {"text": row["text"], "answer": response}


llm = Ask(
    model_name="gpt-4o-mini", batch=True, backend="openai",
    backend_params={
        "base_url": os.environ["OPENAI_BASE_URL"], "api_key": "key", "batch_size": 3,
        "batch_check_interval": 1, "require_all_responses": True, "max_retries": 1,
    },
)  # fmt: skip
answered = llm([{"text": text} for text in TEXTS])
rows = list(getattr(answered, "dataset", answered))
check("a row for each text", len(rows) == len(TEXTS))
answers = {row["text"]: row["answer"] for row in rows}
check("each has its own answer", answers == {text: f"echo: {text}" for text in TEXTS})

with openai.OpenAI() as client:
    ours = [b for b in client.batches.list() if "request_file" in (b.metadata or {})]
    sizes = sorted(batch.request_counts.total for batch in ours)
    check("three batches of at most three", sizes == [1, 3, 3])
