"""Keys in steps that fit one statement."""

import pytest

from lowtide.store.statements import many_keys
from lowtide.store.statements.many_keys import in_steps


def test_each_key_is_in_one_step_and_no_step_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many_keys, "STORE_KEYS_PER_STATEMENT", 4)
    keys = ["e", "a", "d", "b", "a", "c"]
    assert list(in_steps(keys)) == [["a", "b", "c", "d"], ["e"]]
    assert list(in_steps(keys, places=2)) == [["a", "b"], ["c", "d"], ["e"]]
    assert list(in_steps([])) == []
