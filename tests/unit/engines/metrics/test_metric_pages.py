"""engines/metrics/{vllm,sglang,tgi,llamacpp}.py: what their pages say."""

import engine_pages
import pytest

from lowtide.core.capacity.engine_metrics import EngineMetrics
from lowtide.engines.metrics import llamacpp, sglang, tgi, vllm

INF = float("inf")


def test_vllm_tells_all_there_is() -> None:
    assert vllm.metrics_of(vllm.PAGE.read(engine_pages.VLLM)) == EngineMetrics(
        running=37,
        waiting=4,
        kv_used=0.6125,
        kv_capacity_tokens=26_875 * 16,
        preemptions_total=12,
        prompt_tokens_total=901_000,
        generation_tokens_total=412_345,
        cached_tokens_total=100_500,
        itl_buckets=((0.01, 100), (0.025, 400), (0.05, 900), (INF, 1000)),
        caches_prefixes=True,
    )


@pytest.mark.parametrize(
    ("told", "says"),
    [(b'"True"', True), (b'"False"', False), (b'"None"', False)],
)
def test_a_vllm_caches_prefixes_when_it_says_so(told: bytes, *, says: bool) -> None:
    name = b"enable_prefix_caching="
    reported = vllm.metrics_of(
        vllm.PAGE.read(engine_pages.VLLM.replace(name + b'"True"', name + told))
    )
    assert reported is not None
    assert reported.caches_prefixes == says


def test_of_several_vllm_engines_none_is_known_to_have_read_what_another_has() -> None:
    page = engine_pages.VLLM_TWO_ENGINES.replace(
        b'block_size="16"', b'block_size="16",enable_prefix_caching="True"'
    )
    reported = vllm.metrics_of(vllm.PAGE.read(page))
    assert reported is not None
    assert not reported.caches_prefixes


@pytest.mark.parametrize(
    ("info", "says"),
    [
        (sglang.SglangInfo(disable_radix_cache=False, dp_size=1), True),
        (sglang.SglangInfo(disable_radix_cache=True, dp_size=1), False),
        (sglang.SglangInfo(disable_radix_cache=False, dp_size=2), False),
        (sglang.SglangInfo(), False),
    ],
)
def test_an_sglang_caches_prefixes_when_its_settings_say_so(
    info: sglang.SglangInfo, *, says: bool
) -> None:
    reported = sglang.metrics_of(sglang.PAGE.read(engine_pages.SGLANG), info)
    assert reported is not None
    assert reported.caches_prefixes == says


def test_the_engines_of_a_data_parallel_vllm_are_one() -> None:
    reported = vllm.metrics_of(vllm.PAGE.read(engine_pages.VLLM_TWO_ENGINES))
    assert reported is not None
    assert (reported.running, reported.waiting, reported.preemptions_total) == (40, 2, 3)
    assert reported.kv_used == pytest.approx(0.4)
    assert reported.kv_capacity_tokens == 32_000, "each of the two tells the blocks of both"
    assert reported.itl_buckets == ((0.05, 12), (INF, 14))
    assert not reported.asleep, "one of them is awake"


def test_a_vllm_that_tells_the_size_of_each_cache_is_believed() -> None:
    page = engine_pages.VLLM_TWO_ENGINES.replace(
        b'",num_gpu_blocks', b'",kv_cache_size_tokens="12000",num_gpu_blocks'
    )
    reported = vllm.metrics_of(vllm.PAGE.read(page))
    assert reported is not None
    assert reported.kv_capacity_tokens == 24_000, "of hybrid models, blocks say too much"


def test_a_vllm_has_the_scheduler_class_when_each_of_its_engines_tells_it() -> None:
    reported = b'lowtide:step_bound_info{engine="%d",itl_bound_ms="",tolerance="1.9"} 1.0\n'
    for page, bounds in (
        (engine_pages.VLLM, False),
        (engine_pages.VLLM + reported % 0, True),
        (engine_pages.VLLM_TWO_ENGINES + reported % 0, False),
        (engine_pages.VLLM_TWO_ENGINES + reported % 0 + reported % 1, True),
    ):
        metrics = vllm.metrics_of(vllm.PAGE.read(page))
        assert metrics is not None and metrics.bounds_steps is bounds


def test_an_old_vllm_is_understood() -> None:
    reported = vllm.metrics_of(vllm.PAGE.read(engine_pages.VLLM_OLD))
    assert reported is not None
    assert (reported.kv_used, reported.preemptions_total, reported.prompt_tokens_total) == (
        0.5,
        8,
        800,
    )
    assert reported.kv_capacity_tokens is None
    assert reported.itl_buckets == ((0.1, 3), (INF, 3))


