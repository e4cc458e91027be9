"""The scheduler class on vLLM's own scheduler, with a model that is only made up.

Run by `make test-vllm`, in an environment with vLLM. vLLM plans every step and keeps all books;
what a model would have computed is made up, and a step's time is a sum of known costs on a clock
that the test turns. So nothing depends on this machine's pace.
"""

import json
from collections import deque
from pathlib import Path
from typing import Any

import pytest
import torch
from lowtide_vllm import scheduler as module
from vllm.config import CacheConfig, LoRAConfig, ModelConfig, SchedulerConfig, VllmConfig
from vllm.lora.request import LoRARequest
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output import StructuredOutputManager

BLOCK, BATCH = 16, 100
init_none_hash(sha256)
MODEL = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 1024,
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1,
    "num_attention_heads": 1, "num_key_value_heads": 1, "max_position_embeddings": 8192,
}  # fmt: skip
CLASSES = {
    True: (module.StepBoundScheduler, AsyncScheduler),
    False: (module.StepBoundSyncScheduler, Scheduler),
}


class Clock:
    """Stands for `time` in the module under test."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Engine:
    """Plans with a scheduler, one step ahead where it is asynchronous, and makes up the tokens."""

    def __init__(self, folder: Path, clock: Clock, *, ahead: bool, bounded: bool, **asked: Any):
        (folder / "config.json").write_text(json.dumps(MODEL))
        blocks, extra = asked.pop("blocks", 4000), asked.pop("extra", {})
        adapters = asked.pop("adapters", None)
        model = ModelConfig(model=str(folder), dtype="float32", skip_tokenizer_init=True)
        settings = SchedulerConfig(
            **{
                "max_model_len": 8192,
                "is_encoder_decoder": False,
                "policy": "priority",
                "max_num_seqs": 64,
                "max_num_batched_tokens": 2048,
                **asked,
            }
        )
        settings.async_scheduling = ahead
        config = VllmConfig(
            model_config=model,
            scheduler_config=settings,
            cache_config=CacheConfig(block_size=BLOCK, enable_prefix_caching=True),
            lora_config=LoRAConfig(max_lora_rank=8, max_loras=adapters) if adapters else None,
            additional_config={"lowtide": extra} if extra else {},
        )
        config.scheduler_config.async_scheduling = ahead
        config.cache_config.num_gpu_blocks = blocks
        spec = FullAttentionSpec(
            block_size=BLOCK, num_kv_heads=1, head_size=64, dtype=torch.float32
        )
        cache = KVCacheConfig(blocks, [], [KVCacheGroupSpec(["layer"], spec)])
        kind = CLASSES[ahead][0 if bounded else 1]
        self.scheduler = kind(
            vllm_config=config,
            kv_cache_config=cache,
            structured_output_manager=StructuredOutputManager(config),
            block_size=BLOCK,
            hash_block_size=BLOCK,
        )
        self.clock, self.depth = clock, 2 if ahead else 1
        self.steps: deque[Any] = deque()
        self.made: dict[str, int] = {}
        self.last: dict[str, float] = {}
        self.durations: list[float] = []
        self.plans: list[dict[str, int]] = []

    def ask(
        self, name: str, prompt: int, answer: int, priority: int, *, adapter: int | None = None
    ) -> None:
        number = len(self.made)
        params = SamplingParams(temperature=0, max_tokens=answer, ignore_eos=True)
        request = Request(
            name, [3 + (7 * number + place) % 1000 for place in range(prompt)], params, None,
            arrival_time=float(number), priority=priority,
            lora_request=adapter and LoRARequest(f"{adapter}", adapter, "nowhere"),
            block_hasher=get_request_block_hasher(BLOCK, sha256),
        )  # fmt: skip
        self.made[name] = 0
        self.scheduler.add_request(request)

    def step(self) -> bool:
        """Plans as far ahead as the engine does, and lets the oldest step end; False: idle."""
        while len(self.steps) < self.depth:
            before = {r.request_id: r.num_computed_tokens for r in self.scheduler.running}
            plan = self.scheduler.schedule()
            if not plan.total_num_scheduled_tokens:
                break
            self.steps.append((plan, self._takes(plan, before)))
        if not self.steps:
            return False
        plan, seconds = self.steps.popleft()
        self.clock.now += seconds
        self.durations.append(seconds)
        self.plans.append(dict(plan.num_scheduled_tokens))
        self._complete(plan)
        return True

    def _takes(self, plan: Any, before: dict[str, int]) -> float:
        tokens = plan.total_num_scheduled_tokens
        read = sum(before.get(name, 0) for name, n in plan.num_scheduled_tokens.items() if n == 1)
        return 0.006 + 18e-6 * tokens + 40e-9 * read

    def _complete(self, plan: Any) -> None:
        names = list(plan.num_scheduled_tokens)
        sampled = [[5] if self._samples(plan, name) else [] for name in names]
        answer = ModelRunnerOutput(names, {name: n for n, name in enumerate(names)}, sampled)
        outputs = self.scheduler.update_from_output(plan, answer)
        for those in outputs.values():
            for output in those.outputs:
                self.made[output.request_id] += len(output.new_token_ids)
                self.last[output.request_id] = self.clock.now

    def _samples(self, plan: Any, name: str) -> bool:
        """Whether this step completes what is known of a request."""
        request = self.scheduler.requests.get(name)
        if request is None:
            return False
        starts = {new.req_id: new.num_computed_tokens for new in plan.scheduled_new_reqs}
        cached = plan.scheduled_cached_reqs
        starts |= dict(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        return starts[name] + plan.num_scheduled_tokens[name] >= request.num_prompt_tokens


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def warm(engine: Engine) -> None:
    """Let it learn its pace from batch calls alone."""
    for number in range(60):
        engine.ask(f"early {number}", 40 + 17 * number, 6 + 2 * number, BATCH)
    while engine.step():
        pass
    assert engine.scheduler.step_times.is_trained
    engine.durations.clear()
    engine.plans.clear()


def fill(
    engine: Engine, calls: int, *, prompt: int, answer: int, steps: int, adapter: int | None = None
) -> None:
    """Asks for so many batch calls of these tokens each, and lets the engine take some steps."""
    for number in range(calls):
        engine.ask(f"batch {number}", prompt, answer, BATCH, adapter=adapter)
    for _ in range(steps):
        engine.step()


@pytest.mark.parametrize("ahead", [True, False])
def test_without_live_calls_every_step_is_vllms_own(
    tmp_path: Path, clock: Clock, *, ahead: bool
) -> None:
    """Preemptions included, on a cache that is too small."""
    plans = []
    for bounded in (True, False):
        engine = Engine(tmp_path, clock, ahead=ahead, bounded=bounded, blocks=90)
        for number in range(40):
            engine.ask(f"{number}", 30 + 11 * number, 10 + number % 30, BATCH)
        while engine.step():
            pass
        assert engine.made == {f"{number}": 10 + number % 30 for number in range(40)}
        plans.append(engine.plans)
    assert plans[0] == plans[1]


@pytest.mark.parametrize("ahead", [True, False])
def test_beside_a_live_call_steps_stay_under_the_bound_and_all_is_answered(
    tmp_path: Path, clock: Clock, *, ahead: bool
) -> None:
    engine = Engine(tmp_path, clock, ahead=ahead, bounded=True, extra={"itl_bound_ms": 12})
    warm(engine)
    engine.ask("live", 200, 150, 0)
    for number in range(30):
        engine.ask(f"batch {number}", 900, 40, BATCH)
    while engine.made["live"] < 150:
        engine.step()
    assert max(engine.durations[2:]) < 1.1 * 0.012
    assert sorted(engine.durations)[75] > 0.010, "the room under the bound is used"
    while engine.step():
        pass
    assert all(engine.made[f"batch {n}"] == 40 for n in range(30))


@pytest.mark.parametrize("ahead", [True, False])
def test_a_live_prompt_is_computed_whole_in_the_next_step_that_is_planned(
    tmp_path: Path, clock: Clock, *, ahead: bool
) -> None:
    engine = Engine(tmp_path, clock, ahead=ahead, bounded=True)
    warm(engine)
    fill(engine, 30, prompt=900, answer=40, steps=5)
    engine.plans.clear()
    engine.ask("live", 1_500, 3, 0)
    for _ in range(3):
        engine.step()
    beside = next(plan for plan in engine.plans if "live" in plan)
    assert beside["live"] == 1_500
    assert engine.plans.index(beside) < engine.depth
    assert all(tokens == 1 for name, tokens in beside.items() if name != "live")


@pytest.mark.parametrize("ahead", [True, False])
def test_batch_decodes_get_a_token_each_half_second_under_any_live_load(
    tmp_path: Path, clock: Clock, *, ahead: bool
) -> None:
    engine = Engine(tmp_path, clock, ahead=ahead, bounded=True, extra={"itl_bound_ms": 6.5})
    warm(engine)
    fill(engine, 30, prompt=300, answer=60, steps=8)
    started = [name for name in engine.last if name.startswith("batch")]
    assert len(started) == 30
    for number in range(20):
        engine.ask(f"live {number}", 100, 200, 0)
    for _ in range(300):
        engine.step()
        for name in started:
            if engine.made[name] < 60:
                assert engine.clock.now - engine.last[name] < 0.5 + 4 * engine.durations[-1]


@pytest.mark.parametrize("ahead", [True, False])
def test_all_live_calls_that_wait_count_before_the_batch_gets_its_part(
    tmp_path: Path, clock: Clock, *, ahead: bool
) -> None:
    engine = Engine(tmp_path, clock, ahead=ahead, bounded=True, extra={"itl_bound_ms": 30})
    warm(engine)
    fill(engine, 20, prompt=300, answer=60, steps=8)
    asked = {f"live {number}" for number in range(3)}
    for name in sorted(asked):
        engine.ask(name, 640, 5, 0)
    for _ in range(4):
        engine.step()
    (plan,) = [plan for plan in engine.plans if plan.get("live 0", 0) > 1]
    assert set(plan) == asked, "together they take longer than the bound"


@pytest.mark.parametrize("ahead", [True, False])
def test_a_live_call_takes_a_seat_and_memory_from_batch_calls(
    tmp_path: Path, clock: Clock, *, ahead: bool
) -> None:
    engine = Engine(tmp_path, clock, ahead=ahead, bounded=True, blocks=140, max_num_seqs=4)
    fill(engine, 8, prompt=450, answer=60, steps=6)
    assert len(engine.scheduler.running) == 4
    engine.ask("live", 600, 10, 0)
    for _ in range(2):
        engine.step()
    live = engine.scheduler.requests["live"]
    assert live.status == RequestStatus.RUNNING
    while engine.step():
        pass
    assert engine.made == {**{f"batch {n}": 60 for n in range(8)}, "live": 10}


@pytest.mark.parametrize("ahead", [True, False])
def test_a_live_calls_adapter_takes_the_place_of_a_batchs(
    tmp_path: Path, clock: Clock, *, ahead: bool
) -> None:
    """One place, and steps so short that batch calls sit out: vLLM counts adapters of a step."""
    extra = {"itl_bound_ms": 6.5}
    engine = Engine(tmp_path, clock, ahead=ahead, bounded=True, adapters=1, extra=extra)
    warm(engine)
    fill(engine, 20, prompt=300, answer=60, steps=8, adapter=1)
    engine.ask("live without", 100, 200, 0)
    for _ in range(20):
        engine.step()
    engine.ask("live", 100, 10, 0, adapter=2)
    for _ in range(12):
        engine.step()
    assert engine.made["live"] > 0
    while engine.step():
        pass
    assert engine.made["live"] == 10 and engine.made["live without"] == 200
    assert all(engine.made[f"batch {number}"] == 60 for number in range(20))


@pytest.mark.parametrize("ahead", [True, False])
def test_a_live_call_without_an_adapters_place_holds_no_batch_call_back(
    tmp_path: Path, clock: Clock, *, ahead: bool
) -> None:
    """The place is another live call's, so nobody is preempted for it."""
    extra = {"itl_bound_ms": 25}
    engine = Engine(tmp_path, clock, ahead=ahead, bounded=True, adapters=1, extra=extra)
    warm(engine)
    fill(engine, 20, prompt=300, answer=400, steps=8)
    engine.ask("live", 100, 60, 0, adapter=1)
    engine.ask("live that waits", 1_500, 60, 0, adapter=2)
    for _ in range(4):
        engine.step()
    engine.plans.clear()
    for _ in range(20):
        engine.step()
    assert all(len(plan) > 15 for plan in engine.plans)
    while engine.step():
        pass
    assert engine.made["live that waits"] == 60


