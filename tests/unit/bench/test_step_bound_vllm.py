"""The benchmark of the scheduler class, as far as it can be tried without vLLM."""

import asyncio
import json
import struct
from pathlib import Path

import pytest

from bench.random_llama import random_llama
from bench.random_lora import RANK, random_lora
from bench.step_bound_vllm.report import show
from bench.step_bound_vllm.starvation import Waits
from bench.step_bound_vllm.time_limit import TimeLimit


async def test_a_part_that_does_not_fit_is_left_out_and_named() -> None:
    limit = TimeLimit(10)

    async def part() -> str:
        return "done"

    assert await limit.run("short", 5, part) == "done"
    assert await limit.run("long", 50, part) is None
    assert [why.partition(":")[0] for why in limit.left_out] == ["long"]


async def test_a_part_that_does_not_end_in_time_is_stopped_and_named() -> None:
    limit = TimeLimit(0.05)
    assert await limit.run("endless", 0, asyncio.Event().wait) is None
    assert limit.left_out == ["endless: it did not end in time"]


def test_a_call_that_still_waits_counts_with_what_it_has_waited() -> None:
    waits = Waits(pending={1: (10.0, True), 2: (12.0, False)})
    waits.end(15.0)
    assert (waits.gaps, waits.first) == ([5.0], [3.0])


def test_an_adapters_numbers_lie_where_its_header_says(tmp_path: Path) -> None:
    model = random_llama(tmp_path / "model", layers=2, width=128)
    folder = random_lora(tmp_path / "adapter", model, seed=1)
    file = (folder / "adapter_model.safetensors").read_bytes()
    (length,) = struct.unpack_from("<Q", file)
    header = json.loads(file[8 : 8 + length])
    assert len(header) == 2 * 3 * 2
    end = 0
    for about in header.values():
        rows, columns = about["shape"]
        assert about["data_offsets"] == [end, end + 4 * rows * columns]
        assert RANK in (rows, columns)
        end = about["data_offsets"][1]
    assert len(file) == 8 + length + end


def test_a_model_that_ends_has_a_token_for_it(tmp_path: Path) -> None:
    model = random_llama(tmp_path / "model", ends=True)
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    (end,) = tokenizer["added_tokens"]
    assert json.loads((model / "config.json").read_text())["eos_token_id"] == end["id"]
    assert tokenizer["model"]["vocab"][end["content"]] == end["id"]


def test_what_was_left_out_is_said_and_the_rest_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = dict.fromkeys(("rows", "starvation", "answers", "killed"))
    alone = {"pairs": 2, "rate": [1.0, 0.98, 1.02], "cpu": [1.01, 1.0, 1.02]}
    show({**found, "alone": alone, "left_out": ["killed: it did not end in time"]})
    printed = capsys.readouterr().out
    assert "tokens a second 1.000 (95 % interval 0.980 to 1.020)" in printed
    assert "Left out: killed: it did not end in time." in printed
