"""Submitters that pause, resume, change and retry, in the weather of the simulator's seeds.

After each run every batch of a tree is accounted for: over the tree each line succeeds, and is
charged, once at most, and the joined results have each line once, with every success there is.
"""

import msgspec
import pytest

from testkit.sim.scenario import draw_scenario
from testkit.sim.simulation import play_world
from testkit.sim.stores import Stores, sim_folder

SEEDS = (17, 18, 19)
"""Small ones; with kills, and with batches that are cancelled before they are planned."""


@pytest.mark.parametrize("seed", SEEDS)
def test_no_line_of_a_tree_of_retries_is_lost_or_charged_twice(seed: int) -> None:
    scenario = msgspec.structs.replace(draw_scenario(seed), steers=True)
    with sim_folder() as folder:
        played = play_world(scenario, Stores(folder))
    assert played.broken is None, "\n".join([played.broken, *played.trace[-40:]])
