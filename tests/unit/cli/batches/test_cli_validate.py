"""`lowtide validate`: the server's verdict offline, with tokens and prices."""

import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from prompt import Run

from lowtide.cli.terminal import command_errors

SETTINGS = """
[[model]]
id = "big"
aliases = ["large"]
input_price = 2.0
output_price = 4.0

[limits]
requests_per_batch = 3
"""


def line(custom_id: str, **body: Any) -> str:
    body = {"model": "big", "messages": [{"role": "user", "content": "hi"}]} | body
    return json.dumps({"custom_id": custom_id, "body": body}) + "\n"


def write(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "b.jsonl"
    path.write_text("".join(lines))
    return path


def test_bad_lines_are_listed_with_place_and_reason(run_main: Run, tmp_path: Path) -> None:
    path = write(tmp_path, line("a"), "{oops\n", line("a"), '{"custom_id": "x"}\n')
    outcome = run_main("validate", path)
    assert outcome.code == command_errors.BATCH_FAILED
    assert "line 2: invalid_json_line: This line is not parseable as valid JSON." in outcome.out
    assert "line 3: duplicate_custom_id" in outcome.out
    assert "line 4: missing_required_parameter: Missing required parameter: 'body'" in outcome.out
    assert "3 errors" in outcome.out


def test_a_file_of_another_kind_is_called_by_its_name(run_main: Run, tmp_path: Path) -> None:
    path = tmp_path / "b.jsonl.gz"
    path.write_bytes(gzip.compress(line("a").encode()))
    outcome = run_main("validate", path)
    assert outcome.code == command_errors.BATCH_FAILED
    assert "line 1: invalid_file_format: The file is compressed with gzip" in outcome.out
    assert "1 error;" in outcome.out
    outcome = run_main("run", path, "-o", tmp_path / "out.jsonl", "--model", "demo")
    assert outcome.code == command_errors.BATCH_FAILED
    assert "compressed with gzip" in outcome.out


def test_a_prompt_beyond_the_context_is_a_warning(run_main: Run, tmp_path: Path) -> None:
    settings = SETTINGS.replace("input_price", "context_length = 100\ninput_price")
    (tmp_path / "lowtide.toml").write_text(settings)
    words = [{"role": "user", "content": "many words " * 200}]
    path = write(tmp_path, line("a"), line("b", messages=words))
    outcome = run_main("validate", path)
    assert outcome.code == command_errors.DONE
    assert "warning: context_exceeded: The prompt of line 2" in outcome.out
    assert "Good:" in outcome.out
    answer = json.loads(run_main("validate", path, "--json").out)
    assert answer["valid"]
    assert [warning["line"] for warning in answer["warnings"]] == [2]


def test_good_lines_are_counted_by_model(run_main: Run, tmp_path: Path) -> None:
    path = write(tmp_path, line("a"), line("b"), line("c", model="small"))
    outcome = run_main("validate", path, "--json")
    answer = json.loads(outcome.out)
    assert outcome.code == command_errors.DONE
    assert answer["valid"] and answer["dialect"] == "together"
    assert {name: entry["requests"] for name, entry in answer["models"].items()} == {
        "big": 2,
        "small": 1,
    }


def test_prices_come_from_the_settings_and_batch_is_half(run_main: Run, tmp_path: Path) -> None:
    (tmp_path / "lowtide.toml").write_text(SETTINGS)
    path = write(tmp_path, line("a", max_tokens=1000), line("b", max_tokens=500, n=2))
    answer = json.loads(run_main("validate", path, "--json").out)
    entry = answer["models"]["big"]
    assert entry["output_tokens_max"] == 2000
    assert entry["is_bounded"]
    live = (entry["input_tokens"] * Decimal(2) + 2000 * Decimal(4)) / 1_000_000
    assert Decimal(entry["live_amount"]) == live
    assert Decimal(entry["amount"]) == Decimal(entry["saved"]) == live / 2
    assert answer["totals"] == {name: entry[name] for name in ("amount", "live_amount", "saved")}


def test_the_price_is_said_in_a_sentence(run_main: Run, tmp_path: Path) -> None:
    (tmp_path / "lowtide.toml").write_text(SETTINGS)
    bounded = write(tmp_path, line("a", model="large", max_tokens=1_000_000))
    assert (
        "As a batch at most $2.00; live $4.00. Saved: $2.00." in run_main("validate", bounded).out
    )
    unbounded = write(tmp_path, line("a"))
    assert "As a batch more than $0.00" in run_main("validate", unbounded).out


def test_without_a_price_none_is_told(run_main: Run, tmp_path: Path) -> None:
    path = write(tmp_path, line("a", max_tokens=10))
    assert "As a batch" not in run_main("validate", path).out
    answer = json.loads(run_main("validate", path, "--json").out)
    assert answer["models"]["big"]["amount"] is answer["totals"]["saved"] is None


def test_a_line_without_a_bound_makes_the_price_a_lower_one(run_main: Run, tmp_path: Path) -> None:
    (tmp_path / "lowtide.toml").write_text(SETTINGS)
    path = write(tmp_path, line("a", max_tokens=1000), line("b"))
    outcome = run_main("validate", path)
    assert "\t?\tfrom $" in outcome.out


def test_embeddings_put_out_no_tokens(run_main: Run, tmp_path: Path) -> None:
    body = {"model": "e", "input": "text"}
    entry = {"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": body}
    path = write(tmp_path, json.dumps(entry) + "\n")
    answer = json.loads(run_main("validate", path, "--json").out)
    assert answer["endpoint"] == "/v1/embeddings" and answer["dialect"] == "openai"
    assert answer["models"]["e"]["output_tokens_max"] == 0
    assert answer["models"]["e"]["is_bounded"]


def test_limits_of_the_settings_hold(run_main: Run, tmp_path: Path) -> None:
    (tmp_path / "lowtide.toml").write_text(SETTINGS)
    outcome = run_main("validate", write(tmp_path, *(line(f"r{n}") for n in range(4))))
    assert outcome.code == command_errors.BATCH_FAILED
    assert "too_many_tasks" in outcome.out


def test_a_file_above_the_limit_of_bytes_fails(run_main: Run, tmp_path: Path) -> None:
    (tmp_path / "lowtide.toml").write_text("[limits]\nfile_bytes = 10\n")
    outcome = run_main("validate", write(tmp_path, line("a")), "--json")
    assert outcome.code == command_errors.BATCH_FAILED
    assert json.loads(outcome.out)["errors"][0]["code"] == "file_too_large"


def test_with_replicas_only_their_models_are_good(run_main: Run, tmp_path: Path) -> None:
    replica = '[[replica]]\nurl = "http://127.0.0.1:9/v1"\nmodels = ["small"]\n'
    (tmp_path / "lowtide.toml").write_text(replica)
    outcome = run_main("validate", write(tmp_path, line("a")))
    assert outcome.code == command_errors.BATCH_FAILED
    assert "model_not_found" in outcome.out


@pytest.mark.parametrize("keys", ['models = ["*"]', 'names = { big = "engine/big" }'])
def test_where_an_engine_or_names_decide_the_models_these_are_good(
    run_main: Run, tmp_path: Path, keys: str
) -> None:
    settings = f'[[replica]]\nurl = "http://127.0.0.1:9/v1"\n{keys}\n'
    (tmp_path / "lowtide.toml").write_text(settings)
    outcome = run_main("validate", write(tmp_path, line("a")))
    assert outcome.code == 0, outcome.out


def test_the_dialect_may_be_told(run_main: Run, tmp_path: Path) -> None:
    outcome = run_main("validate", write(tmp_path, line("a")), "--dialect", "openai")
    assert outcome.code == command_errors.BATCH_FAILED
    assert "method" in outcome.out
