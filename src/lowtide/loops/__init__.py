"""What runs in the background: validate, dispatch, commit, assemble, expire, sweep.

Each loop is a class with `async def tick(now)`: read, decide (core), write, and say when it wants
to be asked again. The endless part is in `runner.py`, once.
"""
