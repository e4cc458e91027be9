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
from lowtide.engines.metrics.pages import PAGES, PageKind, kind_of_page, missing_metrics
from lowtide.engines.metrics.readers import MetricsOf, PageReader, SlotsReader, json_of
from lowtide.limits import BATCH_PRIORITY_VLLM, CONTROL_READ_S, PROBE_S
from lowtide.ports.engine import Engine, EngineInfo, MetricsReader

Kind = Literal["vllm", "sglang", "tgi", "llamacpp", "openai"]


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
                return await self._vllm(page)
            case "sglang":
                return await self._sglang(page)
            case "tgi":
                return await self._tgi(page)
            case "llamacpp":
                return await self._llamacpp(page)
            case _:
                return self._found("openai", None, None)

    async def _recognise(self, page: bytes) -> Kind:
        """The kind of the engine by its metrics; without those, by pages that only one kind has."""
        if (kind := kind_of_page(page)) is not None:
            return kind
        props = await json_of(self._root, "/props", llamacpp.LlamacppProps)
        if props is not None and props.total_slots is not None:
            return "llamacpp"
        if await json_of(self._root, "/get_server_info", sglang.SglangInfo) is not None:
            return "sglang"
        return "vllm" if await json_of(self._root, "/version", _Version) is not None else "openai"

    async def _vllm(self, page: bytes) -> EngineInfo:
        reader = self._reader("vllm", vllm.metrics_of, page)
        if self._priority != "auto":
            return self._found("vllm", reader, None, page)
        takes = await self._try_priority(BATCH_PRIORITY_VLLM)
        priority = BATCH_PRIORITY_VLLM if takes else None
        missing = _key_missing("vllm", reader, page)
        return EngineInfo("vllm", reader, priority, takes is not None, missing)

    async def _sglang(self, page: bytes) -> EngineInfo:
        info = await json_of(self._root, "/get_server_info", sglang.SglangInfo)
        known = info or sglang.SglangInfo()
        reader = self._reader("sglang", lambda samples: sglang.metrics_of(samples, known), page)
        return self._found("sglang", reader, sglang.batch_priority(known), page)

    async def _tgi(self, page: bytes) -> EngineInfo:
        info = await json_of(self._root, "/info", tgi.TgiInfo) or tgi.TgiInfo()
        reader = self._reader("tgi", lambda samples: tgi.metrics_of(samples, info), page)
        return self._found("tgi", reader, None, page)

    async def _llamacpp(self, page: bytes) -> EngineInfo:
        props = await json_of(self._root, "/props", llamacpp.LlamacppProps)
        known = props or llamacpp.LlamacppProps()
        reader: MetricsReader | None = SlotsReader(self._root, known)
        if page:
            reader = self._reader(
                "llamacpp", lambda samples: llamacpp.metrics_of(samples, known), page
            )
        elif await json_of(self._root, "/slots", list[llamacpp.Slot]) is None:
            reader = None
        return self._found("llamacpp", reader, None, page)

    def _reader(self, kind: PageKind, metrics_of: MetricsOf, body: bytes) -> PageReader | None:
        """None without a page, and for one that tells nothing, as when its metrics were renamed:
        the engine is then one without metrics, which works, and not one that has fallen silent.
        """
        page = PAGES[kind]
        tells = bool(body) and metrics_of(page.read(body)) is not None
        return PageReader(self._root, page, metrics_of) if tells else None

    def _found(
        self, kind: Kind, reader: MetricsReader | None, priority: int | None, page: bytes = b""
    ) -> EngineInfo:
        if isinstance(self._priority, int):
            priority = self._priority
        elif self._priority == "none":
            priority = None
        missing = _key_missing(kind, reader, page)
        # SGLang shows some metrics from the first request on, so the page is worth another look.
        return EngineInfo(kind, reader, priority, not missing, missing)

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


def _key_missing(kind: Kind, reader: MetricsReader | None, page: bytes) -> tuple[str, ...]:
    """The names without which a page tells nothing, where it has one and none can be read."""
    if reader is not None or kind == "openai" or not page:
        return ()
    return tuple(each.names[0] for each in missing_metrics(page, kind) if each.is_key)


_CALLS: Final[tuple[tuple[str, dict[str, object]], ...]] = (
    ("/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}),
    ("/completions", {"prompt": "Hi", "max_tokens": 1}),
    ("/embeddings", {"input": "Hi"}),
)
