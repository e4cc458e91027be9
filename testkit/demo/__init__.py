"""`make demo`: the console with something in it.

A fleet of simulated engines, an installation whose past days are made by servers whose clocks are
behind, and live traffic beside batches in every state. `python -m testkit.demo` runs it.
"""
