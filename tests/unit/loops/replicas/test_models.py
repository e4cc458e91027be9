"""loops/replicas/models.py: engines are asked which models they serve."""

from datetime import UTC, datetime, timedelta

from lowtide import limits
from lowtide.core.bodies.body_rules import BodyRules
from lowtide.core.dispatch.replica import Replica
from lowtide.loops.dispatch.attempt import Upstream
from lowtide.loops.replicas.models import ModelsLoop
from lowtide.loops.replicas.replica_set import ReplicaMember
from testkit.fake_engine import FakeEngine

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Lists:
    """What an engine lists (ports/engine.py)."""

    def __init__(self, *models: str) -> None:
        self.models: tuple[str, ...] | None = models
        self.asked = 0

    async def read(self) -> tuple[str, ...] | None:
        self.asked += 1
        return self.models


def member(name: str, lists: Lists | None) -> ReplicaMember:
    replica = Replica("http://h/v1", frozenset(), 1, name=name)
    upstream = Upstream(replica, FakeEngine(), {}, BodyRules(), 1.0)
    return ReplicaMember(upstream=upstream, model_list=lists)


async def test_those_that_are_to_be_asked_are_and_the_others_are_not() -> None:
    heard: list[tuple[str, tuple[str, ...]]] = []
    members = [member("a", Lists("x", "y")), member("b", None), member("c", Lists())]
    loop = ModelsLoop(lambda: members, lambda *reported: heard.append(reported))
    assert await loop.tick(NOW) == NOW + timedelta(seconds=limits.MODELS_POLL_S)
    assert heard == [("a", ("x", "y")), ("c", ())]


async def test_an_engine_that_does_not_answer_has_said_nothing() -> None:
    lists = Lists("x")
    heard: list[tuple[str, ...]] = []
    loop = ModelsLoop(lambda: [member("a", lists)], lambda _, models: heard.append(models))
    lists.models = None
    await loop.tick(NOW)
    assert (lists.asked, heard) == (1, [])


async def test_an_answer_to_settings_that_changed_meanwhile_is_not_heard() -> None:
    heard: list[tuple[str, ...]] = []

    class Late(Lists):
        async def read(self) -> tuple[str, ...] | None:
            one.model_list = None
            return ("old",)

    one = member("a", Late())
    await ModelsLoop(lambda: [one], lambda _, models: heard.append(models)).tick(NOW)
    assert heard == []


async def test_a_list_beyond_the_bound_is_cut() -> None:
    heard: list[tuple[str, ...]] = []
    many = Lists(*(f"m{n}" for n in range(limits.MODELS_LISTED_MAX + 1)))
    loop = ModelsLoop(lambda: [member("a", many)], lambda _, models: heard.append(models))
    await loop.tick(NOW)
    assert len(heard[0]) == limits.MODELS_LISTED_MAX
