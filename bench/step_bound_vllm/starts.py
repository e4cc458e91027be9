"""Servers that are started for one question: two engines behind one address, and every refusal.

Called by `bench.step_bound_vllm.features`. A refused start ends by itself, with one sentence of the
class in the log and no traceback that goes through it.
"""

import argparse
import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from bench.step_bound_vllm.calls import BATCH, LIVE, Caller, Failed
from bench.step_bound_vllm.engine import CLASS, CLASS_ON, Engine
from bench.step_bound_vllm.trials import expect

ENDS_S: Final = 120.0
OTHER_VERSION: Final = "0.33.0"


class Refusal(NamedTuple):
    """`flags` beside the usual ones, `scheduler` another class; `says`: part of the sentence."""

    says: str
    flags: str = ""
    scheduler: str | None = None
    version: str | None = None


REFUSALS: Final[Mapping[str, Refusal]] = {
    "speculative decoding is refused": Refusal(
        "was not tried with speculative decoding",
        """ --speculative-config '{"method": "ngram", "num_speculative_tokens": 2, """
        """"prompt_lookup_max": 3}'""",
    ),
    "pipeline parallelism is refused": Refusal(
        "was not tried with pipeline parallelism", " --pipeline-parallel-size 2"
    ),
    "the wrong of the two classes is refused": Refusal(
        f"choose --scheduler-cls {CLASS_ON['cpu']}", scheduler=CLASS_ON["gpu"]
    ),
    "another version is refused": Refusal(f"This is vLLM {OTHER_VERSION}", version=OTHER_VERSION),
    "another policy is refused": Refusal(
        "needs --scheduling-policy priority", " --scheduling-policy fcfs"
    ),
    "a setting that is none is refused": Refusal(
        "`lowtide` may have tolerance", """ --additional-config '{"lowtide": {"speed": 2}}'"""
    ),
}


async def refused(asked: argparse.Namespace, model: Path, folder: Path, what: Refusal) -> str:
    """The sentence. Raises Failed for a server that starts, or says more or something else."""
    settings = argparse.Namespace(**{**vars(asked), "flags": asked.flags + what.flags})
    engine = Engine(CLASS, settings, str(model), folder, scheduler=what.scheduler)
    if what.version:
        engine.env["PYTHONPATH"] = _with_version(folder, what.version)
    engine.start()
    up = asyncio.create_task(engine.is_up())
    try:
        ended = asyncio.create_task(engine.ended(ENDS_S))
        await asyncio.wait((up, ended), return_when=asyncio.FIRST_COMPLETED)
        expect(ended.done(), "it started")
        status = await ended
    finally:
        up.cancel()
        await asyncio.gather(up, return_exceptions=True)
        engine.end()
    log = engine.log()
    said = [line for line in log.splitlines() if what.says in line]
    expect(bool(said), f"it ended with {status}:\n{log[-1500:]}")
    expect(status != 0, "its status is 0")
    expect(len(said) == 1, f"it is said {len(said)} times")
    expect("lowtide_vllm/" not in log, f"a traceback goes through the class:\n{log[-3000:]}")
    return said[0].rpartition("] ")[2]


def _with_version(folder: Path, version: str) -> str:
    """A PYTHONPATH whose every Python takes vLLM for that version."""
    place = folder / f"version-{version}"
    place.mkdir()
    parts = tuple(int(part) for part in version.split("."))
    (place / "sitecustomize.py").write_text(
        "import sys, types\n"
        "told = types.ModuleType('vllm._version')\n"
        f"told.__version__, told.__version_tuple__ = {version!r}, {parts!r}\n"
        "sys.modules['vllm._version'] = told\n"
    )
    return f"{place}{os.pathsep}{os.environ.get('PYTHONPATH', '')}".rstrip(os.pathsep)


async def data_parallelism(asked: argparse.Namespace, model: Path, folder: Path) -> str:
    """Two engines behind one address: both have the class, and both answer."""
    flags = f"{asked.flags} --data-parallel-size 2"
    settings = argparse.Namespace(**{**vars(asked), "flags": flags})
    engine = Engine(CLASS, settings, str(model), folder)
    engine.start()
    try:
        try:
            await engine.is_up()
        except RuntimeError as error:
            last = [line for line in str(error).splitlines() if "Error" in line]
            raise Failed(f"vLLM does not start: {' / '.join(last[-3:])}") from None
        told = await engine.counted("lowtide:step_bound_info")
        expect(told == 2, f"lowtide:step_bound_info adds up to {told}")
        caller = Caller(engine)
        try:
            kinds = [LIVE, BATCH, BATCH, BATCH] * 6
            answers = await asyncio.gather(
                *(
                    caller.complete(f"{n} for one of two", kind, ignore_eos=True)
                    for n, kind in enumerate(kinds)
                )
            )
        finally:
            await caller.aclose()
        made = await engine.counted_by("vllm:generation_tokens_total", "engine")
    finally:
        engine.end()
    lengths = {answer["usage"]["completion_tokens"] for answer in answers}
    expect(lengths == {32}, f"answers of {lengths} tokens")
    expect(len(made) == 2 and min(made.values()) > 0, f"tokens of each engine: {made}")
    return f"{len(answers)} calls on two engines, tokens of each {sorted(made.values())}"
