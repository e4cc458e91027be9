"""Features of vLLM, each tried under the scheduler class with live and batch calls together.

Called by `bench.step_bound_vllm.features` on one running server. A trial returns what it saw, in
words, and raises `Failed` where the feature does not do what it does without the class.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final

from bench.step_bound_vllm.calls import BATCH, LIVE, Caller, Failed, text

STEP_TOKENS: Final = 512
"""The server's --max-num-batched-tokens."""
BLOCK_TOKENS: Final = 128
"""The most that a block of the prefix cache has; whole ones are found again."""
OTHERS: Final = 12
"""Batch calls, or live ones, that run beside what is tried."""
ABORTED_S: Final = 5.0
KINDS: Final = {"live": LIVE, "batch": BATCH}
SCHEMA: Final = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z]{1,12}$"},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
        "sea": {"enum": ["north", "south"]},
    },
    "required": ["name", "age", "sea"],
    "additionalProperties": False,
}


def expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Failed(otherwise)


async def metric(caller: Caller) -> str:
    """The engine tells that it has the class."""
    reported = await caller.engine.counted("lowtide:step_bound_info")
    expect(reported == 1, f"lowtide:step_bound_info adds up to {reported}")
    return "lowtide:step_bound_info is 1"


async def structured_output(caller: Caller) -> str:
    """Answers by a JSON schema, of live and of batch calls, beside others."""
    form = {"type": "json_schema", "json_schema": {"name": "sailor", "schema": SCHEMA}}
    # The likeliest letter of a random model may be a space for ever.
    more = {"max_tokens": 800, "temperature": 1.0, "response_format": form}
    async with caller.work(BATCH, OTHERS), caller.work(LIVE, 2):
        answers = await asyncio.gather(
            *(
                caller.chat(f"{n} a sailor", kind, seed=n, **more)
                for n in range(3)
                for kind in KINDS.values()
            )
        )
    for answer in answers:
        said = answer["choices"][0]["message"]["content"]
        try:
            read = json.loads(said)
        except ValueError:
            raise Failed(f"no JSON: {said!r}") from None
        is_valid = (
            set(read) == {"name", "age", "sea"}
            and re.fullmatch("[a-z]{1,12}", read["name"])
            and isinstance(read["age"], int)
            and 0 <= read["age"] <= 99
            and read["sea"] in ("north", "south")
        )
        expect(bool(is_valid), f"not by the schema: {said!r}")
    return f"{len(answers)} answers parse and are valid"


async def prefix_caching(caller: Caller) -> str:
    """A prompt that comes again is read from the cache, beside live calls."""
    counter, reported = "vllm:prefix_cache_hits_total", []
    async with caller.work(LIVE, 2):
        for name, kind in KINDS.items():
            prompt = f"{name} begins so " + "the same long beginning " * 25
            await caller.complete(f"{prompt} first", kind)
            before = await caller.engine.counted(counter)
            await caller.complete(f"{prompt} again", kind)
            hits = await caller.engine.counted(counter) - before
            expect(
                hits >= len(prompt) - BLOCK_TOKENS, f"{name}: {hits} hits of {len(prompt)} tokens"
            )
            reported.append(f"{hits:.0f} of {len(prompt)} tokens ({name})")
    return f"cache hits rise by {' and '.join(reported)}"


async def chunked_prefill(caller: Caller) -> str:
    """Prompts of several steps, beside calls of the other kind."""
    prompt = "a prompt that is longer than a step of this engine " * 40
    for name, kind in KINDS.items():
        async with caller.work(LIVE if kind == BATCH else BATCH, OTHERS):
            usage = (await caller.complete(f"{name} {prompt}", kind))["usage"]
        read = usage["prompt_tokens"]
        is_whole = read == len(f"{name} {prompt}") and usage["completion_tokens"] == 32
        expect(is_whole and read > 2 * STEP_TOKENS, f"{name}: {usage}")
    return f"prompts of {read} tokens, steps of {STEP_TOKENS}"


