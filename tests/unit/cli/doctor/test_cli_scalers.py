"""What `lowtide doctor` finds of a scaler, without changing anything."""

import asyncio
import os
from pathlib import Path
from typing import Any

from lowtide.cli.doctor.finding import Finding
from lowtide.cli.doctor.scalers import check_scalers
from lowtide.config import ScalerSettings, Settings, SourceSettings
from testkit.small_http_server import Answer, PlayedCall, small_http_server

SCALE = b'{"kind": "Scale", "spec": {"replicas": 2}, "status": {"replicas": 1}}'


async def finding(answer: Answer | None = None, **more: Any) -> Finding:
    calls: list[PlayedCall] = []

    def handler(call: PlayedCall) -> Answer:
        calls.append(call)
        return answer or (200, SCALE)

    async with small_http_server(handler) as url:
        scaler = ScalerSettings(
            kind="kubernetes", models=("m",), namespace="n", deployment="d", api_url=url,
            **more,
        )  # fmt: skip
        sources = (SourceSettings(kind="file", path=Path("/e")),)
        (found,) = await check_scalers(Settings(scaler=(scaler,), source=sources))
    changes = [call for call in calls if call.method != "GET" and call.query.get("dryRun") != "All"]
    assert not changes
    return found


async def test_one_that_can_be_asked_is_well() -> None:
    found = await finding(replicas_max=4)
    assert (found.verdict, found.name) == ("ok", "scaler kubernetes n/d")
    assert found.what == "has 1 of 2 replicas, may have from 0 to 4"
    assert "a dry run" in (await finding(dry_run=True)).what


async def test_one_that_may_not_fails_with_what_to_do() -> None:
    found = await finding((403, b'{"message": "forbidden"}'))
    assert (found.verdict, "403" in found.what) == ("fail", True)
    assert "patch deployments/scale" in found.remedy


async def test_a_command_is_looked_for_and_nothing_is_started(tmp_path: Path) -> None:
    scaler = ScalerSettings(kind="command", models=("m",), start=("sleep", "1"), folder=tmp_path)
    (found,) = await check_scalers(Settings(scaler=(scaler,)))
    assert (found.verdict, "no source finds" in found.what) == ("warn", True)
    assert not (await asyncio.to_thread(os.listdir, tmp_path))
    missing = ScalerSettings(kind="command", models=("m",), start=("no-such-engine",))
    (found,) = await check_scalers(Settings(scaler=(missing,)))
    assert (found.verdict, "no such program" in found.what) == ("fail", True)
