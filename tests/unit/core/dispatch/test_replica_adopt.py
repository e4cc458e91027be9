"""A replica whose settings change while it is at work."""

from lowtide import limits
from lowtide.core.capacity.engine_metrics import EngineMetrics
from lowtide.core.capacity.latency_window import LatencyWindow
from lowtide.core.capacity.window import WindowController
from lowtide.core.dispatch.replica import Replica


def replica(url: str, window: int, *, automatic: bool = True) -> Replica:
    controller = WindowController(window, window_start=min(window, 8), is_automatic=automatic)
    learned = LatencyWindow(window, width=min(window, 16))
    return Replica(url, frozenset({"m"}), window, controller=controller, learned=learned, name="r")


def test_a_narrower_window_holds_at_once_and_a_wider_one_is_grown_into() -> None:
    one = replica("http://a", 64)
    one.adopt(replica("http://a", 4))
    assert one.controller is not None and one.learned is not None
    assert (one.window_max, one.controller.window, one.learned.width) == (4, 4, 4)
    one.adopt(replica("http://a", 64))
    assert (one.window_max, one.learned.width_max) == (64, 64)
    assert one.learned.width == 4, "a wider one is tried, not taken on trust"


def test_what_was_learned_of_the_engine_stays_at_a_new_address() -> None:
    one = replica("http://a", 64)
    assert one.controller is not None
    one.controller.observe(EngineMetrics(running=1, waiting=0, seats_max=5), [], 1.0)
    one.in_flight = 3
    one.adopt(replica("http://b", 64))
    assert (one.url, one.name, one.in_flight) == ("http://b", "r", 3)
    assert one.controller.has_metrics and one.controller.metrics.seats_max == 5


def test_what_was_wrong_with_the_old_way_to_call_it_counts_no_more() -> None:
    one = replica("http://a", 64)
    for _ in range(limits.CIRCUIT_FAILURES):
        one.circuit.failed(1.0, "refused")
    assert not one.takes_calls(1.0)
    one.adopt(replica("http://a", 64))
    assert one.takes_calls(1.0)


def test_refusals_still_hold_a_window_that_its_bound_does_not() -> None:
    one = replica("http://a", 64)
    one.throttled(1.0, 0.0)
    refused = one.window
    one.adopt(replica("http://a", 128))
    assert one.window == refused
    one.adopt(replica("http://a", 2))
    assert one.window <= 2


def test_what_was_held_for_its_set_up_is_tried_at_once_when_that_changes() -> None:
    one = replica("http://a", 64)
    scope = one.scope(("m", "/v1/chat/completions"))
    scope.hold("credentials", "401", 100.0)
    assert scope.trial_at_s is not None and scope.trial_at_s > 100.0
    one.adopt(replica("http://a", 64))
    assert scope.trial_at_s is not None and scope.trial_at_s <= 100.0
