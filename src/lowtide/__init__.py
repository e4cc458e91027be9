"""Lowtide: a Batch API for the models you already serve.

`lowtide.map`, `lowtide.amap`, `lowtide.Client` and `lowtide.AsyncClient` are the Python interface
(docs/how-to/python.md). They are loaded when they are first used, so that importing this costs
nothing.
"""

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from lowtide.version import VERSION

if TYPE_CHECKING:
    from lowtide.client.async_batches import AsyncClient
    from lowtide.client.batches import Client
    from lowtide.client.errors import Error, RowsFailed
    from lowtide.client.map import amap, map
    from lowtide.client.objects import BatchInfo, LineError, RequestResult

__version__ = VERSION

__all__ = [
    "AsyncClient",
    "BatchInfo",
    "Client",
    "Error",
    "LineError",
    "RequestResult",
    "RowsFailed",
    "__version__",
    "amap",
    "map",
]

_HOMES: Final = MappingProxyType(
    {
        "AsyncClient": "lowtide.client.async_batches",
        "BatchInfo": "lowtide.client.objects",
        "Client": "lowtide.client.batches",
        "Error": "lowtide.client.errors",
        "LineError": "lowtide.client.objects",
        "RequestResult": "lowtide.client.objects",
        "RowsFailed": "lowtide.client.errors",
        "amap": "lowtide.client.map",
        "map": "lowtide.client.map",
    }
)


def __getattr__(name: str) -> Any:
    """What `__all__` names, loaded now. By name, so that no ring is said to import this one."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'lowtide' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
