"""The endpoints beside generation: what operators, probes and gateways ask an engine."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lowtide.engine_sim.http.asking import Refusal, read_object
from lowtide.engine_sim.http.options import ServerOptions
from lowtide.engine_sim.http.tokenizer import tokens_of, tokens_of_chat
from lowtide.engine_sim.real_time.realtime import RealTimeEngine

Endpoint = Callable[[Request], Awaitable[Response]]


class Simulated(Protocol):
    """What these endpoints need of the server: its engine, its options, its open calls."""

    engine: RealTimeEngine
    options: ServerOptions
    calls: int


WAKE_S: Final = {1: 0.5, 2: 1.5}
"""Seconds to wake by level of sleep: weights come back from memory, or from disk (small models)."""

_VERSIONS: Final = {"vllm": "0.33.0", "sglang": "0.5.23"}


def operation_routes(simulated: Simulated) -> list[Route]:
    """The routes of the engine that the simulator imitates, besides those that generate."""
    face = simulated.options.face
    routes = [
        Route("/v1/models", _models(simulated)),
        Route("/health", _health(simulated)),
        Route("/tokenize", _tokenize(simulated), methods=["POST"]),
    ]
    if face == "llamacpp":
        return [
            *routes,
            Route("/props", _props(simulated)),
            Route("/slots", _slots(simulated)),
        ]
    routes.append(Route("/load", _load(simulated)))
    if face == "sglang":
        info = {"model_path": simulated.options.served_model, "version": _VERSIONS[face]}
        return [
            *routes,
            Route("/health_generate", _health(simulated)),
            Route("/get_model_info", _constant(info)),
            Route("/get_server_info", _constant(info | {"schedule_policy": _policy(simulated)})),
        ]
    return [
        *routes,
        Route("/version", _constant({"version": _VERSIONS["vllm"]})),
        Route("/ping", _health(simulated), methods=["GET", "POST"]),
        Route("/sleep", _sleep(simulated), methods=["POST"]),
        Route("/wake_up", _wake(simulated), methods=["POST"]),
        Route("/is_sleeping", _is_sleeping(simulated)),
    ]


def _policy(simulated: Simulated) -> str:
    return str(simulated.options.scheduler_config().scheduling_policy)


def _constant(body: dict[str, Any]) -> Endpoint:
    async def endpoint(_request: Request) -> Response:
        return JSONResponse(body)

    return endpoint


def _health(simulated: Simulated) -> Endpoint:
    async def endpoint(_request: Request) -> Response:
        if simulated.options.face == "llamacpp":
            return JSONResponse({"status": "ok"})
        return Response()

    return endpoint


def _models(simulated: Simulated) -> Endpoint:
    async def endpoint(_request: Request) -> Response:
        model = {
            "id": simulated.options.served_model,
            "object": "model",
            "created": 0,
            "owned_by": simulated.options.face,
            "max_model_len": simulated.options.context_max,
        }
        return JSONResponse({"object": "list", "data": [model]})

    return endpoint


def _load(simulated: Simulated) -> Endpoint:
    async def endpoint(_request: Request) -> Response:
        """vLLM's field, and what no engine has: whether this host keeps up."""
        lateness = simulated.engine.lateness.as_json()
        return JSONResponse({"server_load": simulated.calls, "lateness": lateness})

    return endpoint


def _tokenize(simulated: Simulated) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        try:
            body = read_object(await request.body())
        except Refusal as refusal:
            return JSONResponse({"error": {"message": str(refusal)}}, refusal.status)
        if "messages" in body:
            tokens = tokens_of_chat(body["messages"], body.get("tools"))
        else:
            tokens = tokens_of(str(body.get("prompt", body.get("content", ""))))
        if simulated.options.face == "llamacpp":
            return JSONResponse({"tokens": tokens})
        size = simulated.options.context_max
        return JSONResponse({"count": len(tokens), "max_model_len": size, "tokens": tokens})

    return endpoint


def _sleep(simulated: Simulated) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        level = request.query_params.get("level", "1")
        if level not in ("1", "2"):
            return JSONResponse({"error": {"message": "level must be 1 or 2"}}, 400)
        simulated.engine.sleep(int(level))
        return Response()

    return endpoint


def _wake(simulated: Simulated) -> Endpoint:
    async def endpoint(_request: Request) -> Response:
        if simulated.engine.sleep_level:
            await simulated.engine.wake(WAKE_S[simulated.engine.sleep_level])
        return Response()

    return endpoint


def _is_sleeping(simulated: Simulated) -> Endpoint:
    async def endpoint(_request: Request) -> Response:
        return JSONResponse({"is_sleeping": bool(simulated.engine.sleep_level)})

    return endpoint


def _props(simulated: Simulated) -> Endpoint:
    options = simulated.options
    return _constant(
        {
            "default_generation_settings": {"n_ctx": options.context_max},
            "total_slots": options.scheduler_config().max_num_seqs,
            "model_path": options.served_model,
        }
    )


def _slots(simulated: Simulated) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        total = simulated.options.scheduler_config().max_num_seqs
        running = simulated.engine.engine.running
        if request.query_params.get("fail_on_no_slot") and running >= total:
            return JSONResponse({"error": {"message": "no slot available"}}, 503)
        size = simulated.options.context_max
        return JSONResponse(
            [{"id": n, "n_ctx": size, "is_processing": n < running} for n in range(total)]
        )

    return endpoint
