"""The sections of which there is one each: their keys, defaults, and what their values must be.

Each section says by `problems` what makes no sense in it. `SECRET_KEYS` names the keys whose values
must never be shown.
"""

import re
from collections.abc import Iterator
from functools import cached_property
from ipaddress import ip_network
from pathlib import Path
from typing import ClassVar, Final, Literal
from zoneinfo import ZoneInfo

import msgspec

from lowtide import limits
from lowtide.config import exposure
from lowtide.config.placeholders import PLACEHOLDER_REFUSED, is_placeholder
from lowtide.config.presets import Preset
from lowtide.config.problems import Problem, unless
from lowtide.core.batches.completion_window import window_s
from lowtide.core.bodies.media_urls import MediaRule, MediaSetting, is_host, media_rule
from lowtide.core.scheduling.operating_hours import Span, span_of
from lowtide.core.webhooks.address_rules import IPNetwork


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """A table of settings. Its text form hides what is secret. What its words stand for is parsed
    once, by the check, and kept in cached properties.
    """

    SECRET_KEYS: ClassVar[frozenset[str]] = frozenset()
    COMMAND_KEYS: ClassVar[frozenset[str]] = frozenset()
    """Keys whose values are commands: `$NAME` in them is for the shell to fill in."""

    def __repr__(self) -> str:
        shown = (
            f"{key}={'***' if key in self.SECRET_KEYS and value else repr(value)}"
            for key, value in msgspec.structs.asdict(self).items()
        )
        return f"{type(self).__name__}({', '.join(shown)})"

    def problems(self) -> Iterator[Problem]:
        """What makes no sense although its type is right."""
        yield from ()


class ServerSettings(Section, frozen=True):
    """The server: where it listens and where it keeps its data."""

    SECRET_KEYS: ClassVar[frozenset[str]] = frozenset({"database_url", "blob_url", "upload_secret"})

    host: str = "127.0.0.1"
    port: int = 8000
    public_url: str | None = None
    """Signed upload addresses are built from it; None: from the request's own headers."""
    allowed_hosts: tuple[str, ...] = ()
    """Further names by which open mode may be called; a port in them is ignored."""
    allowed_origins: tuple[str, ...] = ()
    """Origins of pages that may call this server from a browser."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks of proxies whose X-Forwarded-For tells who calls."""
    path_prefix: str = ""
    """Stands before every path, as "/batch", where a proxy passes on a part of its host's paths."""
    data_dir: Path = Path("./lowtide-data")
    database_url: str = "sqlite"
    blob_url: str = "file"
    upload_secret: str | None = None
    """Signs upload addresses. The same on every machine that serves the API; None: from a file in
    `data_dir`, which one machine makes for itself."""
    shutdown_delay_s: float = 0.0
    """The time between SIGTERM, when `/ready` begins to fail, and the end
    of accepting connections.
    """
    metrics_host: str = "127.0.0.1"
    """The address at which a worker shows its metrics, without a key."""
    metrics_port: int | None = None
    """The port at which a worker shows its metrics, without a key; None: it shows none."""

    def problems(self) -> Iterator[Problem]:
        yield from unless(0 <= self.port <= 65535, ("server", "port"), "a port from 0 to 65535")
        yield from unless(
            0 <= (self.metrics_port or 0) <= 65535,
            ("server", "metrics_port"),
            "a port from 0 to 65535",
        )
        yield from unless(
            0 <= self.shutdown_delay_s <= limits.SHUTDOWN_DELAY_S_MAX,
            ("server", "shutdown_delay_s"),
            f"from 0 to {limits.SHUTDOWN_DELAY_S_MAX:g}",
        )
        yield from unless(
            self.public_url is None or is_http_url(self.public_url),
            ("server", "public_url"),
            "an address that begins with http:// or https:// and names a host",
        )
        yield from unless(
            not self.path_prefix or _PREFIX.fullmatch(self.path_prefix) is not None,
            ("server", "path_prefix"),
            "empty, or a path as '/batch': it begins with a slash, ends without one, and is none of"
            " Lowtide's own (/v1, /openai, /together)",
        )
        yield from unless(
            self.upload_secret is None or len(self.upload_secret) >= limits.UPLOAD_SECRET_CHARS_MIN,
            ("server", "upload_secret"),
            f"at least {limits.UPLOAD_SECRET_CHARS_MIN} characters, the same on every API machine",
        )
        if is_placeholder(self.upload_secret or ""):
            yield Problem(("server", "upload_secret"), PLACEHOLDER_REFUSED)
        yield from exposure.problems_of(
            self.allowed_hosts, self.allowed_origins, self.trusted_proxies
        )


