"""The whole of Lowtide in one deterministic world: a run is a function of its seed.

`python -m testkit.sim --seed 42` plays one seed. Virtual time (`loop.py`), processes that
are killed and stopped between any two steps (`process.py`), the real loops, core, verbs and SQL
statements (`node.py`, `inline_sqlite.py`) over an object store in memory (`memory_blobs.py`),
engines that misbehave (`engines.py`), faults drawn from the seed (`faults.py`,
`fault_injection.py`), clients (`client.py`) and the checkers (`invariants.py`, `final_check.py`).
`simulation.py` puts them together.
"""
