"""How long a test waits for a fact before it calls the fact missing.

Tests of every kind use it, so that none of them measures the machine: it is far more than anything
here takes while other processes keep all cores busy, and is reached by a broken test alone. A wait
that is meant to run out is a fraction of a second instead.
"""

from typing import Final

PATIENCE_S: Final = 120.0
