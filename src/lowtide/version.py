"""The version of this package, as pyproject.toml has it; every ring may ask.

It is not in `__init__`, which exports the Python interface and so, for types, imports
the outermost ring.
"""

from typing import Final

VERSION: Final = "0.1.0"
