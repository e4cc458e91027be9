"""Submitters that pause, resume, change, retry and delete, in the weather of the simulator's seeds.

After each run every batch of a tree is accounted for: over the tree each line succeeds, and is
charged, once at most, and the joined results have each line once, with every success there is. A
batch that was deleted has left its bill and nothing else, and each end was told under one id.
"""

import msgspec
import pytest

from testkit.sim.scenario import draw_scenario, steered
from testkit.sim.simulation import play_world
from testkit.sim.stores import Stores, sim_folder

SEEDS = (18, 23, 24)
"""With kills; one of them has batches that wait for tokens, and one has some that are deleted."""


@pytest.mark.parametrize("seed", SEEDS)
def test_no_line_of_a_tree_of_retries_is_lost_or_charged_twice(seed: int) -> None:
    small = msgspec.structs.replace(draw_scenario(seed), batches=4, lines_max=12, models=1)
    with sim_folder() as folder:
        played = play_world(steered(small), Stores(folder))
    assert played.broken is None, "\n".join([played.broken, *played.trace[-40:]])
