"""The limit on open files: raised at the start, and what it makes smaller."""

import resource
from typing import Any

import pytest
import structlog

from lowtide.config import ReplicaSettings
from lowtide.core.replicas.open_files import share_out
from lowtide.wiring import open_files
from lowtide.wiring.open_files import raise_limit, tell_bound, window_within


def replica(**more: Any) -> ReplicaSettings:
    return ReplicaSettings(url="http://127.0.0.1:9/v1", models=("m",), **more)


class Limit:
    """Stands for the process's limit, which no test should move."""

    def __init__(self, soft: int, hard: int, *, refuses: bool = False) -> None:
        self.now = (soft, hard)
        self._refuses = refuses

    def getrlimit(self, _: int) -> tuple[int, int]:
        return self.now

    def setrlimit(self, _: int, wanted: tuple[int, int]) -> None:
        if self._refuses:
            raise ValueError("not allowed to raise maximum limit")
        self.now = wanted


def limited(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, **more: Any) -> Limit:
    limit = Limit(soft, hard, **more)
    monkeypatch.setattr(open_files.resource, "getrlimit", limit.getrlimit)
    monkeypatch.setattr(open_files.resource, "setrlimit", limit.setrlimit)
    return limit


@pytest.mark.parametrize(
    ("soft", "hard", "raised"),
    [
        (1_024, 4_096, 4_096),
        (1_024, 1_024, 1_024),
        (1_024, resource.RLIM_INFINITY, 1_048_576),
        (65_536, 1_073_741_816, 1_048_576),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 1_048_576),
    ],
)
def test_the_soft_limit_is_raised_to_the_hard_one(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised: int
) -> None:
    limit = limited(monkeypatch, soft, hard)
    assert raise_limit() == raised
    assert limit.now[1] == hard


def test_a_system_that_refuses_leaves_the_limit_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, 256, 4_096, refuses=True)
    assert raise_limit() == 256


def test_a_window_is_no_larger_than_the_limit_allows() -> None:
    files = share_out(1_024, 1)
    assert window_within(replica(window=1_200), files) == 384 - 16
    assert window_within(replica(), files) == 384 - 16
    assert window_within(replica(window=32), files) == 32
    assert window_within(replica(), share_out(64, 8)) == 1


def test_one_word_is_said_where_the_limit_makes_windows_smaller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limited(monkeypatch, 1_024, 1_024)
    several = (replica(window=1_200), replica(window=600), replica(window=8))
    with structlog.testing.capture_logs() as logs:
        tell_bound(several, open_files.files_for(3))
        tell_bound((replica(window=8),), open_files.files_for(1))
    (said,) = logs
    assert said["event"] == "open_files.bound"
    assert (said["files"], said["replicas"], said["window_max"]) == (1_024, 2, 128 - 16)
