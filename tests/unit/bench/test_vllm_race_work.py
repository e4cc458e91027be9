"""The lines of the race, and what is taken for a whole output."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.vllm_race.work import WORKS, Seen, Work, check, write

SMALL = Work("documents", "", 8, 3, 2, 5, 2)


def answers(work: Work) -> list[dict[str, Any]]:
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": work.tokens,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    return [
        {"custom_id": f"r{number}", "response": {"body": {"usage": usage}}}
        for number in range(work.lines)
    ]


def output(folder: Path, lines: list[dict[str, Any]]) -> Path:
    path = folder / "out.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_lines_of_one_document_lie_as_far_apart_as_there_are_documents(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    write(SMALL, path)
    lines = [json.loads(raw) for raw in path.read_text().splitlines()]
    systems = [line["body"]["messages"][0]["content"] for line in lines]
    assert systems[:3] == systems[3:] and len(set(systems)) == 3
    assert len({line["body"]["messages"][1]["content"] for line in lines}) == 6


def test_an_output_tells_its_tokens(tmp_path: Path) -> None:
    assert check(SMALL, output(tmp_path, answers(SMALL))) == Seen(54, 24, 48)


def test_what_is_no_whole_output_is_refused(tmp_path: Path) -> None:
    whole = answers(SMALL)
    short = json.loads(json.dumps(whole[0]))
    short["response"]["body"]["usage"]["completion_tokens"] = 1
    for lines in (whole[1:], [*whole, whole[0]], [short, *whole[1:]]):
        with pytest.raises(RuntimeError):
            check(SMALL, output(tmp_path, lines))


def test_each_kind_of_work_has_a_name_of_its_own() -> None:
    assert len({work.name for work in WORKS}) == len(WORKS)
