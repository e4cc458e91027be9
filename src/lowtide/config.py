"""One frozen settings tree: defaults <- lowtide.toml <- LOWTIDE_* environment <- flags.

Read once at start, by the CLI, and handed to `wiring`. Every bad key, type or value ends in
ConfigError with the key, where it came from and what is allowed; nothing starts on a guess.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from importlib.resources import files
from importlib.resources.abc import Traversable
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, Literal, TypeVar
from zoneinfo import ZoneInfo

import msgspec

from lowtide import limits
from lowtide.config_sources import ConfigError, from_environment, put, read_toml
from lowtide.core.money import PriceError, model_prices
from lowtide.core.opening import Hours, hours_of

DEFAULT_FILE: Final = "lowtide.toml"
SHIPPED_CATALOGUES: Final = files("lowtide") / "catalogues"
"""A catalogue file given by a bare name is one of these."""

Tree = TypeVar("Tree", bound=msgspec.Struct)

EngineKind = Literal["auto", "vllm", "sglang", "llamacpp", "tgi", "openai"]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Server(_Section, frozen=True):
    """Where Lowtide listens and where it keeps things."""

    host: str = "127.0.0.1"
    port: int = 8000
    public_url: str | None = None
    """Signed upload addresses are built from it; None: from the request's own headers."""
    data_dir: Path = Path("./lowtide-data")
    database_url: str = "sqlite"
    blob_url: str = "file"
    upload_secret: str | None = None
    """Signs upload addresses. The same on every machine that serves the API; None: from a file in
    `data_dir`, which one machine makes for itself."""
    shutdown_delay_s: float = 0.0
    """From SIGTERM, when `/ready` turns, to the moment from which no connection is accepted."""
    metrics_port: int | None = None
    """Where a worker shows its metrics, at `host`, to whoever reaches it; None: nowhere."""


class Auth(_Section, frozen=True):
    mode: Literal["open", "keys"] = "open"


class CatalogueFile(_Section, frozen=True):
    """Models known beside those of `[[model]]`, and what becomes of those that nothing serves."""

    file: str | None = None
    """The name of a shipped catalogue ("launch"), or the path of a file of `[[model]]` tables."""
    unserved: Literal["wait", "refuse"] = "wait"
    """A batch for a catalogued model that no replica serves: waits for one, or fails validation."""


class Limits(_Section, frozen=True):
    """The defaults are the launch limits of the Together Batch API."""

    requests_per_batch: int = limits.REQUESTS_PER_BATCH
    file_bytes: int = limits.FILE_BYTES
    enqueued_tokens_per_model: int = limits.ENQUEUED_TOKENS_PER_MODEL
    completion_window_default: str = "24h"
    line_bytes: int = limits.LINE_BYTES_MAX
    batches_per_hour: int | None = None
    """Batches that an organisation may create in any 60 minutes; None: no bound."""
    stored_bytes: int | None = None
    """Bytes of files that an organisation may keep; None: no bound."""
    requests_in_flight: int | None = None
    """Requests of an organisation that may be at engines at one time; None: no bound."""
    infeasible: Literal["accept", "refuse"] = "accept"
    """A batch whose completion window cannot be kept, by what was learnt of its model's pool."""
    live_requests_per_minute: int | None = None
    """Interactive calls per key and model; None: no bound. Batch work does not count."""
    live_tokens_per_minute: int | None = None
    """Tokens of interactive calls per key and model, input and output; None: no bound."""

    @property
    def completion_window_s(self) -> int:
        return parse_window(self.completion_window_default)


class Dispatch(_Section, frozen=True):
    """How requests are tried. Seconds unless the name says otherwise."""

    attempt_timeout_s: float = limits.ATTEMPT_TIMEOUT_S
    attempts_max: int = limits.ATTEMPTS_MAX
    beat_s: float = limits.BEAT_S
    lease_ttl_s: float = limits.LEASE_TTL_S
    hours: str | None = None
    """When batch work starts, for example "22:00-06:00"; None: whenever there is room. A model's
    own hours go before these."""
    timezone: str = "UTC"
    """Of all hours: an IANA name, as "Europe/Berlin"."""


class Replica(_Section, frozen=True):
    """One engine URL that serves one or more models."""

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


class Model(_Section, frozen=True):
    """An entry of the catalogue. Prices are US dollars per million tokens, live, and exact."""

    id: str
    aliases: tuple[str, ...] = ()
    engine_name: str | None = None
    """What the engine calls it; None: the id."""
    type: Literal["chat", "language", "embedding", "code"] = "chat"
    size: str | None = None
    context_length: int | None = None
    input_price: Decimal = Decimal(0)
    cached_input_price: Decimal | None = None
    """Of input tokens that the engine had cached; None: the input price."""
    output_price: Decimal = Decimal(0)
    batch_discount: Decimal = Decimal("0.5")
    """The share that a batch does not pay."""
    hours: str | None = None
    """When its batch work starts; None: the hours of [dispatch]."""


