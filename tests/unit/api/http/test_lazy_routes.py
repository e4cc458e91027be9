"""Routes that are imported at their first request."""

import asyncio
import threading
from collections.abc import Sequence

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from lowtide.api.http import errors
from lowtide.api.http.lazy_routes import LazyRoutes


async def page(request: Request) -> Response:
    return PlainTextResponse(request.path_params.get("name", "root"))


class Pages:
    """Two routes under `/pages`, and how often and where they were loaded."""

    def __init__(self, *failures: Exception) -> None:
        self.loads: list[int] = []
        self._failures = list(failures)

    def load(self) -> Sequence[Route]:
        self.loads.append(threading.get_ident())
        if self._failures:
            raise self._failures.pop()
        return [
            Route("/pages", page, methods=["GET"]),
            Route("/pages/{name}", page, methods=["POST"]),
        ]


def client_of(pages: Pages) -> httpx.AsyncClient:
    lazy = LazyRoutes(lambda path: path.startswith("/pages"), pages.load)
    app = Starlette(
        routes=[Route("/other", page), lazy], exception_handlers=errors.exception_handlers()
    )
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def test_they_are_loaded_once_in_a_thread_when_the_first_request_comes() -> None:
    pages = Pages()
    async with client_of(pages) as client:
        assert (await client.get("/other")).status_code == 200
        assert (await client.get("/unknown")).status_code == 404
        assert pages.loads == []
        answers = await asyncio.gather(*(client.get("/pages") for _ in range(5)))
        assert [answer.text for answer in answers] == ["root"] * 5
        assert (await client.post("/pages/a")).text == "a"
    assert len(pages.loads) == 1
    assert pages.loads[0] != threading.get_ident()


async def test_a_method_that_none_of_them_takes_is_refused_with_those_that_one_does() -> None:
    async with client_of(Pages()) as client:
        answer = await client.put("/pages/a")
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
        assert (await client.get("/pages/a/b")).status_code == 404


async def test_a_failed_load_is_tried_again_at_the_next_request() -> None:
    pages = Pages(ImportError("the disk was away"))
    async with client_of(pages) as client:
        with pytest.raises(ImportError):
            await client.get("/pages")
        assert (await client.get("/pages")).text == "root"
    assert len(pages.loads) == 2
