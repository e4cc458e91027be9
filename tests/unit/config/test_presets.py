"""Presets of limits: defaults by a name, behind whatever is said of a key itself."""

from pathlib import Path

import pytest

from lowtide.config import LimitSettings, load
from lowtide.config.presets import PRESETS
from lowtide.config.sources import ConfigError


def settings(tmp_path: Path, text: str, **variables: str) -> LimitSettings:
    file = tmp_path / "lowtide.toml"
    file.write_text(text)
    return load(file, variables).limits


def test_the_limits_of_the_launch_are_those_without_a_preset(tmp_path: Path) -> None:
    assert settings(tmp_path, "") == settings(tmp_path, '[limits]\npreset = "launch"')
    for key, value in PRESETS["launch"].items():
        assert getattr(LimitSettings(), key) == value


def test_together_in_2026_has_thirty_billion_enqueued_tokens(tmp_path: Path) -> None:
    found = settings(tmp_path, '[limits]\npreset = "together-2026"')
    assert found.enqueued_tokens_per_model == 30_000_000_000
    assert (found.requests_per_batch, found.file_bytes) == (50_000, 104_857_600)


def test_a_key_of_ones_own_goes_before_the_preset(tmp_path: Path) -> None:
    text = '[limits]\npreset = "together-2026"\nenqueued_tokens_per_model = 7\n'
    found = settings(tmp_path, text, LOWTIDE_LIMITS__REQUESTS_PER_BATCH="9")
    assert (found.enqueued_tokens_per_model, found.requests_per_batch) == (7, 9)
    named = settings(tmp_path, "", LOWTIDE_LIMITS__PRESET="together-2026")
    assert named.enqueued_tokens_per_model == 30_000_000_000


def test_a_preset_that_there_is_none_of_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"limits\.preset: must be 'launch' or 'together-2026'"):
        settings(tmp_path, '[limits]\npreset = "other"')