@pytest.mark.parametrize("ahead", [True, False])
def test_a_live_call_whose_grammar_is_not_ready_holds_no_batch_call_back(
    tmp_path: Path, clock: Clock, *, ahead: bool
) -> None:
    engine = Engine(tmp_path, clock, ahead=ahead, bounded=True)
    warm(engine)
    fill(engine, 20, prompt=300, answer=60, steps=8)
    engine.ask("live", 1_500, 10, 0)
    live = engine.scheduler.requests["live"]
    live.status = RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR
    engine.plans.clear()
    for _ in range(20):
        assert engine.step(), "a plan is not empty"
    assert all(len(plan) == 20 for plan in engine.plans)
    live.status = RequestStatus.WAITING
    while engine.step():
        pass
    assert engine.made["live"] == 10


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"policy": "fcfs"}, "--scheduling-policy priority"),
        ({"extra": {"tolerances": 2}}, "tolerance, itl_bound_ms, hold_max_ms"),
        ({"extra": {"tolerance": 0.5}}, "at least 1"),
    ],
)
def test_what_does_not_work_ends_the_start_with_a_sentence(
    tmp_path: Path, clock: Clock, caplog: Any, asked: dict[str, Any], said: str
) -> None:
    with pytest.raises(SystemExit, match="1"):
        Engine(tmp_path, clock, ahead=True, bounded=True, **asked)
    (refusal,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert said in refusal.message


def test_the_class_for_the_other_way_of_scheduling_is_named(
    tmp_path: Path, clock: Clock, caplog: Any
) -> None:
    engine = Engine(tmp_path, clock, ahead=False, bounded=True)
    config = engine.scheduler.vllm_config
    config.scheduler_config.async_scheduling = True
    with pytest.raises(SystemExit):
        module.StepBoundSyncScheduler(config, engine.scheduler.kv_cache_config, None, BLOCK)
    assert "lowtide_vllm.scheduler.StepBoundScheduler" in caplog.text
