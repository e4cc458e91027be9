"""engines/metrics/exposition.py: some metrics out of a page."""

import time

from hypothesis import given
from hypothesis import strategies as st

from lowtide.engines.metrics.exposition import Exposition, ReadMetric

PAGE = Exposition(
    [ReadMetric((name,), "") for name in ("a:running", "a:hits", "a:gap_bucket", "a:info")]
)


def test_only_wanted_metrics_are_read_with_or_without_total() -> None:
    samples = PAGE.read(
        b"# TYPE a:running gauge\na:running 3\na:running_by_x 9\na:hits_total 5\n"
        b"a:hits_created 1.7e9\nother 1\n a:running 7\n"
    )
    assert samples.count("a:running") == 3
    assert samples.total("a:hits") == 5
    assert samples.total("a:missing") is None


def test_labels_may_hold_anything_that_is_quoted() -> None:
    samples = PAGE.read(b'a:info{x="}\\"{,",y="\xc3\xa9",} 1 1763200000000\r\n')
    assert samples.series("a:info") == [({"x": '}\\"{,', "y": "é"}, 1.0)]


def test_what_was_not_measured_is_no_sample() -> None:
    samples = PAGE.read(b"a:running NaN\na:hits +Inf\na:hits oops\n")
    assert samples.total("a:running") is None
    assert samples.total("a:hits") is None


def test_the_first_name_that_is_there_is_taken() -> None:
    samples = PAGE.read(b"a:hits 4\n")
    assert samples.total("a:running", "a:hits") == 4


def test_a_histogram_without_its_last_bucket_is_none() -> None:
    assert PAGE.read(b'a:gap_bucket{le="0.1"} 4\n').buckets("a:gap") == ()
    whole = PAGE.read(b'a:gap_bucket{le="+Inf"} 5\na:gap_bucket{le="0.1"} 4\n')
    assert whole.buckets("a:gap") == ((0.1, 4.0), (float("inf"), 5.0))


def test_a_page_of_thousands_of_lines_is_read_in_milliseconds() -> None:
    page = b"".join(b'a:else_bucket{engine="0",le="%d"} 12345.0\n' % n for n in range(5000))
    begun = time.thread_time()
    assert PAGE.read(page + b"a:running 2\n").count("a:running") == 2
    assert time.thread_time() - begun < 1.0, "of this thread alone; about 2 ms"


@given(st.binary(max_size=300))
def test_no_page_is_an_error(page: bytes) -> None:
    PAGE.read(page + b"\na:running{" + page + b"} 1\n").buckets("a:gap")
