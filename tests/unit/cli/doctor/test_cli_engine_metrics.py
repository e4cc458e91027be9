"""What `lowtide doctor` finds of the metrics of an engine."""

import msgspec
import pytest

from lowtide.cli.doctor.engine_metrics import check_metrics
from lowtide.cli.doctor.finding import Finding
from lowtide.config import ReplicaSettings
from lowtide.engine_sim.http.options import ServerOptions
from lowtide.engine_sim.http.serving import served
from testkit.scripted_engine import ScriptedEngine, reply

PAGE = b"""\
llamacpp:requests_processing 0
llamacpp:requests_deferred 0
llamacpp:prompt_tokens_total 0
llamacpp:tokens_predicted_total 0
"""


async def finding(page: bytes, status: int = 200, **more: str) -> Finding | None:
    async with ScriptedEngine() as engine:
        engine.pages = {"/metrics": (reply(page, status),)}
        return await check_metrics(ReplicaSettings(url=engine.url, models=("m",), **more))


async def test_a_page_with_all_that_is_read_is_well() -> None:
    found = await finding(PAGE)
    assert found is not None
    assert (found.verdict, found.what) == ("ok", "tells all that is read of llamacpp")


async def test_a_metric_that_was_renamed_is_told_by_name() -> None:
    found = await finding(PAGE.replace(b"requests_deferred", b"requests_waiting"))
    assert found is not None
    assert found.verdict == "warn"
    assert found.what.startswith("has no llamacpp:requests_deferred (how many wait")
    assert "renamed" in found.remedy


async def test_one_without_which_nothing_is_told_says_what_follows() -> None:
    found = await finding(PAGE.replace(b"requests_processing", b"busy"))
    assert found is not None and found.verdict == "warn"
    assert "learned from answers" in found.what


async def test_a_vllm_with_the_scheduler_class_is_told() -> None:
    async with served(ServerOptions(batch_scheduler="step-bound")) as engine:
        replica = ReplicaSettings(url=engine.url, models=("m",))
        found = await check_metrics(replica)
        unknown = await check_metrics(msgspec.structs.replace(replica, priority="none"))
    assert found is not None and found.verdict == "ok"
    assert "scheduler class" in found.what and "nothing is paced" in found.what
    assert unknown is not None and unknown.verdict == "warn", "batch calls are live ones to it"


async def test_a_vllm_with_its_own_scheduler_is_not_said_to_have_the_class() -> None:
    async with served(ServerOptions()) as engine:
        found = await check_metrics(ReplicaSettings(url=engine.url, models=("m",)))
    assert found is not None and "scheduler class" not in found.what


@pytest.mark.parametrize(("page", "status"), [(b"", 404), (b"python_info 1\n", 200), (b"", 200)])
async def test_an_engine_without_such_a_page_is_no_finding(page: bytes, status: int) -> None:
    assert await finding(page, status) is None
    assert await finding(PAGE, engine="openai") is None
