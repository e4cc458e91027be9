"""How a batch went, on its page, as a browser without JavaScript sees it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from console_client import get, sign_in
from tenant_env import Env, open_house

from lowtide.service.batches.steering import PauseBatch


@pytest.fixture
def env(tmp_path: Path) -> Iterator[Env]:
    with open_house(tmp_path) as running:
        yield running


def test_a_batch_page_draws_its_rates_and_tells_its_events(env: Env) -> None:
    tenant = env.tenant()
    batch = env.ended_batch(tenant)
    text = get(env.http_api, f"/console/batches/{batch.id}", sign_in(tenant)).body.decode()
    assert text.count('<svg class="plot" role="img" aria-label=') == 3
    assert "Requests done: 3 of 3" in text
    assert "failures in red" in text
    told = re.findall(r"<li[^>]*><time.*?</time> <span>(.*?)</span></li>", text)
    assert [re.sub("<.*?>", "", each).strip() for each in told] == [
        "Completed",
        "All requests ended, results are written",
        "First result",
        "Input is valid, requests may run 3 requests",
        f"Created by {tenant.key_id}",
    ]


def test_a_page_tells_who_paused_a_batch_and_draws_the_pause(env: Env) -> None:
    tenant = env.tenant()
    batch = env.running_batch(tenant)
    page = f"/console/batches/{batch.id}"
    tenant.ask("POST", f"/v1/batches/{batch.id}/pause", {})
    text = get(env.http_api, page, sign_in(tenant)).body.decode()
    assert re.search(rf"Paused by <code class=\"id\">{tenant.key_id}</code>", text)
    assert "plot-paused" in text, "the pause is a band in the plots"


def test_an_operators_pause_names_nobody(env: Env) -> None:
    tenant = env.tenant()
    batch = env.running_batch(tenant)
    steering = env.http_api.services.steering
    env.http_api.run(steering.pause(None, batch.id, PauseBatch(), "key_of_an_operator"))
    text = get(env.http_api, f"/console/batches/{batch.id}", sign_in(tenant)).body.decode()
    assert "Paused by the operator" in text
    assert "key_of_an_operator" not in text