class Settings(_Section, frozen=True):
    """The whole tree. `source` names the file it was read from, for messages."""

    server: Server = Server()
    auth: Auth = Auth()
    catalogue: CatalogueFile = CatalogueFile()
    limits: Limits = Limits()
    dispatch: Dispatch = Dispatch()
    replica: tuple[Replica, ...] = ()
    model: tuple[Model, ...] = ()


def load(
    file: Path | None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Settings:
    """Read, merge and check the settings.

    `file` None means `./lowtide.toml` if there is one. `flags` maps dotted keys (`server.port`) to
    values; None values are passed over. Raises ConfigError.
    """
    environ = os.environ if environ is None else environ
    if file is None and Path(DEFAULT_FILE).is_file():
        file = Path(DEFAULT_FILE)
    tree = read_toml(file) if file is not None else {}
    for key, value in from_environment(environ):
        put(tree, key, value)
    for dotted, value in (flags or {}).items():
        if value is not None:
            put(tree, dotted.split("."), value)
    source = str(file) if file is not None else "the defaults"
    settings = _convert(tree, Settings, source)
    settings = msgspec.structs.replace(settings, model=_with_catalogue(settings))
    check(settings)
    return settings


class _CatalogueTables(_Section, frozen=True):
    """What a catalogue file holds."""

    model: tuple[Model, ...]


def _with_catalogue(settings: Settings) -> tuple[Model, ...]:
    """The models of the settings, then those of the catalogue file whose names they leave free."""
    name = settings.catalogue.file
    if name is None:
        return settings.model
    place: Traversable | Path = SHIPPED_CATALOGUES / f"{name}.toml"
    if not (re.fullmatch(r"[\w-]+", name) and place.is_file()):
        place = Path(name).expanduser()
    tables = _convert(read_toml(place, "catalogue.file"), _CatalogueTables, str(place))
    taken = {known for model in settings.model for known in (model.id, *model.aliases)}
    return (*settings.model, *(model for model in tables.model if model.id not in taken))


def _convert(tree: dict[str, Any], kind: type[Tree], source: str) -> Tree:
    try:
        return msgspec.convert(tree, kind, strict=False, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {error}") from None


def check(settings: Settings) -> None:
    """Refuse values that have the right type and make no sense. Raises ConfigError."""
    server, limit = settings.server, settings.limits
    _require(0 <= server.port <= 65535, "server.port", "a port from 0 to 65535")
    _require(0 <= (server.metrics_port or 0) <= 65535, "server.metrics_port", "a port")
    if settings.auth.mode == "open" and not is_loopback(server.host):
        raise ConfigError(
            f"server.host = {server.host!r} is a public address and auth.mode is 'open': anyone"
            " could run batches. Use host = '127.0.0.1', or auth.mode = 'keys'."
        )
    _require(
        0 <= server.shutdown_delay_s <= limits.SHUTDOWN_DELAY_S_MAX,
        "server.shutdown_delay_s",
        f"from 0 to {limits.SHUTDOWN_DELAY_S_MAX:g}",
    )
    if server.public_url is not None:
        _require_url(server.public_url, "server.public_url")
    _require(limit.requests_per_batch > 0, "limits.requests_per_batch", "at least 1")
    _require(limit.file_bytes > 0, "limits.file_bytes", "at least 1")
    _require(limit.line_bytes > 0, "limits.line_bytes", "at least 1")
    for key in ("batches_per_hour", "stored_bytes", "requests_in_flight"):
        _require((getattr(limit, key) or 0) >= 0, f"limits.{key}", "at least 0, or left out")
    for key in ("live_requests_per_minute", "live_tokens_per_minute"):
        value = getattr(limit, key)
        _require(value is None or value > 0, f"limits.{key}", "at least 1, or left out")
    _require(
        server.upload_secret is None or len(server.upload_secret) >= limits.UPLOAD_SECRET_CHARS_MIN,
        "server.upload_secret",
        f"at least {limits.UPLOAD_SECRET_CHARS_MIN} characters, the same on every API machine",
    )
    parse_window(limit.completion_window_default, "limits.completion_window_default")
    _require(settings.dispatch.attempts_max > 0, "dispatch.attempts_max", "at least 1")
    _require(settings.dispatch.attempt_timeout_s > 0, "dispatch.attempt_timeout_s", "above 0")
    _require(0 < settings.dispatch.beat_s <= 60, "dispatch.beat_s", "above 0, at most 60")
    _require(
        settings.dispatch.lease_ttl_s >= 3 * settings.dispatch.beat_s,
        "dispatch.lease_ttl_s",
        "at least three beats, else a lease ends between renewals",
    )
    _check_hours(settings)
    for place, replica in enumerate(settings.replica, start=1):
        _check_replica(replica, f"[[replica]] number {place}")
    urls = [replica.url.rstrip("/") for replica in settings.replica]
    for place, url in enumerate(urls):
        _require(
            url not in urls[:place], f"[[replica]] {url}", "listed once, with all of its models"
        )
    _check_models(settings.model)


def _check_hours(settings: Settings) -> None:
    zone = settings.dispatch.timezone
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError):  # no such zone, or no name of one
        raise ConfigError(
            f"dispatch.timezone = {zone!r}: there is no such time zone here. Use a name such as"
            " 'Europe/Berlin'; where the system has none, install the package tzdata."
        ) from None
    for key, words in hours_settings(settings):
        try:
            hours_of(words, zone)
        except ValueError as error:
            raise ConfigError(f"{key}: {error}") from None


def hours_settings(settings: Settings) -> Iterator[tuple[str, str]]:
    """Every setting of hours that is given, with its key."""
    if settings.dispatch.hours is not None:
        yield "dispatch.hours", settings.dispatch.hours
    for model in settings.model:
        if model.hours is not None:
            yield f"[[model]] {model.id}: hours", model.hours


def hours_by_model(settings: Settings, models: Iterable[str]) -> dict[str, Hours]:
    """Hours of those models that have any."""
    own = {model.id: model.hours for model in settings.model}
    words = {model: own.get(model) or settings.dispatch.hours for model in models}
    zone = settings.dispatch.timezone
    return {model: hours_of(hours, zone) for model, hours in words.items() if hours is not None}


def _check_replica(replica: Replica, where: str) -> None:
    _require_url(replica.url, f"{where}: url")
    _require(bool(replica.models), f"{where}: models", "at least one model id")
    _require(
        replica.window is None or 1 <= replica.window <= limits.WINDOW_MAX,
        f"{where}: window",
        f"from 1 to {limits.WINDOW_MAX}, or left out",
    )
    _require(replica.ttft_slo_ms > 0, f"{where}: ttft_slo_ms", "at least 1")
    _require(replica.itl_slo_ms > 0, f"{where}: itl_slo_ms", "at least 1")


def _check_models(models: Sequence[Model]) -> None:
    seen: set[str] = set()
    for model in models:
        for name in (model.id, *model.aliases):
            _require(
                name not in seen, f"[[model]] {model.id}", f"names used once; {name!r} is twice"
            )
            seen.add(name)
        _require(
            model.batch_discount.is_finite() and 0 <= model.batch_discount <= 1,
            f"[[model]] {model.id}: batch_discount",
            "a share from 0 to 1",
        )
        prices = (model.input_price, model.cached_input_price or Decimal(0), model.output_price)
        _require(all(p.is_finite() for p in prices), f"[[model]] {model.id}: prices", "numbers")
        try:
            model_prices(
                model.input_price,
                model.cached_input_price,
                model.output_price,
                model.batch_discount,
            )
        except PriceError as error:
            raise ConfigError(f"[[model]] {model.id}: {error}") from None


_WINDOW = re.compile(r"(\d+)\s*([mhd])")
_UNIT_S: Final = {"m": 60, "h": 3600, "d": 86400}


def parse_window(text: str, key: str = "completion_window") -> int:
    """Seconds of `24h`, `90m`, `7d`. Raises ConfigError outside the bounds of `limits`."""
    match = _WINDOW.fullmatch(text.strip())
    seconds = int(match[1]) * _UNIT_S[match[2]] if match else 0
    low, high = limits.COMPLETION_WINDOW_S_MIN, limits.COMPLETION_WINDOW_S_MAX
    if not low <= seconds <= high:
        raise ConfigError(f"{key} = {text!r}: give hours or days from 1h to 7d, for example '24h'")
    return seconds


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`. Names other than localhost count as public."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _path(kind: type, value: object) -> Path:
    """The one type of the tree that msgspec does not know."""
    assert kind is Path, "a setting of a new type needs its own conversion"
    if not isinstance(value, str) or not value:
        raise ValueError("Expected the path of a folder")
    return Path(value).expanduser()


def _require(holds: bool, key: str, allowed: str) -> None:
    if not holds:
        raise ConfigError(f"{key}: must be {allowed}")


def _require_url(url: str, key: str) -> None:
    if not re.match(r"https?://[^/\s]+", url):
        raise ConfigError(f"{key} = {url!r}: must begin with http:// or https:// and name a host")
