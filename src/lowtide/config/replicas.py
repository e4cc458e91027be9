"""`[[replica]]`: an engine that serves models, and what its settings must be."""

from collections.abc import Iterator
from typing import ClassVar, Final
from urllib.parse import urlsplit

from lowtide import limits
from lowtide.config.engine_settings import EngineSettings
from lowtide.config.problems import Problem, unless
from lowtide.config.sections import is_http_url
from lowtide.core.replicas.found_engines import is_replica_name
from lowtide.core.replicas.replica_changes import name_of

_PORTS: Final = {"http": 80, "https": 443}


class ReplicaSettings(EngineSettings, frozen=True, kw_only=True):
    """One engine URL that serves one or more models."""

    SECRET_KEYS: ClassVar[frozenset[str]] = EngineSettings.SECRET_KEYS | {"url"}

    url: str
    name: str | None = None
    """What logs, metrics and other workers know it by; None: host and port."""

    @property
    def label(self) -> str:
        """The replica's name: the one in the settings, else host and port."""
        return self.name or name_of(self.url)

    def problems_at(self, place: int) -> Iterator[Problem]:
        """What makes no sense in it, as the entry number `place`, from 0."""
        where = ("replica", place)
        # The address is not shown: it may hold a password by mistake.
        yield from unless(
            is_http_url(self.url),
            (*where, "url"),
            "an address that begins with http:// or https:// and names a host",
        )
        yield from unless(
            self.name is None or is_replica_name(self.name),
            (*where, "name"),
            f"1 to {limits.REPLICA_NAME_CHARS_MAX} letters, digits and signs, without spaces",
        )
        yield from unless(
            bool(self.models or self.names) and all(self.models),
            (*where, "models"),
            'at least one model id, or "*" for all that the engine lists',
        )
        if self.ca_file is not None and self.url.startswith("http://"):
            words = "the url begins with http://, which has no certificate to check: use https://"
            yield Problem((*where, "ca_file"), words)
        yield from self.engine_problems(where)


def problems_between(replicas: tuple[ReplicaSettings, ...]) -> Iterator[Problem]:
    """What is wrong with the list as a whole."""
    urls = [address_of(replica.url) for replica in replicas]
    for place, url in enumerate(urls):
        if url in urls[:place]:
            words = f"is that of number {urls.index(url) + 1}: list it once, with all of its models"
            yield Problem(("replica", place, "url"), words)
    names = [replica.label for replica in replicas]
    for place, name in enumerate(names):
        if name in names[:place] and urls[place] not in urls[:place]:
            words = f"{name!r} is that of number {names.index(name) + 1}, too: give each its own"
            yield Problem(("replica", place, "name"), words)


def address_of(url: str) -> str:
    """One spelling of the addresses that are certainly the same: letters of scheme and host, the
    port that goes without saying, `localhost`, slashes at the end. No name is looked up."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:  # said when the engine is made
        return url
    host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname
    return f"{parts.scheme}://{host}:{port}{parts.path.rstrip('/')}?{parts.query}"
