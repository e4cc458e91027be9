"""Opens the store of the setting `database_url`, and checks whether its server is fit for use."""

import structlog

from lowtide import limits
from lowtide.config import Settings
from lowtide.config.sources import ConfigError
from lowtide.ports.clock import Clock
from lowtide.ports.store import StoreError
from lowtide.service.fair_places import FairPlaces
from lowtide.store.connection.postgres import is_postgres
from lowtide.store.sql_store import SqlStore

log = structlog.get_logger(__name__)


def is_single_machine(settings: Settings) -> bool:
    return settings.server.database_url == "sqlite"


def store_of(settings: Settings) -> SqlStore:
    """The store, not opened yet. Raises ConfigError for an unknown kind of URL, or
    a missing driver.
    """
    url = settings.server.database_url
    if is_single_machine(settings):
        return SqlStore.sqlite(settings.server.data_dir / "lowtide.db", FairPlaces(1))
    if not is_postgres(url):
        # Not shown: what is no address may be a password.
        raise ConfigError(
            "server.database_url: that kind of database is not known. Use 'sqlite', or"
            " 'postgresql://user:password@host:5432/database'."
        )
    try:
        return SqlStore(url, FairPlaces(limits.STORE_CONNECTIONS))
    except ModuleNotFoundError:
        raise ConfigError(
            "server.database_url names PostgreSQL, and its driver is not installed:"
            " python3 -m pip install 'lowtide[postgres]'"
        ) from None


async def check_server(store: SqlStore, clock: Clock, lease_ttl_s: float) -> None:
    """Raises StoreError with what to do where work could not be shared safely."""
    facts = await store.facts(clock)
    refusal = skew_refusal(facts.clock_ahead_s, lease_ttl_s)
    if refusal is not None:
        raise StoreError(refusal)
    if abs(facts.clock_ahead_s) > limits.STORE_CLOCK_SKEW_S:
        log.warning("clock.skewed", ahead_of_database_s=round(facts.clock_ahead_s, 1))
    if facts.unsafe:
        log.warning("database.unsafe", settings=facts.unsafe, hint="a crash may lose results")


def skew_refusal(ahead_s: float, lease_ttl_s: float) -> str | None:
    """Why this machine's clock is too far off; machines tell by their own clocks how long
    another's lease lasts.
    """
    if abs(ahead_s) <= lease_ttl_s / 2:
        return None
    side = "ahead of" if ahead_s > 0 else "behind"
    return (
        f"this machine's clock is {abs(ahead_s):.1f} s {side} the database's, and leases last"
        f" {lease_ttl_s:g} s: work would be taken from workers that are alive, and done again."
        " Set the clocks by NTP (chrony, systemd-timesyncd)."
    )
