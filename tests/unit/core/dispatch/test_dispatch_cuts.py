"""core/dispatch/dispatch.py: where something between us and one replica ends calls that take
long."""

from dispatch_cases import DIED, OK, add, replica, take_all

from lowtide.core.dispatch.dispatch import Dispatch
from lowtide.core.dispatch.replica import Replica
from lowtide.core.dispatch.request import Request
from lowtide.core.dispatch.verdict import Finish, TryAgain

CUT_AGE_S = 60.0
ROUND_S = 100.0


def cut_until_the_rule_is_known(core: Dispatch, at: Replica) -> tuple[Request, float]:
    """The request that was cut again and again at one age, and an instant some time after."""
    now_s = 0.0
    while at.cuts.age_s is None:
        request = core.take(at, now_s)
        assert request is not None
        assert isinstance(core.settle(request, at, DIED, now_s + CUT_AGE_S, 0.0), TryAgain)
        at.is_alive(now_s + CUT_AGE_S)
        now_s += ROUND_S
    return request, now_s


def test_a_request_that_a_rule_cut_waits_for_a_replica_without_such_a_rule() -> None:
    core, cutting, free = Dispatch(), replica("http://a", window=1), replica("http://b", window=1)
    core.spread_remaining([cutting, free], 0.0, is_dry=False)
    add(core, 1)
    request, now_s = cut_until_the_rule_is_known(core, cutting)
    assert core.take(cutting, now_s) is None
    assert core.take(free, now_s) is request
    assert isinstance(core.settle(request, free, OK, now_s + ROUND_S, 0.0), Finish)


def test_where_no_other_replica_takes_its_model_it_is_tried_again_in_its_place() -> None:
    core, cutting = Dispatch(), replica("http://a", window=1)
    other, lost = replica("http://b", models=["n"]), replica("http://c")
    lost.owned_until_s = 0.0  # another worker's
    core.spread_remaining([cutting, other, lost], 0.0, is_dry=False)
    add(core, 1)
    request, now_s = cut_until_the_rule_is_known(core, cutting)
    assert core.take(cutting, now_s) is request


def test_once_a_call_has_outlived_the_rule_its_requests_come_back() -> None:
    core, cutting, free = Dispatch(), replica("http://a", window=2), replica("http://b")
    core.spread_remaining([cutting, free], 0.0, is_dry=False)
    add(core, 1)
    request, now_s = cut_until_the_rule_is_known(core, cutting)
    cutting.cuts.outlived(2 * CUT_AGE_S)
    assert take_all(core, cutting, now_s) == [request]
