"""The receivers of a world's webhooks, and what they heard.

Receivers stand outside of all processes. They refuse, fall silent after they took an event, or are
away, up to `REFUSALS_MAX` times for each event, so that every event can arrive. `check` holds the
ends of batches against what was heard: each event once at least, under one id.
"""

import asyncio
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Mapping
from random import Random
from typing import Any, Final

import msgspec

from lowtide.core.batches.batch import TERMINAL
from lowtide.core.webhooks.endpoint import EVENT_OF, EVENT_TYPES
from lowtide.core.webhooks.schedule import Attempt
from testkit.sim.invariants import Violation
from testkit.sim.process import Process
from testkit.sim.trace import Trace

ENDPOINT_ID: Final = "wh_sim"
ENDPOINT_URL: Final = "https://all.example/"
OWN_URL: Final = "https://own.example/"
REFUSALS_MAX: Final = 3
_SECRET: Final = "whsec_" + "AAAA" * 8
_LATE_S: Final = 0.3
_NAMED: Final = (
    "SELECT batch_id FROM batch_webhooks UNION"
    " SELECT batch_id FROM webhook_deliveries JOIN batches ON batches.id = batch_id"
    " WHERE endpoint_id = 'project' AND deleted_at IS NOT NULL"
)
"""The batches with an address of their own, of which a deleted one keeps the delivery alone."""


class Receivers:
    """All receivers of one world."""

    def __init__(self, seed: int, trace: Trace) -> None:
        self._random = Random(f"webhooks {seed}")
        self._trace = trace
        self._refusals: Counter[tuple[str, str]] = Counter()
        self.heard: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        """Events by batch and address, in the order in which they arrived."""

    def sender(self, process: Process) -> "SimSender":
        """What one process calls them with."""
        return SimSender(process, self)

    async def take(self, url: str, headers: Mapping[str, str], body: bytes) -> Attempt:
        """One call. What arrived is noted, whether or not the caller learns of it."""
        await asyncio.sleep(self._random.expovariate(1 / _LATE_S))
        event = msgspec.json.decode(body)
        if headers["webhook-id"] != event["id"]:
            raise Violation(f"an event {event['id']} came as {headers['webhook-id']}")
        place = (event["data"]["id"], url)
        draw = self._random.random()
        if draw > 0.5 or self._refusals[place] >= REFUSALS_MAX:
            self.heard[place].append(event)
            return Attempt(204)
        self._refusals[place] += 1
        self._trace.count("receiver refused or fell silent")
        if draw < 0.2:
            return Attempt(503)
        if draw < 0.35:
            self.heard[place].append(event)  # and its answer is lost
        return Attempt(error="no answer")

    def check(self, path: str) -> None:
        """Raises Violation unless all ends were told, once at least, and as they were."""
        with sqlite3.connect(path, isolation_level=None) as db:
            db.row_factory = sqlite3.Row
            batches = db.execute("SELECT id, status, flex FROM batches").fetchall()
            named = {row["batch_id"] for row in db.execute(_NAMED)}
            states = Counter(row[0] for row in db.execute("SELECT state FROM webhook_deliveries"))
        db.close()
        expected = {
            (row["id"], url): EVENT_OF[row["status"]]
            for row in batches
            if row["flex"] is None and row["status"] in TERMINAL
            for url in (ENDPOINT_URL, *([OWN_URL] if row["id"] in named else []))
        }
        for place, type in expected.items():
            events = self.heard.get(place, [])
            if not events:
                raise Violation(f"{place} was never told that it is {type}")
            if len({(event["id"], event["type"]) for event in events}) != 1:
                raise Violation(f"{place} was told different events: {events}")
            if events[0]["type"] != type:
                raise Violation(f"{place} ended as {type} and was told {events[0]}")
        if unknown := set(self.heard) - set(expected):
            raise Violation(f"ends were told that there were none of: {unknown}")
        if states != Counter(delivered=len(expected)):
            raise Violation(f"deliveries are {dict(states)}, and {len(expected)} ends were told")


class SimSender:
    """`ports.webhooks.WebhookSender` of one process."""

    def __init__(self, process: Process, receivers: Receivers) -> None:
        self._process = process
        self._receivers = receivers

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Attempt:
        self._process.exit_if_dead()
        attempt = await self._receivers.take(url, headers, body)
        self._process.exit_if_dead()
        return attempt

    async def refusal(self, url: str) -> str | None:  # noqa: ARG002 - the port has it
        return None

    async def aclose(self) -> None:
        """Nothing is open."""


def pending(path: str) -> int:
    """How many deliveries are not over."""
    with sqlite3.connect(path, isolation_level=None) as db:
        (count,) = db.execute(
            "SELECT count(*) FROM webhook_deliveries WHERE state = 'pending'"
        ).fetchone()
    db.close()
    return int(count)


def subscribe(path: str) -> None:
    """Name an endpoint that hears of every end, and the secret for addresses of batches."""
    events = msgspec.json.encode(EVENT_TYPES).decode()
    with sqlite3.connect(path) as db:
        db.execute(
            "INSERT INTO webhook_endpoints (id, project_id, organization_id, url, name, events,"
            " created_at, updated_at) VALUES (?, 'proj_default', 'org_default', ?, '', ?, 0, 0)",
            (ENDPOINT_ID, ENDPOINT_URL, events),
        )
        for owner in (ENDPOINT_ID, "proj_default"):
            db.execute("INSERT INTO webhook_secrets VALUES (?, ?, 0, NULL)", (owner, _SECRET))
    db.close()
