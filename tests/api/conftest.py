"""Fixtures for the tests of the HTTP API."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from api_server import ApiServer, open_api_server
from tenant_env import Env, open_house

from lowtide.config import LimitSettings, ServerSettings, Settings

FILE_BYTES_MAX = 300_000
"""The bound of `small_api`: more than a block, so that a larger file is refused in mid-stream."""


@pytest.fixture(autouse=True)
def no_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOGETHER_TELEMETRY_DISABLED", "1")


@pytest.fixture
def http_api(tmp_path: Path) -> Iterator[ApiServer]:
    with open_api_server(tmp_path) as running:
        yield running


@pytest.fixture
def small_api(tmp_path: Path) -> Iterator[ApiServer]:
    """A server that takes files up to FILE_BYTES_MAX."""
    settings = Settings(
        server=ServerSettings(data_dir=tmp_path), limits=LimitSettings(file_bytes=FILE_BYTES_MAX)
    )
    with open_api_server(tmp_path, settings) as running:
        yield running


@pytest.fixture
def env(tmp_path: Path) -> Iterator[Env]:
    """A server that asks for keys."""
    with open_house(tmp_path) as running:
        yield running
