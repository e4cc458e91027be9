"""`/metrics` as vLLM, SGLang and llama.cpp name it, from one engine's counters.

Names are those of scheduling.md section 2a; counters carry `_total`. Where an engine says nothing
(llama.cpp has no figure for its KV cache any more), nothing is said.
"""

from typing import Final

from lowtide.engine_sim.http.options import ServerOptions
from lowtide.engine_sim.real_time.realtime import RealTimeEngine
from lowtide.engine_sim.scheduling.step_budget import StepLimits

_SLEEP_STATES: Final = ("awake", "weights_offloaded", "discard_all")


def exposition(engine: RealTimeEngine, options: ServerOptions, rejected: int) -> str:
    """The text for Prometheus. `rejected`: requests refused because too many waited."""
    writers = {"vllm": _vllm, "sglang": _sglang, "llamacpp": _llamacpp}
    return "\n".join(writers[options.face](engine, options, rejected)) + "\n"


def _gauge(name: str, labels: str, value: float) -> list[str]:
    return [f"# TYPE {name} gauge", f"{name}{labels} {value}"]


def _counter(name: str, labels: str, value: float) -> list[str]:
    return [f"# TYPE {name} counter", f"{name}{labels} {value}"]


def _vllm(engine: RealTimeEngine, options: ServerOptions, rejected: int) -> list[str]:
    sim, seen = engine.engine, engine.latencies
    pairs = f'engine="0",model_name="{options.served_model}"'
    labels = f"{{{pairs}}}"
    lines = [
        *_gauge("vllm:num_requests_running", labels, sim.running),
        *_gauge("vllm:num_requests_waiting", labels, sim.waiting),
        "# TYPE vllm:num_requests_waiting_by_reason gauge",
        f'vllm:num_requests_waiting_by_reason{{{pairs},reason="capacity"}} {sim.waiting}',
        f'vllm:num_requests_waiting_by_reason{{{pairs},reason="deferred"}} 0',
        *_gauge("vllm:kv_cache_usage_perc", labels, sim.kv_usage),
        "# TYPE vllm:cache_config_info gauge",
        f'vllm:cache_config_info{{{pairs},block_size="{sim.kv.block_tokens}",'
        f'num_gpu_blocks="{sim.kv.blocks}",enable_prefix_caching="True"}} 1.0',
        "# TYPE vllm:engine_sleep_state gauge",
        *(
            f'vllm:engine_sleep_state{{{pairs},sleep_state="{state}"}} '
            f"{int(level == engine.sleep_level)}"
            for level, state in enumerate(_SLEEP_STATES)
        ),
    ]
    if sim.config.step_limits is not None:
        lines += step_bound_info(sim.config.step_limits)
    counters = sim.counters
    for name, value in (
        ("num_preemptions", counters.preemptions),
        ("prompt_tokens", counters.prompt_tokens),
        ("prompt_tokens_cached", counters.prompt_tokens_cached),
        ("generation_tokens", counters.generation_tokens),
        ("prefix_cache_queries", counters.prefix_cache_queries),
        ("prefix_cache_hits", counters.prefix_cache_hits),
        ("admission_rejections", rejected),
    ):
        lines += _counter(f"vllm:{name}_total", labels, value)
    lines.append("# TYPE vllm:request_success_total counter")
    for reason, value in (("stop", counters.finished), ("abort", counters.aborted)):
        lines.append(f'vllm:request_success_total{{{pairs},finished_reason="{reason}"}} {value}')
    for name, histogram in (
        ("time_to_first_token_seconds", seen.time_to_first_token),
        ("inter_token_latency_seconds", seen.inter_token_latency),
        ("request_queue_time_seconds", seen.queue_time),
        ("request_prefill_time_seconds", seen.prefill_time),
        ("request_decode_time_seconds", seen.decode_time),
        ("e2e_request_latency_seconds", seen.e2e),
        ("iteration_tokens_total", seen.iteration_tokens),
    ):
        lines += histogram.lines(f"vllm:{name}", pairs)
    return lines


def step_bound_info(limits: StepLimits) -> list[str]:
    """What the scheduler class for vLLM tells of itself, see integrations/vllm."""
    bound_ms = "" if limits.bound_s is None else f"{1000 * limits.bound_s:g}"
    bounds = f'tolerance="{limits.tolerance:g}",itl_bound_ms="{bound_ms}"'
    return _gauge("lowtide:step_bound_info", f'{{engine="0",version="simulated",{bounds}}}', 1.0)


def _sglang(engine: RealTimeEngine, options: ServerOptions, _rejected: int) -> list[str]:
    sim, seen, counters = engine.engine, engine.latencies, engine.engine.counters
    pairs = f'model_name="{options.served_model}"'
    labels = f"{{{pairs}}}"
    total = sim.kv.blocks * sim.kv.block_tokens
    used = total - sim.kv.free * sim.kv.block_tokens
    queried = max(1, counters.prefix_cache_queries)
    lines: list[str] = []
    for name, gauge in (
        ("num_running_reqs", sim.running),
        ("num_queue_reqs", sim.waiting),
        ("token_usage", sim.kv_usage),
        ("num_used_tokens", used),
        ("kv_available_tokens", total - used),
        ("max_total_num_tokens", total),
        ("page_size", sim.kv.block_tokens),
        ("num_retracted_reqs", counters.preemptions),
        ("cache_hit_rate", counters.prefix_cache_hits / queried),
        ("gen_throughput", counters.generation_tokens / max(1e-9, counters.busy_s)),
    ):
        lines += _gauge(f"sglang:{name}", labels, gauge)
    for name, counter in (
        ("prompt_tokens_total", counters.prompt_tokens),
        ("generation_tokens_total", counters.generation_tokens),
        ("cached_tokens_total", counters.prompt_tokens_cached),
        ("num_requests_total", counters.finished),
        ("num_retracted_requests_total", counters.preemptions),
        ("forward_execution_seconds_total", counters.busy_s),
    ):
        lines += _counter(f"sglang:{name}", labels, counter)
    for name, histogram in (
        ("time_to_first_token_seconds", seen.time_to_first_token),
        ("inter_token_latency_seconds", seen.inter_token_latency),
        ("queue_time_seconds", seen.queue_time),
        ("e2e_request_latency_seconds", seen.e2e),
    ):
        lines += histogram.lines(f"sglang:{name}", pairs)
    return lines


def _llamacpp(engine: RealTimeEngine, _options: ServerOptions, _rejected: int) -> list[str]:
    sim, counters = engine.engine, engine.engine.counters
    generated = counters.generation_tokens
    return [
        *_gauge("llamacpp:requests_processing", "", sim.running),
        *_gauge("llamacpp:requests_deferred", "", sim.waiting),
        *_gauge("llamacpp:n_busy_slots_per_decode", "", generated / max(1, counters.steps)),
        *_counter("llamacpp:prompt_tokens_total", "", counters.prompt_tokens),
        *_counter("llamacpp:tokens_predicted_total", "", generated),
        *_counter("llamacpp:n_decode_total", "", counters.steps),
    ]