async def lora(caller: Caller) -> str:
    """A live call with an adapter beside batch calls without one, and the other way round."""
    prompt, reported = "tell me of the sea", []
    own = text(await caller.complete(prompt, LIVE))
    alone = text(await caller.complete(prompt, LIVE, model="first"))
    expect(own != alone, "the adapter changes no answer")
    for name, kind in KINDS.items():
        async with caller.work(LIVE if kind == BATCH else BATCH, OTHERS):
            beside = text(await caller.complete(prompt, kind, model="first"))
        alike = _begins_alike(alone, beside)
        expect(alike > _begins_alike(own, beside), f"{name}: {beside!r}, alone {alone!r}")
        reported.append(f"{alike} ({name})")
    return f"tokens of {len(alone)} as without others: {' and '.join(reported)}"


async def lora_places(caller: Caller) -> str:
    """More adapters than the server has places for: a live call's takes a batch's place."""
    async with caller.work(BATCH, OTHERS, model="first"), caller.work(LIVE, 4):
        began = asyncio.get_running_loop().time()
        await asyncio.gather(*(caller.complete(f"{n}", LIVE, model="second") for n in range(3)))
        took_s = asyncio.get_running_loop().time() - began
    return f"three live calls with a second adapter, one place: {took_s:.1f} s"


async def stop_strings(caller: Caller) -> str:
    """An answer ends before the string."""
    async with caller.work(BATCH, OTHERS), caller.work(LIVE, 2):
        for name, kind in KINDS.items():
            whole = text(await caller.complete(f"{name} stops", kind))
            stop = whole[len(whole) // 2 :][:2]
            answer = await caller.complete(f"{name} stops", kind, stop=[stop])
            reason = answer["choices"][0]["finish_reason"]
            is_cut = reason == "stop" and stop not in text(answer)
            expect(is_cut, f"{name}: {text(answer)!r} ({reason}), to be stopped by {stop!r}")
    return "live and batch answers end before theirs"


async def several_choices(caller: Caller) -> str:
    """n > 1."""
    async with caller.work(BATCH, OTHERS), caller.work(LIVE, 2):
        for name, kind in KINDS.items():
            more = {"n": 3, "temperature": 1.0, "ignore_eos": True}
            answer = await caller.complete("three of them", kind, **more)
            reported = answer["usage"]["completion_tokens"]
            expect(len(answer["choices"]) == 3 and reported == 3 * 32, f"{name}: {answer['usage']}")
    return "three choices of 32 tokens for a live and a batch call"


async def streaming(caller: Caller) -> str:
    """Events put together, and the usage at their end."""
    counts = []
    async with caller.work(BATCH, OTHERS), caller.work(LIVE, 2):
        for name, kind in KINDS.items():
            more = {"ignore_eos": True, "stream_options": {"include_usage": True}}
            stream = caller.streamed(f"{name} comes bit by bit", kind, **more)
            events = [event async for event in stream]
            said = [e["choices"][0]["text"] for e in events if e["choices"]]
            reported = events[-1]["usage"]["completion_tokens"]
            expect(
                reported == 32 == len("".join(said)),
                f"{name}: {reported} tokens, {''.join(said)!r}",
            )
            counts.append(f"{len(said)} ({name})")
    return f"32 tokens in events: {' and '.join(counts)}"


async def abort(caller: Caller) -> str:
    """A batch call whose caller goes away in its midst, beside a live call that goes on."""
    async with caller.work(LIVE, 2):
        running = await caller.engine.counted("vllm:num_requests_running")
        stream = caller.streamed("a long one", BATCH, max_tokens=3000, ignore_eos=True)
        async with aclosing(stream) as events:
            for _ in range(5):
                await anext(events)
        async with asyncio.timeout(ABORTED_S):
            while await caller.engine.counted("vllm:num_requests_running") > running:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await caller.complete("still here", BATCH)
    return "it leaves the engine, and the others go on"


def _begins_alike(one: str, other: str) -> int:
    """Tokens, which are letters, before the first that differs."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))


TRIALS: Final[Mapping[str, Callable[[Caller], Awaitable[Any]]]] = {
    "the metric": metric,
    "structured output": structured_output,
    "prefix caching": prefix_caching,
    "chunked prefill": chunked_prefill,
    "LoRA": lora,
    "LoRA, more adapters than places": lora_places,
    "stop strings": stop_strings,
    "several choices": several_choices,
    "streaming": streaming,
    "abort of a batch call": abort,
}