def test_a_vllm_whose_engines_all_sleep_is_asleep() -> None:
    page = engine_pages.VLLM.replace(b'"awake"} 1.0', b'"awake"} 0.0')
    reported = vllm.metrics_of(vllm.PAGE.read(page))
    assert reported is not None
    assert reported.asleep


def test_sglang_tells_all_there_is() -> None:
    info = sglang.SglangInfo(max_running_requests=256, max_total_num_tokens=1)
    assert sglang.metrics_of(sglang.PAGE.read(engine_pages.SGLANG), info) == EngineMetrics(
        running=21,
        waiting=5,
        kv_used=0.44,
        kv_capacity_tokens=400_000,
        seats_max=256,
        preemptions_total=3,
        prompt_tokens_total=5_000_000,
        generation_tokens_total=2_000_000,
        cached_tokens_total=40_000,
        itl_buckets=((0.02, 50), (INF, 60)),
    )


def test_a_queue_that_is_told_by_priority_is_not_counted_twice() -> None:
    samples = sglang.PAGE.read(engine_pages.SGLANG_PRIORITIES)
    reported = sglang.metrics_of(samples, sglang.SglangInfo())
    assert reported is not None
    assert (reported.running, reported.waiting) == (8, 7)


def test_data_parallel_ranks_add_up_and_tensor_parallel_ones_tell_the_same() -> None:
    reported = sglang.metrics_of(sglang.PAGE.read(engine_pages.SGLANG_RANKS), sglang.SglangInfo())
    assert reported is not None
    assert (reported.running, reported.waiting) == (12, 7)


@pytest.mark.parametrize(
    ("info", "priority"),
    [
        (sglang.SglangInfo(), None),
        (sglang.SglangInfo(enable_priority_scheduling=True), None),
        (sglang.SglangInfo(enable_priority_scheduling=True, default_priority_value=0), -11),
        (
            sglang.SglangInfo(
                enable_priority_scheduling=True,
                default_priority_value=5,
                schedule_low_priority_values_first=True,
                priority_scheduling_preemption_threshold=20,
            ),
            26,
        ),
        (sglang.SglangInfo(default_priority_value=0), None),
    ],
)
def test_sglang_gets_a_priority_behind_that_of_live_calls_only_where_they_have_one(
    info: sglang.SglangInfo, priority: int | None
) -> None:
    assert sglang.batch_priority(info) == priority


def test_tgi_tells_its_share_of_the_tokens_that_it_plans_with() -> None:
    info = tgi.TgiInfo(max_batch_total_tokens=60_000, max_batch_size=64)
    reported = tgi.metrics_of(tgi.PAGE.read(engine_pages.TGI), info)
    assert reported == EngineMetrics(
        running=14,
        waiting=6,
        kv_used=0.4,
        kv_capacity_tokens=60_000,
        seats_max=64,
        prompt_tokens_total=81_000,
        generation_tokens_total=40_000,
        itl_buckets=((0.05, 200), (INF, 300)),
    )


def test_an_idle_tgi_without_gauges_of_a_batch_runs_nothing() -> None:
    reported = tgi.metrics_of(tgi.PAGE.read(b"tgi_queue_size 0\n"), tgi.TgiInfo())
    assert reported is not None
    assert (reported.running, reported.waiting, reported.kv_used) == (0, 0, None)


def test_llamacpp_tells_its_slots() -> None:
    props = llamacpp.LlamacppProps(total_slots=4)
    reported = llamacpp.metrics_of(llamacpp.PAGE.read(engine_pages.LLAMACPP), props)
    assert reported == EngineMetrics(
        running=3,
        waiting=2,
        seats_max=4,
        prompt_tokens_total=5120,
        generation_tokens_total=2048,
    )
    slots = [llamacpp.Slot(is_processing=busy) for busy in (True, False, True)]
    assert llamacpp.metrics_of_slots(slots, llamacpp.LlamacppProps()) == EngineMetrics(
        running=2, seats_max=3
    )


def test_another_engines_page_tells_nothing() -> None:
    assert vllm.metrics_of(vllm.PAGE.read(engine_pages.TGI)) is None
    assert sglang.metrics_of(sglang.PAGE.read(engine_pages.VLLM), sglang.SglangInfo()) is None
    assert tgi.metrics_of(tgi.PAGE.read(engine_pages.VLLM), tgi.TgiInfo()) is None
    page = llamacpp.PAGE.read(engine_pages.VLLM)
    assert llamacpp.metrics_of(page, llamacpp.LlamacppProps()) is None
    assert llamacpp.metrics_of_slots([], llamacpp.LlamacppProps()) is None