class AuthSettings(Section, frozen=True):
    mode: Literal["open", "keys"] = "open"


_DAY_S: Final = 24 * 3600


class CatalogueSettings(Section, frozen=True):
    """Models known beside those of `[[model]]`, and what becomes of those that nothing serves."""

    file: str | None = None
    """The name of a shipped catalogue ("launch"), or the path of a file of `[[model]]` tables."""
    unserved: Literal["wait", "refuse"] = "wait"
    """A batch for a catalogued model that no replica serves: waits for one, or fails validation."""


class LimitSettings(Section, frozen=True):
    """The defaults are the launch limits of the Together Batch API."""

    preset: Preset = "launch"
    """Whose limits are the defaults of the three that follow."""
    requests_per_batch: int = limits.REQUESTS_PER_BATCH
    file_bytes: int = limits.FILE_BYTES
    enqueued_tokens_per_model: int = limits.ENQUEUED_TOKENS_PER_MODEL
    over_limit: Literal["fail", "queue"] = "fail"
    """A batch above `enqueued_tokens_per_model`: it fails, or waits, validated, until there is
    room."""
    completion_window_default: str = "24h"
    line_bytes: int = limits.LINE_BYTES_MAX
    batches_per_hour: int | None = None
    """Batches that an organization may create in any 60 minutes; None: no bound."""
    unfinished_batches: int = limits.UNFINISHED_BATCHES
    """Batches and background responses of an organization that may be unfinished at one time."""
    stored_bytes: int | None = None
    """Bytes of files that an organization may keep; None: no bound."""
    requests_in_flight: int | None = None
    """Requests of an organization that may be at engines at one time; None: no bound."""
    media_urls: MediaSetting = "pass"
    """URLs in bodies that an engine would fetch: let through, refused, or those of these hosts."""
    infeasible: Literal["accept", "refuse"] = "accept"
    """A batch whose completion window cannot be kept, by what was learnt of its model's pool."""
    results_days: int = limits.FILE_TTL_S // _DAY_S
    """Result files are deleted so many days after the end of their batch."""
    missing_usage: Literal["estimate", "free"] = "estimate"
    """What an answer without usable usage is charged as."""
    live_requests_per_minute: int | None = None
    """Interactive calls per key and model; None: no bound. Batch work does not count."""
    live_tokens_per_minute: int | None = None
    """Tokens of interactive calls per key and model, input and output; None: no bound."""

    control_calls_per_minute: int = limits.CONTROL_CALLS_PER_MINUTE
    """Calls of an organization other than interactive ones; a list counts a call more for each
    hundred rows."""

    @cached_property
    def media_rule(self) -> MediaRule | None:
        return media_rule(self.media_urls)

    @property
    def results_s(self) -> int:
        """Seconds that result files are kept."""
        return self.results_days * _DAY_S

    @cached_property
    def completion_window_s(self) -> int:
        return window_s(self.completion_window_default)

    def problems(self) -> Iterator[Problem]:
        for key in _COUNTS:
            yield from unless(getattr(self, key) > 0, ("limits", key), "at least 1")
        days = limits.FILE_TTL_S // _DAY_S
        yield from unless(
            1 <= self.results_days <= days, ("limits", "results_days"), f"from 1 to {days}"
        )
        for key in ("batches_per_hour", "stored_bytes", "requests_in_flight"):
            value = getattr(self, key) or 0
            yield from unless(value >= 0, ("limits", key), "at least 0, or left out")
        for key in ("live_requests_per_minute", "live_tokens_per_minute"):
            value = getattr(self, key)
            yield from unless(
                value is None or value > 0, ("limits", key), "at least 1, or left out"
            )
        if not isinstance(self.media_urls, str):
            odd = [host for host in self.media_urls if not is_host(host)]
            yield from unless(
                not odd and len(self.media_urls) > 0,
                ("limits", "media_urls"),
                "'pass', 'refuse', or a list of hosts, as [\"images.example.org\"]",
            )
        try:
            _ = self.completion_window_s
        except ValueError as error:
            yield Problem(("limits", "completion_window_default"), str(error))


