"""core/batches/completion_window.py: a window in seconds, and in words."""

import pytest

from lowtide.core.batches.completion_window import window_s, window_words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(86400, "24h"), (5400, "90m"), (3600, "1h"), (172800, "2d"), (90000, "25h")],
)
def test_a_window_reads_back_as_it_is_written(seconds: int, words: str) -> None:
    assert window_words(seconds) == words
    assert window_s(words) == seconds
