"""Finds out what an engine is: its kind, how it tells about itself, and what to send as priority.

A few GETs, and for vLLM one call of a single token, once for each replica;
loops/replicas/window_control.py asks again while an engine does not answer. vLLM's schema says that
a priority raises an error where the server does not schedule by it, so one is sent to see; SGLang
declares it (scheduling.md 1.4). vLLM 0.32 takes one all the same and ignores it, which does no
harm: that a priority is sent is no proof that the engine goes by it.
"""

from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec

from lowtide.core.faults.outcome import NoReply, error_message
from lowtide.engines.metrics import llamacpp, sglang, tgi, vllm
from lowtide.engines.metrics.exposition import Exposition
from lowtide.engines.metrics.readers import PageReader, SignalsOf, SlotsReader, json_of
from lowtide.limits import BATCH_PRIORITY_VLLM, CONTROL_READ_S, PROBE_S
from lowtide.ports.engine import Engine, EngineInfo, MetricsReader

Kind = Literal["vllm", "sglang", "tgi", "llamacpp", "openai"]

_SIGNS: Final[tuple[tuple[bytes, Kind], ...]] = (
    (b"\nvllm:", "vllm"),
    (b"\nsglang:", "sglang"),
    (b"\nllamacpp:", "llamacpp"),
    (b"\ntgi_", "tgi"),
)


class _Version(msgspec.Struct):
    version: str


class HttpProber:
    """Finds out what the engine of one replica is. `root` is its URL without /v1, `engine` the URL
    that takes calls.
    """

    def __init__(
        self,
        root: Engine,
        engine: Engine,
        *,
        kind: Kind | Literal["auto"],
        priority: int | Literal["auto", "none"],
        models: Callable[[], Sequence[str]],
    ) -> None:
        """`models` gives the engine's own names of what it serves at present."""
        self._root = root
        self._engine = engine
        self._kind = kind
        self._priority = priority
        self._models = models

    async def probe(self) -> EngineInfo | None:
        """See `ports.engine.Prober`."""
        if self._kind == "openai":
            return self._found("openai", None, None)  # perhaps hosted: not one call too many
        answer = await self._root.get("/metrics", CONTROL_READ_S)
        if isinstance(answer, NoReply):
            return None
        page = answer.body if answer.status == 200 else b""
        kind = self._kind if self._kind != "auto" else await self._recognise(page)
        match kind:
            case "vllm":
                return await self._vllm(has_page=bool(page))
            case "sglang":
                return await self._sglang(has_page=bool(page))
            case "tgi":
                return await self._tgi(has_page=bool(page))
            case "llamacpp":
                return await self._llamacpp(has_page=bool(page))
            case _:
                return self._found("openai", None, None)

    async def _recognise(self, page: bytes) -> Kind:
        """The kind of the engine by its metrics; without those, by pages that only one kind has."""
        for sign, kind in _SIGNS:
            if sign in b"\n" + page:
                return kind
        props = await json_of(self._root, "/props", llamacpp.LlamacppProps)
        if props is not None and props.total_slots is not None:
            return "llamacpp"
        if await json_of(self._root, "/get_server_info", sglang.SglangInfo) is not None:
            return "sglang"
        return "vllm" if await json_of(self._root, "/version", _Version) is not None else "openai"

    async def _vllm(self, *, has_page: bool) -> EngineInfo:
        reader = self._reader(vllm.PAGE, vllm.signals_of, has_page)
        if self._priority != "auto":
            return self._found("vllm", reader, None)
        takes = await self._try_priority(BATCH_PRIORITY_VLLM)
        priority = BATCH_PRIORITY_VLLM if takes else None
        return EngineInfo("vllm", reader, priority, is_complete=takes is not None)

    async def _sglang(self, *, has_page: bool) -> EngineInfo:
        info = await json_of(self._root, "/get_server_info", sglang.SglangInfo)
        known = info or sglang.SglangInfo()
        reader = self._reader(sglang.PAGE, lambda page: sglang.signals_of(page, known), has_page)
        return self._found("sglang", reader, sglang.batch_priority(known))

    async def _tgi(self, *, has_page: bool) -> EngineInfo:
        info = await json_of(self._root, "/info", tgi.TgiInfo) or tgi.TgiInfo()
        reader = self._reader(tgi.PAGE, lambda page: tgi.signals_of(page, info), has_page)
        return self._found("tgi", reader, None)

    async def _llamacpp(self, *, has_page: bool) -> EngineInfo:
        props = await json_of(self._root, "/props", llamacpp.LlamacppProps)
        known = props or llamacpp.LlamacppProps()
        reader: MetricsReader | None = SlotsReader(self._root, known)
        if has_page:
            reader = self._reader(
                llamacpp.PAGE, lambda page: llamacpp.signals_of(page, known), has_page
            )
        elif await json_of(self._root, "/slots", list[llamacpp.Slot]) is None:
            reader = None
        return self._found("llamacpp", reader, None)

    def _reader(self, page: Exposition, signals_of: SignalsOf, has_page: bool) -> PageReader | None:
        return PageReader(self._root, page, signals_of) if has_page else None

    def _found(self, kind: str, reader: MetricsReader | None, priority: int | None) -> EngineInfo:
        if isinstance(self._priority, int):
            priority = self._priority
        elif self._priority == "none":
            priority = None
        return EngineInfo(kind, reader, priority)

    async def _try_priority(self, priority: int) -> bool | None:
        """Whether a call with that priority is taken; None when the engine has no answer now.

        What it refuses may be the endpoint, so all are tried that a model may have.
        """
        models = self._models()
        if not models:
            return None  # nothing can be called yet
        for model in models[:1]:
            for path, body in _CALLS:
                call = msgspec.json.encode({"model": model, **body, "priority": priority})
                answer = await self._engine.post(path, call, PROBE_S)
                if isinstance(answer, NoReply) or answer.status >= 429:
                    return None
                if answer.status < 300:
                    return True
                if "priorit" in (error_message(answer.body) or "").lower():
                    return False
        return False


_CALLS: Final[tuple[tuple[str, dict[str, object]], ...]] = (
    ("/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}),
    ("/completions", {"prompt": "Hi", "max_tokens": 1}),
    ("/embeddings", {"input": "Hi"}),
)
