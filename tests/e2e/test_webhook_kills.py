"""Webhooks across a kill of a real server, verified by the openai package.

`make webhook-kills` is the same with a thousand batches and twenty kills.
"""

from pathlib import Path

from bench.webhook_kills import run


def test_every_end_is_told_with_one_id_across_a_kill_of_the_server(tmp_path: Path) -> None:
    found = run(10, 1, tmp_path)
    assert (found["batches"], found["kills"]) == (10, 1)
    assert found["verified"] >= 10 and found["refused_first"] == 2
