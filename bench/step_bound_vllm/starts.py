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
TWO_ON_CORE_1: Final = {"VLLM_CPU_OMP_THREADS_BIND": "1|1"}
"""On a CPU vLLM wants a list of cores for each worker, and no more."""
PIPELINE: Final = " --pipeline-parallel-size 2"
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
    "pipeline parallelism is refused": Refusal("was not tried with pipeline parallelism", PIPELINE),
    "the wrong of the two classes is refused": Refusal(
        f"choose --scheduler-cls {CLASS_ON['cpu']}", scheduler=CLASS_ON["gpu"]
    ),
    "another version is refused": Refusal(f"This is vLLM {OTHER_VERSION}", version=OTHER_VERSION),
}


async def refused(asked: argparse.Namespace, model: Path, folder: Path, what: Refusal) -> str:
    """The sentence. Raises Failed for a server that starts, or says more or something else."""
    settings = argparse.Namespace(**{**vars(asked), "flags": asked.flags + what.flags})
    engine = Engine(CLASS, settings, str(model), folder, scheduler=what.scheduler)
    if PIPELINE in what.flags:
        engine.env |= TWO_ON_CORE_1
    if what.version:
        engine.env["PYTHONPATH"] = _with_version(folder, what.version)
    engine.start()
    try:
        await engine.is_up()
    except RuntimeError:
        status = await engine.ended(ENDS_S)
    else:
        raise Failed("it started")
    finally:
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
        "version = types.ModuleType('vllm._version')\n"
        f"version.__version__, version.__version_tuple__ = {version!r}, {parts!r}\n"
        "sys.modules['vllm._version'] = version\n"
    )
    return f"{place}{os.pathsep}{os.environ.get('PYTHONPATH', '')}".rstrip(os.pathsep)


async def data_parallelism(asked: argparse.Namespace, model: Path, folder: Path) -> str:
    """Two engines behind one address: both have the class, and both answer."""
    flags = f"{asked.flags} --data-parallel-size 2"
    settings = argparse.Namespace(**{**vars(asked), "flags": flags})
    engine = Engine(CLASS, settings, str(model), folder)
    engine.env |= TWO_ON_CORE_1
    engine.start()
    try:
        try:
            await engine.is_up()
        except RuntimeError as error:
            last = [line for line in str(error).splitlines() if "Error" in line]
            raise Failed(f"vLLM does not start: {' / '.join(last[-3:])}") from None
        reported = await engine.counted("lowtide:step_bound_info")
        expect(reported == 2, f"lowtide:step_bound_info adds up to {reported}")
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
