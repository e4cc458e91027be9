"""`lowtide report`: the page of a batch as one file, of a real HTTP API; and its bound on bytes."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from html import unescape
from pathlib import Path

import msgspec
import pytest
from batch_env import CHAT, Env, open_bench

from lowtide import limits
from lowtide.api.console.batches.report import ReportedBatch, Sampled, render_report
from lowtide.api.objects.accounts import UsageLine
from lowtide.api.objects.amounts import AmountsObject
from lowtide.api.objects.batches import (
    BatchObject,
    BatchUsage,
    CountsObject,
    LineErrorList,
    LineErrorObject,
)
from lowtide.api.objects.failures import FailureExampleObject, FailureGroupObject
from lowtide.api.objects.history import BatchEventObject, RateObject
from lowtide.api.objects.lines import LineObject
from lowtide.cli.app import main

HOSTILE = "<script>alert(1)</script>\u202e\x1b[31m"


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Env]:
    monkeypatch.chdir(tmp_path)
    with open_bench(tmp_path, monkeypatch) as running:
        monkeypatch.setenv("LOWTIDE_SERVER", running.http_api.url)
        monkeypatch.delenv("LOWTIDE_API_KEY", raising=False)
        yield running


def test_an_ended_batch_becomes_one_file_that_needs_nothing_else(env: Env, tmp_path: Path) -> None:
    body = {"input_file_id": env.upload(4).id, "endpoint": CHAT, "metadata": {"name": HOSTILE}}
    batch_id = str(env.post(body).json["id"])
    env.plan()
    env.settle(batch_id, ok=[1, 3], bad=[2, 4])
    env.assemble()
    target = tmp_path / "report.html"
    assert main(["report", batch_id, "-o", str(target)]) == 0
    html = target.read_text()
    reported = env.http_api.ask("GET", f"/v1/batches/{batch_id}").json
    page = unescape(html)
    for shown in (batch_id, "r-1", "r-3", "r-2", "r-4", "Some results", "Some failures"):
        assert shown in page
    assert "2 of 2" in page
    assert reported["input_file_id"] in page
    assert not re.search(r'<(script|link|img|iframe)|(src|href|action)=|\son\w+="', html)
    assert "default-src 'none'" in html
    assert "\u202e" not in html
    assert "\\u202e\\u001b[31m" in html


def test_a_running_batch_is_reported_as_it_is_now(
    env: Env, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    batch_id = str(env.post({"input_file_id": env.upload(3).id, "endpoint": CHAT}).json["id"])
    env.plan()
    env.settle(batch_id, ok=[2])
    capsys.readouterr()
    assert main(["report", batch_id, "-o", "-"]) == 0
    page = capsys.readouterr().out
    assert "<dt>To go</dt><dd>2</dd>" in page
    assert "r-2" in page
    assert main(["report", batch_id, "-o", str(tmp_path / "none" / "r.html")]) == 2
    assert main(["report", "batch_none", "-o", str(tmp_path / "r.html")]) == 2
    assert not (tmp_path / "r.html").exists()


def test_a_report_is_bounded_whatever_a_batch_has() -> None:
    """A million lines, the most groups of failures, and answers of megabytes in every sample."""
    wide = "<\u202e" * 250_000
    answer = {"choices": [{"message": {"role": wide, "content": wide}}] * 40}
    result = {"custom_id": wide, "response": {"body": answer}, "error": {"message": wide}}
    line = LineObject(
        place=0,
        line=1,
        bytes=1,
        result=msgspec.Raw(msgspec.json.encode(result)),
        request=msgspec.Raw(msgspec.json.encode({"body": {"messages": [{"content": wide}] * 40}})),
    )
    example = FailureExampleObject(line=1, custom_id=wide[:512], message=wide[:500])
    shape = wide[: limits.FAILURE_SHAPE_CHARS]
    group = FailureGroupObject(
        code=wide[: limits.FAILURE_CODE_CHARS], message=shape, count=10**6, examples=(example,) * 3
    )
    batch = BatchObject(
        id="batch_1",
        status="completed",
        in_progress_at=1,
        completed_at=10**6,
        request_counts=CountsObject(10**6, 10**6 - 101, 101),
        usage=BatchUsage(),
        cost=AmountsObject(),
        metadata={wide[: 60 + each]: wide[:512] for each in range(4, 8)},
        errors=LineErrorList(data=[LineErrorObject(message=wide)] * 1000),
    )
    rate = RateObject(
        at=1.0, seconds=1.0, completed=1, failed=1, input_tokens=1, output_tokens=1,
        requests_per_s=1.123456, failed_per_s=1.123456, tokens_per_s=1.123456,
    )  # fmt: skip
    rates = [msgspec.structs.replace(rate, at=1.0 + each) for each in range(300)]
    amounts = (
        "requests",
        "input_tokens",
        "cached_tokens",
        "output_tokens",
        "reasoning_tokens",
        "total_tokens",
        "unreported_requests",
    )
    cost: dict[str, object] = dict.fromkeys(amounts, 10**9) | {"model": wide[:200]}
    report = ReportedBatch(
        batch=batch,
        filename=wide[:200],
        costs=[msgspec.convert(cost, UsageLine)] * 1000,
        failures=[group] * (limits.FAILURE_SHAPES_MAX + 1),
        rates=rates,
        events=[BatchEventObject(at=float(each), kind="paused") for each in range(220)],
        results=Sampled([line] * limits.REPORT_SAMPLES, 10**6),
        errors=Sampled([line] * limits.REPORT_SAMPLES, 101),
        made_at=datetime(2026, 11, 29, tzinfo=UTC),
    )
    html = render_report(report)
    assert "1,000,000" in html
    assert len(html.encode()) < limits.REPORT_BYTES_MAX
