"""How a batch went, on its page, as a browser without JavaScript sees it."""

import re
from collections.abc import Iterator
from datetime import timedelta
from html import unescape
from pathlib import Path
from urllib.parse import quote

import pytest
from console_client import get, sign_in
from tenant_env import Env, open_house

from lowtide import limits
from lowtide.core.history.replica_history import ReplicaPart, ReplicaRow, bucket_begin
from lowtide.core.reporting.worker_report import ReplicaReport, WorkerReport
from lowtide.core.scheduling.forecast import CELLS, HourOfWeek
from lowtide.ports.capacity import Capacity
from lowtide.service.batches.steering import PauseBatch
from testkit.statements import statements


@pytest.fixture
def env(tmp_path: Path) -> Iterator[Env]:
    with open_house(tmp_path) as running:
        yield running


def test_a_batch_page_draws_its_rates_and_tells_its_events(env: Env) -> None:
    tenant = env.tenant()
    batch = env.ended_batch(tenant)
    page, cookie = f"/console/batches/{batch.id}", sign_in(tenant)
    with statements() as asked:
        text = get(env.http_api, page, cookie).body.decode()
    assert len([each for each in asked if "FROM batch_notes" in each]) == 1, "for plots and list"
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


def test_a_batch_tells_when_it_is_done_at_a_slow_pace(
    env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant, store, now = env.tenant(), env.http_api.store, env.http_api.clock.now()
    replicas = (ReplicaReport(name="r", models=("m",)),)
    report = WorkerReport(worker_id="w", seen_at=now, ttl_s=3600.0, replicas=replicas)
    env.http_api.run(store.worker_reports.write(report, forget_before=now))
    batch = env.running_batch(tenant)
    env.http_api.run(tenant.worker.lease(batch.id, ["m"]))
    env.http_api.run(tenant.worker.settle(batch.id, ok=[1]))
    learned = env.http_api.run(store.capacity.capacity())
    rate = sum(part.cost_left for part in learned.backlog) / 600.0
    cells = {"m": dict.fromkeys(range(CELLS), HourOfWeek(p20=rate / 2, p50=rate, weeks=8))}

    async def capacity() -> Capacity:
        return Capacity(learned.backlog, {}, cells)

    monkeypatch.setattr(store.capacity, "capacity", capacity)
    env.http_api.clock.shift = timedelta(seconds=2 * limits.BACKLOG_AGE_S)
    told = tenant.ask("GET", f"/v1/batches/{batch.id}").json
    assert (told["eta_seconds"], told["cautious_eta_seconds"]) == (600, 1200)
    apart_s = told["cautious_completion_at"] - told["estimated_completion_at"]
    assert apart_s == pytest.approx(600, abs=1)
    text = get(env.http_api, f"/console/batches/{batch.id}", sign_in(tenant)).body.decode()
    assert "<dt>at a slow pace</dt><dd><time" in text
    assert "shaded: up to a slow pace" in text
    assert "plot-area plot-planned" in text


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


def test_engines_are_drawn_for_administrators_each_on_a_page_of_its_own_too(env: Env) -> None:
    admin = env.tenant(scopes=("read", "admin"))
    now, name = env.http_api.clock.now(), "<b>:8001/x"
    report = WorkerReport(
        worker_id="w",
        seen_at=now,
        ttl_s=3600.0,
        replicas=(ReplicaReport(name=name, models=("m",)),),
    )
    env.http_api.run(env.http_api.store.worker_reports.write(report, forget_before=now))
    part = ReplicaPart(first_bytes={4: 2}, seen_s=20.0, window_s=60.0, gave_way_s=4.0)
    rows = [ReplicaRow(name, bucket_begin(now - timedelta(minutes=1)), part)]
    env.http_api.run(env.http_api.store.history.write_replicas("p", rows))
    cookie, page = sign_in(admin), f"/console/engines/{quote(name, '')}"
    for path in ("/console/engines", page, f"{page}?hours=36"):
        text = get(env.http_api, path, cookie).body.decode()
        assert text.count('<svg class="plot" role="img"') == 3
        assert "no target is set; batches gave way for 4 s." in text
        assert "nothing older is recorded" in text
        assert "<b>:8001" not in text
        assert "style=" not in text
    assert get(env.http_api, "/console/engines/none", cookie).status == 404
    assert get(env.http_api, page, sign_in(env.tenant("reader"))).status == 403


def test_a_batch_shows_when_its_engines_gave_live_calls_the_room(env: Env) -> None:
    tenant = env.tenant()
    batch = env.running_batch(tenant)
    env.http_api.clock.shift += timedelta(minutes=1)  # what workers report is looked up again
    now = env.http_api.clock.now()
    replica = ReplicaReport(name="a", models=("m",))
    report = WorkerReport(worker_id="w", seen_at=now, ttl_s=3600.0, replicas=(replica,))
    env.http_api.run(env.http_api.store.worker_reports.write(report, forget_before=now))
    page, cookie = f"/console/batches/{batch.id}", sign_in(tenant)
    assert "plot-gave-way" not in get(env.http_api, page, cookie).body.decode()
    rows = [ReplicaRow(name, bucket_begin(now), ReplicaPart(gave_way_s=1.0)) for name in ("a", "b")]
    env.http_api.run(env.http_api.store.history.write_replicas("p", rows))
    text = get(env.http_api, page, cookie).body.decode()
    assert text.count("plot-band plot-gave-way") == 3
    assert "an engine that serves the model gave live calls the room" in text


def test_the_week_is_shown_to_administrators(env: Env) -> None:
    admin, tenant = env.tenant(scopes=("read", "submit", "admin")), env.tenant("other")
    cookie = sign_in(admin)
    assert "Nothing learned yet" in get(env.http_api, "/console/week", cookie).body.decode()
    batch, own = env.running_batch(tenant), env.running_batch(admin)
    env.http_api.clock.shift += timedelta(minutes=1)  # what is foreseen is worked out again
    with statements() as asked:
        text = get(env.http_api, "/console/week", cookie).body.decode()
    assert len([each for each in asked if "batches.id IN" in each]) == 1, "the names of both"
    assert 'class="heat ' not in text, "nothing is drawn of what was not learned"
    assert "0 of 168 hours learned" in text
    assert 'class="plot plot-courses"' in text
    assert f'<span class="id">{batch.id}</span> <small>of another project' in text
    assert f'<a href="/console/batches/{own.id}">' in text
    assert "style=" not in text
    assert get(env.http_api, "/console/week", sign_in(tenant)).status == 403


def test_a_row_of_the_list_tells_the_rate_and_whose_the_batch_is(env: Env) -> None:
    tenant = env.tenant()
    batch = env.running_batch(tenant, requests=600)
    text = get(env.http_api, "/", sign_in(tenant)).body.decode()
    assert "/s</span>" not in text, "nothing has ended"
    assert f'title="the key that made it">{tenant.key_id}</td>' in text
    env.http_api.run(tenant.worker.lease(batch.id, ["m"]))
    env.http_api.run(tenant.worker.settle(batch.id, ok=[1, 2]))
    text = get(env.http_api, "/", sign_in(tenant)).body.decode()
    assert re.search(r'title="requests a second since they began">[\d.,]+/s</span>', text)


def test_the_strip_of_an_ended_batch_leads_to_its_lines(env: Env) -> None:
    tenant = env.tenant()
    batch = env.ended_batch(tenant)
    text = get(env.http_api, f"/console/batches/{batch.id}", sign_in(tenant)).body.decode()
    lines = f"/console/batches/{batch.id}/lines"
    links = re.findall(rf'<a href="({lines}\?[^"]*first=[^"]*)" data-first', text)
    assert len(links) > 1
    for link in links:
        page = get(env.http_api, unescape(link), sign_in(tenant)).body.decode()
        assert '<article class="line' in page


def test_a_batch_of_several_chunks_has_a_strip_of_its_parts(env: Env) -> None:
    tenant = env.tenant()
    batch = env.running_batch(tenant, requests=600)
    env.http_api.run(tenant.worker.lease(batch.id, ["m"]))
    env.http_api.run(tenant.worker.settle(batch.id, ok=[1], bad=[2]))
    text = get(env.http_api, f"/console/batches/{batch.id}", sign_in(tenant)).body.decode()
    assert '<svg class="plot-strip" role="img"' in text
    assert 'class="cell cell-failed"' in text
    small = env.running_batch(tenant)
    text = get(env.http_api, f"/console/batches/{small.id}", sign_in(tenant)).body.decode()
    assert "plot-strip" not in text, "one part says no more than the bar of requests"
