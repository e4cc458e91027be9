"""cli/server/logs.py: a server outlives what its log is written to."""

import io
import sys

import pytest
import structlog

from lowtide.cli.server.logs import log_to_stderr


def test_a_closed_standard_error_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    log_to_stderr()
    log = structlog.get_logger()
    log.info("kept")
    assert '"event": "kept"' in stream.getvalue()
    stream.close()
    log.info("lost")


def test_a_server_starts_without_a_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    log_to_stderr()
    structlog.get_logger().info("lost")