class DispatchSettings(Section, frozen=True):
    """How requests are tried. Seconds unless the name says otherwise."""

    attempt_timeout_s: float = limits.ATTEMPT_TIMEOUT_S
    attempts_max: int = limits.ATTEMPTS_MAX
    commit_interval_s: float = limits.COMMIT_INTERVAL_S
    lease_ttl_s: float = limits.LEASE_TTL_S
    hours: str | None = None
    """When batch work starts, for example "22:00-06:00"; None: whenever there is room. A model's
    own hours go before these."""
    timezone: str = "UTC"
    """The time zone of all hours: an IANA name, as "Europe/Berlin"."""

    @cached_property
    def zone(self) -> ZoneInfo:
        """Raises KeyError, ValueError, OSError where there is no such zone."""
        return ZoneInfo(self.timezone)

    @cached_property
    def span(self) -> Span | None:
        """The span of its hours; None without any. Raises ValueError for
        words that stand for no hours.
        """
        return None if self.hours is None else span_of(self.hours)

    def problems(self) -> Iterator[Problem]:
        key = "dispatch"
        yield from unless(self.attempts_max > 0, (key, "attempts_max"), "at least 1")
        yield from unless(self.attempt_timeout_s > 0, (key, "attempt_timeout_s"), "above 0")
        yield from unless(
            0 < self.commit_interval_s <= 60, (key, "commit_interval_s"), "above 0, at most 60"
        )
        yield from unless(
            self.lease_ttl_s >= 3 * self.commit_interval_s,
            (key, "lease_ttl_s"),
            "at least three commits, else a lease ends between renewals",
        )


class ScaleSettings(Section, frozen=True):
    """How many replicas are asked for, by `GET /v1/admin/scale` and the metrics."""

    replicas_max: int = limits.SCALE_REPLICAS_MAX
    """The most replicas of each model."""
    cold_start_s: float = limits.SCALE_COLD_START_S
    """The time from asking for a replica until it answers; counts until some starts were seen."""
    hold_s: float = limits.SCALE_HOLD_S_MIN
    """The least time for which a number was too high before it falls."""

    def problems(self) -> Iterator[Problem]:
        yield from unless(
            0 < self.replicas_max <= limits.SOURCE_ENGINES_MAX,
            ("scale", "replicas_max"),
            f"from 1 to {limits.SOURCE_ENGINES_MAX}",
        )
        yield from unless(
            0 < self.cold_start_s <= limits.SCALE_COLD_START_S_MAX,
            ("scale", "cold_start_s"),
            f"above 0, at most {limits.SCALE_COLD_START_S_MAX:.0f}",
        )
        yield from unless(
            0 <= self.hold_s <= limits.SCALE_COLD_START_S_MAX,
            ("scale", "hold_s"),
            f"from 0 to {limits.SCALE_COLD_START_S_MAX:.0f}",
        )


class WebhookSettings(Section, frozen=True):
    """Webhooks: where events may be sent to."""

    SECRET_KEYS: ClassVar[frozenset[str]] = frozenset({"proxy"})

    allow_networks: tuple[str, ...] = ()
    """Networks that webhooks may be sent to although they are private or this machine's own."""
    proxy: str | None = None
    """An HTTP proxy on the way to every receiver; None: they are called directly."""

    @cached_property
    def networks(self) -> tuple[IPNetwork, ...]:
        """Raises ValueError for text that is no network."""
        return tuple(ip_network(text) for text in self.allow_networks)

    def problems(self) -> Iterator[Problem]:
        try:
            _ = self.networks
        except ValueError as error:
            words = f'networks, as "10.20.0.0/16" or "10.20.0.7/32": {error}'
            yield Problem(("webhooks", "allow_networks"), f"must be {words}")
        yield from unless(
            self.proxy is None or _PROXY.fullmatch(self.proxy) is not None,
            ("webhooks", "proxy"),
            "an address as http://proxy.example.org:3128; user and password go before the host",
        )


_COUNTS: Final = (
    "requests_per_batch",
    "file_bytes",
    "line_bytes",
    "unfinished_batches",
    "control_calls_per_minute",
)
_PROXY: Final = re.compile(r"http://(?:[^/\s@]+@)?(?:[\w.-]+|\[[0-9a-f:]+\])(?::\d{1,5})?/?")
_PREFIX: Final = re.compile(r"(?!/(?:v1|openai|together)(?:/|$))(?:/[\w~-][\w.~-]*)+", re.ASCII)


def is_http_url(url: str) -> bool:
    """Whether it begins with http:// or https:// and names a host."""
    return re.match(r"https?://[^/\s]+", url) is not None
