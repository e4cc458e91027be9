"""The past of the demo: what people sent on the two days before, each day by a server of that day.

Their clocks are behind, so the rows, the charges and the deadlines are those of that day. It runs
with API keys, because two organizations take part.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from testkit.demo.client import DemoClient
from testkit.demo.installation import administrator, serve
from testkit.demo.processes import Processes
from testkit.demo.requests import LARGE, SMALL, UNSERVED, essays, reviews, with_mistakes

HOUR_S = 3600.0
LONG_NAME: Final = (
    "evaluation of the quarterly customer satisfaction survey, all regions, second attempt with the"
    " corrected prompt and the shorter answers that the product team asked for on Tuesday"
)

UNICODE_NAME: Final = "Sommer-Rückmeldungen ☀ 夏の声"


@dataclass(frozen=True, slots=True)
class Past:
    """Where the past is made: the settings of its servers, and the address of the webhooks."""

    processes: Processes
    settings: Path
    hooks: str
    say: Callable[[str], None]

    @contextmanager
    def server(self, hours_ago: float, key: str) -> Iterator[DemoClient]:
        """A server of that hour, for the owner of the key."""
        process, address = serve(self.processes, self.settings, hours_ago * HOUR_S)
        try:
            with DemoClient(address, key) as client:
                yield client
        finally:
            self.processes.stop(process)


def first_key(settings: Path, folder: Path) -> str:
    """The key of the installation's operator."""
    command = [sys.executable, "-m", "lowtide", *administrator(settings)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def live_through(past: Past, key: str) -> None:
    """Makes the days before."""
    past.say("two days ago: a second organization, webhooks, batches with and without errors")
    with past.server(50, key) as client:
        other = _second_organization(client)
        _webhooks(client, past.hooks)
        first = client.submit("tickets-w47.jsonl", reviews(80, seed=1), name="Support tickets")
        failed = client.submit(
            "reviews-novémbre.jsonl", reviews(120, seed=2, failing=6), name="Reviews of November"
        )
        with DemoClient(client.address, other) as theirs:
            done = theirs.submit("corpus.jsonl", essays(24, SMALL, tokens=40), name="Corpus notes")
            theirs.wait_until(done, "completed")
        for each in (first, failed):
            client.wait_until(each, "completed")
    past.say("yesterday: a retry, a file with mistakes, one cancelled, one that found no engine")
    with past.server(26, key) as client:
        retry = client.call("POST", f"/v1/batches/{failed}/retry", {})["id"]
        client.submit("with-mistakes.jsonl", with_mistakes())
        client.submit(
            "frontier.jsonl", essays(30, UNSERVED), name="Compare with DeepSeek", window="2h"
        )
        stopped = client.submit("long.jsonl", essays(400, LARGE, seed=3), name="Draft, too long")
        client.wait_until(stopped, "in_progress")
        summer = client.submit(
            "été.jsonl", reviews(60, seed=4), name="Sommer-Rückmeldungen ☀ 夏の声"
        )
        for each in (retry, summer):
            client.wait_until(each, "completed")
        client.call("POST", f"/v1/batches/{stopped}/cancel")
        client.wait_until(stopped, "cancelled")
    past.say("an hour ago: long names, and the other organization's night run")
    with past.server(1, key) as client:
        named = client.submit("survey-q4.jsonl", reviews(200, seed=5, failing=40), name=LONG_NAME)
        with DemoClient(client.address, other) as theirs:
            theirs.submit("night.jsonl", essays(900, LARGE, seed=6), name="Night run of theirs")
        client.wait_until(named, "completed")


def _second_organization(client: DemoClient) -> str:
    """The key of a project of another organization."""
    admin = "/v1/admin"
    limits = {"requests_in_flight": 12, "batches_per_hour": 100}
    asked = {"name": "Brightwater Research", "limits": limits, "spend_cap": "250"}
    organization = client.call("POST", f"{admin}/organizations", asked)
    asked = {"organization_id": organization["id"], "name": "corpus"}
    project = client.call("POST", f"{admin}/projects", asked)
    client.call("POST", f"{admin}/projects", asked | {"name": "evaluation"})
    asked = {"project_id": project["id"], "name": "nightly job"}
    key: str = client.call("POST", f"{admin}/keys", asked)["key"]
    spare = client.call("POST", f"{admin}/keys", asked | {"name": "laptop", "scopes": ["read"]})
    client.call("DELETE", f"{admin}/keys/{spare['id']}")
    return key


def _webhooks(client: DemoClient, hooks: str) -> None:
    for name, path in (("Data warehouse", "ok"), ("Chat bridge", "gone")):
        client.call("POST", "/v1/webhooks", {"url": f"{hooks}/hooks/{path}", "name": name})
