"""What a process tells of its replicas, for their history."""

from collections.abc import AsyncIterator

import pytest

from lowtide.config import ReplicaSettings, Settings
from lowtide.core.accounts.catalogue import Catalogue
from lowtide.core.reporting.tally import Tallies
from lowtide.core.usage import Usage
from lowtide.loops.replicas.replica_set import ReplicaSet
from lowtide.system import SystemClock
from lowtide.wiring.replicas.engines import Engines
from lowtide.wiring.replicas.history import replica_totals
from lowtide.wiring.replicas.open_replica import Calling, open_replica

CALLED = Usage(input_tokens=10, output_tokens=3)


@pytest.fixture
async def replicas() -> AsyncIterator[ReplicaSet[Calling]]:
    found = ReplicaSet(open_replica, SystemClock())
    settings = ReplicaSettings(url="http://a:1/v1", models=("m", "n"))
    Engines(found, Catalogue()).configure(Settings(replica=(settings,)))
    yield found
    await found.aclose()


async def test_a_worker_tells_of_batch_calls_of_all_models(replicas: ReplicaSet[Calling]) -> None:
    tallies = Tallies()
    for model in ("m", "n", "n"):
        tallies.of("a:1", model).add_success(CALLED)
    (totals,) = replica_totals(replicas, tallies, 0.0).values()
    assert (totals.batch_calls, totals.input_tokens, totals.output_tokens) == (3, 30, 9)
    assert totals.is_ours
    assert totals.window == int(replicas.members[0].replica.window)
    replicas.members[0].replica.own_until(5.0)
    (totals,) = replica_totals(replicas, tallies, 6.0).values()
    assert not totals.is_ours, "another worker has it now"


async def test_a_process_without_batch_calls_tells_of_live_ones_alone(
    replicas: ReplicaSet[Calling],
) -> None:
    live = replicas.members[0].live
    assert live is not None
    live.first_byte_after(0.5)
    (totals,) = replica_totals(replicas, None, 0.0).values()
    assert sum(totals.first_bytes.values()) == 1
    live.first_byte_after(0.5)
    assert sum(totals.first_bytes.values()) == 1, "a look stays as it was"
    assert not totals.is_ours
