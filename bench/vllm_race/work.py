"""The three kinds of work, as files of lines, and what an output says of them.

Used by __main__.py. All words are of the model's vocabulary, one token each, and each answer has
just so many tokens, so that every contestant computes the same.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

CHAT: Final = "/v1/chat/completions"
MODEL: Final = "race"


@dataclass(frozen=True)
class Work:
    """One kind. `tokens`: of each answer."""

    name: str
    what: str
    tokens: int
    documents: int
    questions: int
    document_words: int
    question_words: int

    @property
    def lines(self) -> int:
        return self.documents * self.questions

    def grown(self, times: int) -> "Work":
        """The same kind with so many times the lines."""
        if self.documents > 1:
            return replace(self, documents=self.documents * times)
        return replace(self, questions=self.questions * times)

    def messages(self) -> Iterator[list[dict[str, str]]]:
        """The first question to each document, then the second: as a join of two tables writes
        them. Lines that share a document lie far apart.
        """
        rng = random.Random(self.name)
        documents = [_words(rng, self.document_words) for _ in range(self.documents)]
        for _ in range(self.questions):
            for document in documents:
                question = {"role": "user", "content": _words(rng, self.question_words)}
                system = {"role": "system", "content": document}
                yield [system, question] if document else [question]


WORKS: Final = (
    Work("plain", "300 chats of 100 tokens that share nothing, 32 to answer", 32, 1, 300, 0, 100),
    Work("shared", "300 chats of 40 tokens after one system prompt of 400, 16 to answer",
         16, 1, 300, 400, 40),
    Work("documents", "40 documents of 800 tokens x 4 questions of 20, one question after the"
         " other, 8 to answer", 8, 40, 4, 800, 20),
)  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """What an output says."""

    prompt_tokens: int
    cached_tokens: int
    answer_tokens: int


def write(work: Work, path: Path) -> None:
    """The input file."""
    with path.open("w") as out:
        for number, messages in enumerate(work.messages()):
            body = {
                "model": MODEL, "messages": messages, "max_tokens": work.tokens,
                "ignore_eos": True, "temperature": 0,
            }  # fmt: skip
            line = {"custom_id": f"r{number}", "method": "POST", "url": CHAT, "body": body}
            out.write(json.dumps(line) + "\n")


def check(work: Work, path: Path) -> Seen:
    """Raises RuntimeError where a line is missing, came twice, or has no whole answer."""
    usages: dict[str, Any] = {}
    for raw in path.read_bytes().splitlines():
        line = json.loads(raw)
        if line["custom_id"] in usages:
            raise RuntimeError(f"{line['custom_id']} came twice")
        usages[line["custom_id"]] = line["response"]["body"]["usage"]
    if usages.keys() != {f"r{number}" for number in range(work.lines)}:
        raise RuntimeError(f"{len(usages)} answers to {work.lines} lines")
    if any(usage["completion_tokens"] != work.tokens for usage in usages.values()):
        raise RuntimeError("an answer has not the tokens that were asked for")
    details = [usage.get("prompt_tokens_details") or {} for usage in usages.values()]
    return Seen(
        sum(usage["prompt_tokens"] for usage in usages.values()),
        sum(detail.get("cached_tokens") or 0 for detail in details),
        sum(usage["completion_tokens"] for usage in usages.values()),
    )


def _words(rng: random.Random, count: int) -> str:
    return " ".join(f"w{rng.randrange(4000)}" for _ in range(count))
