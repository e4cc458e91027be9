"""Routes whose modules are imported when the first request for one of them comes.

For parts that many processes never serve, as the console's pages. They are imported at the first
request and not in the background after the start, so that a process whose console is never opened
never has them in memory; and in a thread, so that other calls go on meanwhile. Called by `api.app`.
Invariant: which requests a group answers is known without importing it, so nothing is imported for
any other.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from starlette.routing import BaseRoute, Match, Route, Router
from starlette.types import Receive, Scope, Send


class LazyRoutes(BaseRoute):
    """A group of routes. Stands last among an application's routes, or before others that have
    no path with it in common: it answers all that `owns` says, if only by 404 or 405.
    """

    def __init__(self, owns: Callable[[str], bool], load: Callable[[], Sequence[Route]]) -> None:
        """`owns`: whether a path is one of the group's. `load` imports the routes; it is called in
        a thread, and once more after it raised.
        """
        self._owns: Final = owns
        self._load: Final = load
        self._loading = asyncio.Lock()
        self._router: Router | None = None

    @property
    def routes(self) -> Sequence[BaseRoute]:
        """The routes of the group, in their order; none before its first request."""
        return () if self._router is None else self._router.routes

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        is_own = scope["type"] == "http" and self._owns(scope["path"])
        return (Match.FULL if is_own else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers by the route that matches. Raises what importing raises, and HTTPException."""
        router = self._router or await self._loaded()
        await router(scope, receive, send)

    async def _loaded(self) -> Router:
        async with self._loading:
            if self._router is None:
                routes = await asyncio.to_thread(self._load)
                self._router = Router(routes, redirect_slashes=False)
            return self._router
