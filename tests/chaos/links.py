"""Several hosts whose links are cut, slow, or open in one direction only.

The fleet of `nodes`, each process on a host of its own (switch.py): one with PostgreSQL and the
bucket, one with the API, two with a worker each, two with an engine each. Each scenario does
something to links while batches run, for longer than a lease, and mends it; the judge does the
rest.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Final

import httpx
from calls import CallLog
from children import Child, Children
from client import Job, Watch, WrongAnswer
from faults import SLOW_BEAT_S, Fault
from installations import (
    COMMIT_INTERVAL_S,
    LEASE_TTL_S,
    Env,
    add_engine,
    bucket_environment,
    client_of,
    write_config,
)
from installations import (
    HERE as SCRIPTS,
)
from rounds import Plague
from switch import HERE, Switch

from lowtide import limits
from testkit.postgres import running_postgres

HOSTS: Final = (HERE, "db", "api", "worker-1", "worker-2", "engine-1", "engine-2")
PORT: Final = 8000
POSTGRES_PORT: Final = 5432
BUCKET_PORT: Final = 9000
GOING_S: Final = 30.0
REFUSED_S: Final = 2 * limits.STORE_CONNECT_S + 5.0
"""To notice that a connection is dead, and to find that no other can be made."""


@asynccontextmanager
async def net_house(folder: Path) -> AsyncIterator[tuple[Env, Switch]]:
    """The fleet, each process on its host. Raises NotPossible."""
    async with AsyncExitStack() as stack:
        switch = Switch(HOSTS)
        stack.enter_context(switch.running())
        postgres = await asyncio.to_thread(stack.enter_context, running_postgres())
        postgres.sql("CREATE DATABASE node")
        children = await stack.enter_async_context(Children(folder))
        db = switch.address("db")

        def on(host: str, name: str, *arguments: str | Path) -> Child:
            return children.add(name, *arguments, under=switch.inside(host))

        relay = ("--listen", f"{db}:{POSTGRES_PORT}", "--to", f"{postgres.folder}/.s.PGSQL.5432")
        await on("db", "relay", SCRIPTS / "relay.py", *relay).start()
        place = ("--host", db, "--port", str(BUCKET_PORT))
        await on("db", "bucket", SCRIPTS / "bucket.py", *place).start()
        os.environ.update(bucket_environment(f"http://{db}:{BUCKET_PORT}"))
        env = Env("net", folder, client_of(""), CallLog({}), database=postgres)
        urls = await _start_engines(children, env, switch)
        server = {
            "database_url": f"postgresql://lowtide@{db}:{POSTGRES_PORT}/node?sslmode=disable",
            "blob_url": "s3://lowtide/node",
        }
        api = switch.address("api")
        config = write_config(folder, "api", urls, port=PORT, server=server, host=api, auth="keys")
        make_key = ("-m", "lowtide", "keys", "create", "chaos", "--config", config, "--json")
        key = (await on("api", "key", *make_key).start())["key"]
        serve = ("-m", "lowtide", "serve", "--role", "api", "--config", config, "--json")
        await env.add("api", on("api", "api", *serve)).start()
        for name in ("worker-1", "worker-2"):
            config = write_config(folder, name, urls, server=server)
            work = ("-m", "lowtide", "worker", "--config", config, "--json")
            await env.add("worker", on(name, name, *work)).start()
        env.http = await stack.enter_async_context(client_of(f"http://{api}:{PORT}", key))
        yield env, switch


async def _start_engines(children: Children, env: Env, switch: Switch) -> dict[str, str]:
    """Their URLs; the node hears what they are asked."""
    urls, files = {}, {}
    for name in ("engine-1", "engine-2"):
        urls[name], files[name], engine = add_engine(
            children, name, switch.address(name), PORT, under=switch.inside(name)
        )
        await env.add("engine", engine).start()
    env.calls = CallLog(files)
    return urls


Harm = Callable[[Switch, str], None]
"""What is done to the links of one host."""


def _cut(switch: Switch, host: str) -> None:
    switch.cut |= switch.pairs(host)


def _cut_from_db(switch: Switch, host: str) -> None:
    switch.cut |= switch.pairs(host, ("db",))


def _mute(switch: Switch, host: str) -> None:
    """It hears what others send, and nobody hears it."""
    switch.cut |= {(host, other) for other in HOSTS}


def _deaf(switch: Switch, host: str) -> None:
    switch.cut |= {(other, host) for other in HOSTS}


def _mute_to_db(switch: Switch, host: str) -> None:
    switch.cut.add((host, "db"))


def _deaf_to_db(switch: Switch, host: str) -> None:
    switch.cut.add(("db", host))


def _slow(switch: Switch, host: str) -> None:
    """A far away host behind a bad line: 300 ms there and back, one frame in fifty is lost."""
    for pair in switch.pairs(host):
        switch.delays_s[pair] = 0.15
        switch.losses[pair] = 0.02


_HARMS: Final[Mapping[str, tuple[Harm, str]]] = {
    "cut": (_cut, "worker"),
    "cut-from-db": (_cut_from_db, "worker"),
    "one-way-mute": (_mute, "worker"),
    "one-way-deaf": (_deaf, "worker"),
    "one-way-to-db": (_mute_to_db, "worker"),
    "one-way-from-db": (_deaf_to_db, "worker"),
    "slow": (_slow, "worker"),
    "api-cut-from-db": (_cut_from_db, "api"),
    "engine-cut": (_cut, "engine"),
    "engine-slow": (_slow, "engine"),
    "db-cut": (_cut, "db"),
}


def plague_of(name: str, switch: Switch) -> Plague:
    """The scenario `name`."""
    harm, role = _HARMS[name]

    async def plague(
        env: Env, jobs: Sequence[Job], watch: Watch, random: Random, faults: list[Fault]
    ) -> None:
        if not await watch.until(lambda: any(job.settled > 50 for job in jobs), GOING_S):
            raise WrongAnswer("nothing has settled")
        host = random.choice([each for each in HOSTS if each.startswith(role)])
        at = time.monotonic()
        harm(switch, host)
        try:
            await asyncio.sleep(LEASE_TTL_S * (1.5 + random.random()))
            if name == "api-cut-from-db":
                await _refuses_in_time(env)
        finally:
            switch.heal()
        mended_at = time.monotonic()
        # What was sent waits for TCP to try again, at worst as long as the link was cut.
        until = mended_at + (mended_at - at) + COMMIT_INTERVAL_S + SLOW_BEAT_S
        others = role == "worker" and name != "slow"
        faults.append(
            Fault(name, host, at, "dispatch", mended_at, mended_at, until, is_for_others=others)
        )

    return plague


async def _refuses_in_time(env: Env) -> None:
    """An HTTP API without its database says so, and says it before a client gives up."""
    try:
        answer = await env.http.get("/v1/batches", timeout=REFUSED_S)
    except httpx.TransportError as error:
        raise WrongAnswer(f"the API without its database does not answer: {error!r}") from error
    if answer.status_code != 503:
        raise WrongAnswer(f"the API without its database: {answer.status_code} {answer.text}")


SCENARIOS: Final = tuple(_HARMS)
