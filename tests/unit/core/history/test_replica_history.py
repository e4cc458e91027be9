"""What a replica did: growth counted once, parts that add up, and stretches that cover a time."""

from datetime import UTC, datetime, timedelta

import pytest

from lowtide import limits
from lowtide.core.history.replica_history import (
    ReplicaPart,
    ReplicaRecorder,
    ReplicaRow,
    ReplicaTotals,
    bucket_begin,
    by_bucket,
    first_byte_bucket,
    spans_of,
    stretches,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def test_growth_is_counted_once_and_a_new_replica_begins_at_its_totals() -> None:
    recorder = ReplicaRecorder()
    recorder.see({"a": ReplicaTotals(batch_calls=100, input_tokens=9)}, after(0))
    assert recorder.changed() == []
    totals = ReplicaTotals(batch_calls=103, input_tokens=19, first_bytes={8: 2})
    recorder.see({"a": totals}, after(1))
    recorder.see({"a": totals}, after(2))
    (row,) = recorder.changed()
    assert (row.replica, row.at) == ("a", NOON)
    assert (row.part.batch_calls, row.part.input_tokens, row.part.live_calls) == (3, 10, 2)


def test_an_idle_replica_makes_no_rows() -> None:
    recorder = ReplicaRecorder()
    for second in range(100):
        recorder.see({"a": ReplicaTotals(window=8)}, after(second))
    assert recorder.changed() == []


def test_window_and_calls_in_flight_are_weighed_by_time() -> None:
    recorder = ReplicaRecorder()
    recorder.see({"a": ReplicaTotals(window=8, in_flight=8)}, after(0))
    recorder.see({"a": ReplicaTotals(window=8, in_flight=8)}, after(3))
    recorder.see({"a": ReplicaTotals(window=2, in_flight=1, gives_way=True)}, after(4))
    (row,) = recorder.changed()
    assert (row.part.seen_s, row.part.gave_way_s) == (4, 1)
    assert (row.part.window_s, row.part.in_flight_s) == (26, 25)


def test_of_a_replica_that_is_another_workers_the_window_is_not_told() -> None:
    recorder = ReplicaRecorder()
    for second in range(3):
        totals = ReplicaTotals(
            is_ours=False, window=8, in_flight=8, gives_way=True, first_bytes={3: second}
        )
        recorder.see({"a": totals}, after(second))
    (row,) = recorder.changed()
    assert row.part == ReplicaPart(first_bytes={3: 2})


def test_what_was_written_is_given_again_only_once_it_grew() -> None:
    recorder = ReplicaRecorder()
    for calls in (0, 1):
        recorder.see({"a": ReplicaTotals(batch_calls=calls)}, after(calls))
    rows = recorder.changed()
    recorder.see({"a": ReplicaTotals(batch_calls=5)}, after(2))
    recorder.written(rows)
    (row,) = recorder.changed()
    assert row.part.batch_calls == 5, "it grew while it was written"
    recorder.written([row])
    assert recorder.changed() == []


def test_rows_that_cannot_be_written_are_few() -> None:
    recorder = ReplicaRecorder()
    for number in range(100):
        recorder.see({"a": ReplicaTotals(batch_calls=number)}, after(30 * number))
    kept = recorder.changed()
    assert len(kept) == limits.REPLICA_PENDING_BUCKETS + 1
    assert kept[-1].at == bucket_begin(after(30 * 99))


def test_parts_of_several_processes_add_up_within_their_stretch() -> None:
    rows = [
        ReplicaRow("a", after(0), ReplicaPart(batch_calls=1, first_bytes={4: 1})),
        ReplicaRow("a", after(0), ReplicaPart(batch_calls=2, first_bytes={4: 1, 9: 1})),
        ReplicaRow("a", after(60), ReplicaPart(batch_calls=4)),
    ]
    spans = spans_of(by_bucket(rows), NOON, after(100), 300)
    assert [each.part.batch_calls for each in spans] == [3, 0, 4, 0]
    assert spans[0].part.first_bytes == {4: 2, 9: 1}
    assert [each.seconds for each in spans] == [30, 30, 30, 10], "the last one goes on"


@pytest.mark.parametrize("hours", [1, 6, 36])
def test_a_long_time_has_longer_stretches_and_as_much_in_them(hours: int) -> None:
    until = after(3600 * hours)
    rows = [
        ReplicaRow("a", after(30 * number), ReplicaPart(batch_calls=1))
        for number in range(120 * hours)
    ]
    spans = spans_of(by_bucket(rows), NOON, until, limits.REPLICA_SPANS_MAX)
    assert len(spans) <= limits.REPLICA_SPANS_MAX + 1
    assert sum(each.part.batch_calls for each in spans) == 120 * hours
    starts = [each.at for each in spans]
    assert starts[0] <= NOON
    assert starts[-1] <= until < starts[-1] + timedelta(seconds=spans[0].seconds)


def test_half_of_the_streams_begin_within_the_median() -> None:
    buckets = {first_byte_bucket(0.1): 98, first_byte_bucket(3.0): 2}
    part = ReplicaPart(first_bytes=buckets)
    assert part.first_byte_s(0.5) == pytest.approx(0.1, rel=0.2)
    assert part.first_byte_s(0.99) == pytest.approx(3.0, rel=0.2)
    assert ReplicaPart().first_byte_s(0.5) is None


def test_buckets_that_follow_each_other_are_one_stretch() -> None:
    found = stretches([after(30), after(60), after(150)])
    assert list(found) == [(after(30), after(90)), (after(150), after(180))]
    assert list(stretches([])) == []
