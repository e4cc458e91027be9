"""What a run remembers, and when it refuses to go on."""

import json
from pathlib import Path

import msgspec
import pytest

from lowtide.cli.run.run_state import RunState, check_same, folder_of, lock
from lowtide.cli.terminal.command_errors import CommandError

STATE = RunState(input="b.jsonl", sha256="aa", endpoint="/v1/chat/completions", model="demo")


def test_what_is_remembered_is_recalled(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    with lock(output) as folder:
        assert folder.load(RunState) is None
        folder.save(STATE)
    with lock(output) as folder:
        assert folder.load(RunState) == STATE


def test_a_run_that_began_nothing_leaves_no_folder(tmp_path: Path) -> None:
    with lock(tmp_path / "out.jsonl"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_one_output_has_one_run(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    with lock(output), pytest.raises(CommandError) as caught, lock(output):
        pass
    assert caught.value.code == "run_in_progress"


def test_the_lock_ends_with_the_run(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    with lock(output) as folder:
        folder.save(STATE)
    with lock(output):
        pass


def test_a_damaged_state_offers_a_restart(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    with lock(output) as folder:
        folder.save(STATE)
        (folder.path / "run.json").write_text("{half")
        with pytest.raises(CommandError) as caught:
            folder.load(RunState)
    assert "--restart" in str(caught.value.hint)


def test_the_state_of_another_version_is_not_guessed_at(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    with lock(output) as folder:
        later = msgspec.to_builtins(STATE) | {"version": 2}
        (folder.path / "run.json").write_text(json.dumps(later))
        with pytest.raises(CommandError, match="another version"):
            folder.load(RunState)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"sha256": "bb"}, "is not what it was"),
        ({"endpoint": "/v1/embeddings"}, "endpoint was /v1/chat/completions"),
        ({"server": "http://s", "model": None}, "begun on this machine, not on http://s"),
        ({"model": "other"}, "model was demo, not other"),
        ({"model": None}, "model was demo, not --url"),
    ],
)
def test_another_input_or_place_is_refused(changed: dict[str, str | None], words: str) -> None:
    asked = msgspec.structs.replace(STATE, **changed)
    with pytest.raises(CommandError, match="not finished") as caught:
        check_same(STATE, asked, Path("out.jsonl"))
    assert words in caught.value.message
    assert "--restart" in str(caught.value.hint)


def test_the_same_run_goes_on_whatever_was_recorded_since() -> None:
    known = msgspec.structs.replace(STATE, file_id="file-1", batch_id="batch_1")
    check_same(known, STATE, Path("out.jsonl"))


def test_the_folder_is_beside_the_output() -> None:
    assert folder_of(Path("x/out.jsonl")) == Path("x/out.jsonl.lowtide")
