"""What several end-to-end tests share."""

import pytest

from lowtide import limits


@pytest.fixture
def full_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows begin at their ceiling: for tests whose engines hold calls, and answer none first."""
    monkeypatch.setattr(limits, "LEARN_START", limits.WINDOW_DEFAULT)
