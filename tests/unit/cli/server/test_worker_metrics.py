"""cli/server/worker_metrics.py: what a worker shows, and where."""

import socket

import httpx
import pytest

from lowtide.cli.server.worker_metrics import shown_metrics
from lowtide.cli.terminal import command_errors
from testkit.patience import PATIENCE_S


def test_metrics_are_there_while_the_worker_is() -> None:
    with shown_metrics("127.0.0.1", 0) as address:
        assert address is not None
        page = httpx.get(address, timeout=PATIENCE_S)
        assert page.status_code == 200
        assert "process_cpu_seconds_total" in page.text
    with pytest.raises(httpx.ConnectError):
        httpx.get(address, timeout=PATIENCE_S)


def test_without_a_port_nothing_is_shown() -> None:
    with shown_metrics("127.0.0.1", None) as address:
        assert address is None


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(command_errors.CommandError) as refused,
            shown_metrics("127.0.0.1", port),
        ):
            pass
    assert f"127.0.0.1:{port}" in refused.value.message
    assert "server.metrics_port" in (refused.value.hint or "")
