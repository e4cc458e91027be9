"""Sizes in settings may have a unit."""

from pathlib import Path

import pytest

from lowtide import config
from lowtide.config.sources import ConfigError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("100MB", 100_000_000),
        ("8GiB", 8 * 2**30),
        ("1.5 kB", 1500),
        ("0.5 TiB", 2**39),
        ("64mib", 64 * 2**20),
    ],
)
def test_a_size_may_have_a_unit(tmp_path: Path, text: str, size: int) -> None:
    file = tmp_path / "lowtide.toml"
    file.write_text(f'[limits]\nfile_bytes = "{text}"\n')
    assert config.load(file, {}).limits.file_bytes == size
    assert config.load(None, {"LOWTIDE_LIMITS__FILE_BYTES": text}).limits.file_bytes == size


@pytest.mark.parametrize("text", ["100", "100M", "0.3kiB", "-1MB", "MB", "1e3MB"])
def test_what_is_no_size_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "lowtide.toml"
    file.write_text(f'[limits]\nfile_bytes = "{text}"\n')
    with pytest.raises(ConfigError, match="file_bytes"):
        config.load(file, {})
