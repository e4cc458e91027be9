"""A process whose user has no home folder and no name, as in many containers."""

import os
import pwd
from pathlib import Path
from typing import NoReturn

import pytest

from lowtide import config
from lowtide.config.sources import ConfigError
from lowtide.engines.models.source import ModelSourceError, resolve_model
from lowtide.wiring.replicas.embedded import _cache_dir


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: object) -> NoReturn:
        raise KeyError("no such user")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(pwd, "getpwnam", unknown)


@pytest.mark.usefixtures("nobody")
def test_without_a_home_the_cache_is_kept_with_the_data(tmp_path: Path) -> None:
    assert _cache_dir(tmp_path) == tmp_path / "cache"


def test_a_home_that_is_not_there_counts_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "none"))
    assert _cache_dir(tmp_path) == tmp_path / "cache"
    (tmp_path / "none").mkdir()
    assert _cache_dir(tmp_path) == tmp_path / "none" / ".cache" / "lowtide"


@pytest.mark.usefixtures("nobody")
def test_without_a_home_settings_are_read_and_a_tilde_is_refused_by_its_key() -> None:
    assert config.load(None, {}).server.port == 8000
    with pytest.raises(ConfigError, match=r"server\.data_dir: must be a path without ~"):
        config.load(None, {}, {"server.data_dir": "~/tide"})


@pytest.mark.usefixtures("nobody")
def test_without_a_home_a_model_by_a_tilde_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ModelSourceError, match="no model"):
        resolve_model("~/x.gguf", tmp_path)
    assert "HOME" not in os.environ
