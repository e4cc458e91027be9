"""`[[replica]]`: an engine that serves models, and what its settings must be."""

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

from lowtide import limits
from lowtide.config.problems import Problem, unless
from lowtide.config.sections import Section, is_http_url

EngineKind = Literal["auto", "vllm", "sglang", "llamacpp", "tgi", "openai"]


class Replica(Section, frozen=True):
    """One engine URL that serves one or more models."""

    SECRET_KEYS: ClassVar[frozenset[str]] = frozenset({"url", "api_key", "headers"})

    url: str
    models: tuple[str, ...]
    window: int | None = None
    """Batch calls in flight at most; None: as many as do well."""
    relaxed: bool = False
    """Long batch prompts may disturb live traffic here; other replicas are spared them."""
    priority: int | Literal["auto", "none"] = "auto"
    """What to send as `priority` of batch calls; "auto": what the engine is found to understand."""
    watch_prompts: bool = True
    """Have batch answers streamed while there is live traffic, to see when each prompt was read."""
    ttft_slo_ms: int = limits.TTFT_SLO_MS
    itl_slo_ms: int = limits.ITL_SLO_MS
    api_key: str | None = None
    headers: Mapping[str, str] = {}
    engine: EngineKind = "auto"
    drop_fields: tuple[str, ...] = ()
    """Fields of a request body that this engine refuses; they are left out."""
    verify_tls: bool = True
    attempt_timeout_s: float | None = None

    def problems_at(self, place: int) -> Iterator[Problem]:
        """What makes no sense in it, as the entry number `place`, from 0."""
        where = ("replica", place)
        # The address is not shown: it may hold a password by mistake.
        yield from unless(
            is_http_url(self.url),
            (*where, "url"),
            "an address that begins with http:// or https:// and names a host",
        )
        yield from unless(bool(self.models), (*where, "models"), "at least one model id")
        yield from unless(
            self.window is None or 1 <= self.window <= limits.WINDOW_MAX,
            (*where, "window"),
            f"from 1 to {limits.WINDOW_MAX}, or left out",
        )
        for key in ("ttft_slo_ms", "itl_slo_ms"):
            yield from unless(getattr(self, key) > 0, (*where, key), "at least 1")
        yield from unless(
            self.attempt_timeout_s is None or self.attempt_timeout_s > 0,
            (*where, "attempt_timeout_s"),
            "above 0, or left out",
        )


def problems_between(replicas: tuple[Replica, ...]) -> Iterator[Problem]:
    """What is wrong with the list as a whole."""
    urls = [replica.url.rstrip("/") for replica in replicas]
    for place, url in enumerate(urls):
        if url in urls[:place]:
            words = f"is that of number {urls.index(url) + 1}: list it once, with all of its models"
            yield Problem(("replica", place, "url"), words)
