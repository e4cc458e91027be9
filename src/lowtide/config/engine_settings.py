"""How an engine is called and steered: the keys that `[[replica]]` and `[[source]]` share.

A source has them as a template for each engine that it finds. Invariant: a key is declared, checked
and documented once, for both.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from lowtide import limits
from lowtide.config.problems import Problem, unless
from lowtide.config.sections import Section
from lowtide.core.replicas.served_models import ALL

OWN_FIELDS: Final = frozenset({"input", "messages", "model", "prompt", "stream", "stream_options"})
"""Fields of a body that make it this request and no other, or that Lowtide sets itself."""

EngineKind = Literal["auto", "vllm", "sglang", "llamacpp", "tgi", "openai"]


class EngineSettings(Section, frozen=True):
    """What a replica's settings say besides its address and name."""

    SECRET_KEYS: ClassVar[frozenset[str]] = frozenset({"api_key", "headers", "query", "proxy"})

    models: tuple[str, ...] = ()
    """What requests may call its models; "*": whatever /v1/models lists, asked again and again."""
    names: Mapping[str, str] = {}
    """Models that this engine calls by another name: the name in requests = the engine's own."""
    window: int | None = None
    """Batch calls in flight at most; None: as many as do well."""
    relaxed: bool = False
    """Long batch prompts may disturb live traffic here; other replicas are spared them."""
    priority: int | Literal["auto", "none"] = "auto"
    """What to send as `priority` of batch calls; "auto": what the engine is found to understand."""
    watch_prompts: bool | Literal["auto"] = "auto"
    """Have batch answers streamed while there is live traffic, to see when each prompt was read;
    "auto": but not by llama.cpp, which gains nothing by it."""
    prompt_parts: bool = True
    """Send long batch prompts in parts while steps are too long for live calls."""
    ttft_slo_ms: int = limits.TTFT_SLO_MS
    itl_slo_ms: int = limits.ITL_SLO_MS
    api_key: str | None = None
    api_key_file: Path | None = None
    """Holds the key; read again when the engine refuses the one that it held."""
    api_key_env: str | None = None
    """The variable that holds the key."""
    headers: Mapping[str, str] = {}
    query: Mapping[str, str] = {}
    """Goes with every call, behind the path."""
    extra_body: Mapping[str, Any] = {}
    """Fields that are set in every request body."""
    engine: EngineKind = "auto"
    drop_fields: tuple[str, ...] = ()
    """Fields of a request body that this engine refuses; they are left out."""
    allow_fields: tuple[str, ...] = ()
    """Fields that callers may set although they act on others' calls as well."""
    cache_salt: bool | Literal["auto"] = "auto"
    """Whether the prompt cache is kept apart by organization; "auto": with keys, on vLLM."""
    verify_tls: bool = True
    ca_file: Path | None = None
    """Certificates of authorities to trust instead of the system's."""
    proxy: str | None = None
    """`http://user:password@host:port`; None: calls go straight to the engine."""
    attempt_timeout_s: float | None = None

    def engine_problems(self, where: tuple[str, int]) -> Iterator[Problem]:
        """What makes no sense in these keys; `where` is the entry that has them."""
        yield from unless(
            ALL not in self.names and all(self.names) and all(self.names.values()),
            (*where, "names"),
            "a name in requests = the engine's own name, for each model that has two",
        )
        yield from unless(
            self.window is None or 1 <= self.window <= limits.WINDOW_MAX,
            (*where, "window"),
            f"from 1 to {limits.WINDOW_MAX}, or left out",
        )
        keys = [k for k in ("api_key", "api_key_file", "api_key_env") if getattr(self, k)]
        if len(keys) > 1:
            yield Problem((*where, keys[1]), f"goes not with {keys[0]}: give the key in one way")
        if self.ca_file is not None and not self.verify_tls:
            yield Problem((*where, "ca_file"), "goes not with verify_tls = false")
        yield from unless(
            self.proxy is None or self.proxy.startswith("http://"),
            (*where, "proxy"),
            "an address that begins with http://, as http://proxy.example.org:3128",
        )
        for name in OWN_FIELDS & self.extra_body.keys():
            words = f"{name!r} is the request's own, and cannot be set for all"
            yield Problem((*where, "extra_body"), words)
        for key in ("ttft_slo_ms", "itl_slo_ms"):
            yield from unless(getattr(self, key) > 0, (*where, key), "at least 1")
        yield from unless(
            self.attempt_timeout_s is None or self.attempt_timeout_s > 0,
            (*where, "attempt_timeout_s"),
            "above 0, or left out",
        )
