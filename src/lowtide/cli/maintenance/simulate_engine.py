"""`lowtide simulate-engine`: an engine to try things against, with no GPU and no model.

The one command that uses `testkit`, imported when it runs: the import rules name it.
"""

import os
import socket
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from lowtide.cli.options import JsonOption
from lowtide.cli.terminal import console

if TYPE_CHECKING:
    from lowtide.cli.server.foreground import Body, StopSignal
    from lowtide.engine_sim.http.options import ServerOptions
    from lowtide.engine_sim.real_time.realtime import Lateness

Profile = Literal["8b-h100", "8b-a100", "70b-tp4-h100", "8b-fp8-h100", "70b-fp8-tp2-h100"]

_FAULT_HELP = (
    "Something that goes wrong: KIND, then @START, +SECONDS, =VALUE where wanted. crash@30+5, "
    "hang@10+20, slow@60+30=4, 429@5+2, 503@5+2, stale-metrics, no-metrics, truncate=0.02, "
    "noise=0.03, wake=2.5. May be given several times."
)


def simulate_engine(
    profile: Annotated[
        Profile, typer.Option(help="Whose step times and KV cache it has.")
    ] = "8b-h100",
    face: Annotated[
        Literal["vllm", "sglang", "llamacpp"],
        typer.Option(help="Whose endpoints, metrics and priorities it shows."),
    ] = "vllm",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free port.")] = 0,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of its model, instead of the profile's own."),
    ] = None,
    time_scale: Annotated[
        float, typer.Option(min=0.001, max=1000, help="Simulated seconds in a real one.")
    ] = 1.0,
    max_num_seqs: Annotated[
        int | None,
        typer.Option(min=1, help="Requests that run at once; slots of llamacpp. Default: 1024, 4."),
    ] = None,
    max_num_batched_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of one step. Default: 8192; llamacpp 2048.")
    ] = None,
    scheduling_policy: Annotated[
        Literal["fcfs", "priority"],
        typer.Option(help="priority: by `priority` in the body, or X-Vllm-Priority."),
    ] = "fcfs",
    batch_scheduler: Annotated[
        Literal["stock", "step-bound"],
        typer.Option(help="step-bound: vLLM with Lowtide's scheduler class, under priority."),
    ] = "stock",
    itl_bound_ms: Annotated[
        float | None,
        typer.Option(min=0.1, help="Longest step that batch work makes beside live calls."),
    ] = None,
    long_prefill_token_threshold: Annotated[
        int, typer.Option(min=0, help="Longest chunk of one prompt in a step; 0: no bound.")
    ] = 0,
    max_num_queued_reqs: Annotated[
        int, typer.Option(min=0, help="503 when so many wait; 0: no bound.")
    ] = 0,
    kv_tokens: Annotated[
        int | None, typer.Option(min=16, help="Size of the KV cache, instead of the profile's.")
    ] = None,
    stream_interval: Annotated[
        int, typer.Option(min=1, help="Tokens in one event of a stream.")
    ] = 1,
    efficiency: Annotated[
        float, typer.Option(min=0.1, max=2, help="Of the engine; 0.85 is one of 2024.")
    ] = 1.0,
    fault: Annotated[
        list[str] | None, typer.Option("--fault", metavar="FAULT", help=_FAULT_HELP)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of answers, their lengths, and noise.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Start an engine that behaves like vLLM and computes nothing. Ctrl-C stops it.

    It schedules, caches and takes as long as the real one on the GPU of the profile; its answers
    are filler of the right length. The length is max_tokens, or what the header
    x-sim-output-tokens says, or drawn at random. When it stops it says whether this machine kept
    up; GET /load says so while it runs.
    """
    from lowtide.engine_sim.http.options import ServerOptions

    try:
        options = ServerOptions(
            profile=profile, face=face, model=model or "", time_scale=time_scale,
            max_num_seqs=max_num_seqs, max_num_batched_tokens=max_num_batched_tokens,
            scheduling_policy=scheduling_policy, batch_scheduler=batch_scheduler,
            itl_bound_ms=itl_bound_ms,
            long_prefill_token_threshold=long_prefill_token_threshold,
            max_num_queued_reqs=max_num_queued_reqs, kv_tokens=kv_tokens,
            stream_interval=stream_interval, efficiency=efficiency, faults=tuple(fault or ()),
            seed=seed,
        )  # fmt: skip
    except ValueError as error:
        raise typer.BadParameter(f"{error}.") from None
    from lowtide.cli.server.foreground import run_until_stopped
    from lowtide.cli.server.listening import bind

    run_until_stopped(_body(options, bind(host, port), as_json=as_json))


def _body(options: "ServerOptions", bound: socket.socket, *, as_json: bool) -> "Body":
    async def body(stopper: "StopSignal") -> None:
        from lowtide.engine_sim.http.serving import served

        async with served(options, bound) as engine:
            _announce(engine.url, options, as_json=as_json)
            await stopper.wait()
            _sum_up(engine.simulator.engine.lateness)

    return body


def _announce(url: str, options: "ServerOptions", *, as_json: bool) -> None:
    if as_json:
        console.emit_json_line({"url": url, "pid": os.getpid(), "model": options.served_model})
        return
    console.write(f"A simulated {options.face} ({options.profile}) listens on {url}")
    console.info(
        f"[dim]model {escape(options.served_model)}; as a replica in lowtide.toml:[/]\n"
        + escape(f'[[replica]]\nurl = "{url}"\nmodels = ["{options.served_model}"]')
    )


def _sum_up(lateness: "Lateness") -> None:
    worst_ms = 1e3 * lateness.worst_s
    console.info(
        f"[dim]{lateness.steps:,} steps, {lateness.late:,} late, worst {worst_ms:.0f} ms[/]"
    )
    if not lateness.is_valid:
        console.info("[yellow]This machine was too busy: do not trust figures from this run.[/]")
