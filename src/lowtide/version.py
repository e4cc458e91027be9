"""The version of this package, as pyproject.toml has it; every ring may ask.

Beside `__init__`, which hands out the Python interface and so, for types, knows the outermost ring.
"""

from typing import Final

VERSION: Final = "0.1.0"
