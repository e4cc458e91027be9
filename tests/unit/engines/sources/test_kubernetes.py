"""Ready pods of a Service: lists, watches that end or break, tokens that change."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lowtide import limits
from lowtide.engines.sources.json_http import JsonApi
from lowtide.engines.sources.kubernetes import ServiceEndpoints
from lowtide.ports.sources import Listing, SourceError
from testkit.kubernetes_api import KubernetesApi, pod
from testkit.patience import PATIENCE_S
from testkit.small_http_server import small_http_server


class Cluster:
    """An API server with one Service, and what looks at it."""

    def __init__(self, url: str, api: KubernetesApi, token: Path) -> None:
        self.url = url
        self.api = api
        self.token = token
        token.write_text("t1\n")
        self.source = self.opened()

    def opened(
        self, port: int | str | None = None, *, by_service: bool = False
    ) -> ServiceEndpoints:
        client = JsonApi(self.url, token_file=self.token)
        return ServiceEndpoints(client, "default", "vllm", port=port, by_service=by_service)

    async def read(self) -> Listing:
        async with asyncio.timeout(PATIENCE_S):
            return await self.source.read()

    async def names(self) -> list[str]:
        return [each.name for each in (await self.read()).engines]


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    api = KubernetesApi()
    async with small_http_server(api) as url:
        one = Cluster(url, api, tmp_path / "token")
        api.put("s", [pod("a", "10.0.0.1")])
        yield one
        await one.source.aclose()


async def watching(cluster: Cluster) -> "asyncio.Task[Listing]":
    """A look that waits for news, once the server has its watch."""
    before = len(cluster.api.watches)
    reading = asyncio.create_task(cluster.read())
    async with asyncio.timeout(PATIENCE_S):
        await cluster.api.saw_watches(before + 1)
    return reading


def names_of(listing: Listing) -> list[str]:
    return [each.name for each in listing.engines]


async def ended_watch(cluster: Cluster) -> Listing:
    """What a look tells whose watch the server ends without news."""
    reading = await watching(cluster)
    cluster.api.end_watches()
    return await reading


async def test_news_are_told_as_they_come_with_one_list_and_one_watch(cluster: Cluster) -> None:
    assert await cluster.names() == ["default/a"]
    reading = await watching(cluster)
    cluster.api.put("s", [pod("a", "10.0.0.1"), pod("b", "10.0.0.2")])
    assert names_of(await reading) == ["default/a", "default/b"]
    cluster.api.remove("s")
    cluster.api.put("t", [pod("b", "10.0.0.2")])
    with pytest.raises(SourceError, match="is not there"):
        await cluster.read()
    assert (cluster.api.lists, len(cluster.api.watches)) == (1, 1)
    assert await cluster.names() == ["default/b"]


async def test_bookmarks_are_no_news_but_say_where_to_go_on(cluster: Cluster) -> None:
    await cluster.read()
    reading = await watching(cluster)
    cluster.api.bookmark()
    cluster.api.put("other", [pod("a", "10.0.0.1")])  # the same engine again: no news
    cluster.api.end_watches()
    assert names_of(await reading) == ["default/a"]
    await ended_watch(cluster)
    assert cluster.api.watches == ["11", "13"]
    assert cluster.api.lists == 1


async def test_a_watch_that_ends_without_news_is_begun_again_after_a_pause(
    cluster: Cluster,
) -> None:
    await cluster.read()
    assert (await ended_watch(cluster)).again_s == limits.SOURCE_AGAIN_S
    cluster.api.put("s", [pod("b", "10.0.0.2")])  # while nobody watches
    assert await cluster.names() == ["default/b"]
    assert cluster.api.lists == 1


async def test_a_version_that_is_forgotten_is_listed_anew(cluster: Cluster) -> None:
    await cluster.read()
    reading = await watching(cluster)
    cluster.api.forget()
    await reading
    cluster.api.put("s", [pod("c", "10.0.0.3")])
    assert await cluster.names() == ["default/c"]
    assert cluster.api.lists == 2


async def test_a_version_that_is_forgotten_within_a_watch_is_listed_anew(cluster: Cluster) -> None:
    await cluster.read()
    reading = await watching(cluster)
    cluster.api.tell(b'{"type": "ERROR", "object": {"code": 410, "message": "too old"}}\n')
    assert names_of(await reading) == ["default/a"]
    assert cluster.api.lists == 2


@pytest.mark.parametrize(
    "line",
    [
        b"no json\n",
        b'{"type": "MODIFIED", "object": {"endpoints": 7}}\n',
        b'{"type": "ERROR", "object": {"code": 500, "message": "etcd"}}\n',
        b'{"type": "ERROR"}\n',
    ],
)
async def test_a_watch_that_makes_no_sense_is_an_error_and_then_listed_anew(
    cluster: Cluster, line: bytes
) -> None:
    await cluster.read()
    reading = await watching(cluster)
    cluster.api.tell(line)
    with pytest.raises(SourceError):
        await reading
    assert await cluster.names() == ["default/a"]
    assert cluster.api.lists == 2


async def test_a_line_that_is_cut_is_not_taken_for_a_whole_one(cluster: Cluster) -> None:
    await cluster.read()
    reading = await watching(cluster)
    cluster.api.tell(b'{"type": "DELETED", "object": {"metadata": {"name": "s"}}}')
    cluster.api.end_watches()
    assert names_of(await reading) == ["default/a"]


async def test_a_token_that_was_exchanged_is_read_anew(cluster: Cluster) -> None:
    await cluster.read()
    cluster.api.token = "t2"
    with pytest.raises(SourceError, match=r"it answers 401: Unauthorized") as caught:
        await cluster.read()
    assert "t1" not in str(caught.value)
    cluster.token.write_text("t2\n")
    assert await cluster.names() == ["default/a"]


async def test_a_service_that_is_not_there_is_an_error(cluster: Cluster) -> None:
    nobody = ServiceEndpoints(JsonApi(cluster.url, token_file=cluster.token), "default", "vlllm")
    with pytest.raises(SourceError, match="Service vlllm is not there in namespace default"):
        await nobody.read()
    await nobody.aclose()


async def test_a_service_without_ready_pods_has_no_engine(cluster: Cluster) -> None:
    cluster.api.put("s", None, ports=[])
    assert await cluster.names() == []


async def test_a_mesh_is_called_by_the_name_of_its_service(cluster: Cluster) -> None:
    mesh = cluster.opened(by_service=True)
    (engine,) = (await mesh.read()).engines
    assert (engine.name, engine.host, engine.port) == ("default/vllm", "vllm.default.svc", 8000)
    cluster.api.put("s", [pod("a", "10.0.0.1", ready=False)])
    assert (await mesh.read()).engines == ()
    await mesh.aclose()


async def test_a_port_that_is_not_clear_is_an_error(cluster: Cluster) -> None:
    cluster.api.put("s", [pod("a", "10.0.0.1")], ports=[{"name": "h", "port": 1}, {"port": 2}])
    with pytest.raises(SourceError, match="Service vllm has the ports"):
        await cluster.read()
    named = cluster.opened("h")
    assert (await named.read()).engines[0].port == 1
    await named.aclose()
