"""The whole of Lowtide in one deterministic world: a run is a function of its seed.

`python -m lowtide.testing.sim --seed 42` plays one seed. Virtual time (`loop.py`), processes that
are killed and stopped between any two steps (`process.py`), the real loops, core, verbs and SQL
statements (`house.py`, `inline_sqlite.py`) over an object store in memory (`memory_blobs.py`),
engines that misbehave (`engines.py`), faults drawn from the seed (`faults.py`, `storm.py`), clients
(`client.py`) and the checkers (`watch.py`, `account.py`). `world.py` puts them together.
"""
