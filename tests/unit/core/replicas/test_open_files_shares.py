"""How open files are shared out."""

import pytest

from lowtide.core.replicas.open_files import share_out


@pytest.mark.parametrize("files", [64, 256, 1_024, 4_096, 65_536, 1_048_576])
@pytest.mark.parametrize("replicas", [0, 1, 3, 40])
def test_all_connections_together_leave_files_for_commits(files: int, replicas: int) -> None:
    shares = share_out(files, replicas)
    taken = replicas * (shares.batch + shares.live) + shares.callers
    assert taken <= files - min(256, files // 4) + 2 * replicas  # each replica has one at least


def test_the_usual_limit_is_shared_by_halves() -> None:
    one, four = share_out(1_024, 1), share_out(1_024, 4)
    assert (one.batch, one.live, one.callers) == (384, 192, 192)
    assert (four.batch, four.live, four.callers) == (96, 48, 192)


def test_a_raised_limit_leaves_windows_as_they_are() -> None:
    shares = share_out(1_048_576, 50)
    assert shares.batch > 4_096 + 16
    assert shares.live > 1_024
