"""The check of `lowtide doctor` on a PostgreSQL (see checks.py). Nothing is changed."""

from lowtide import limits
from lowtide.cli.doctor.finding import Finding
from lowtide.config import Settings
from lowtide.config.sources import ConfigError
from lowtide.ports.store import StoreError
from lowtide.store.schema.compatibility import refusal
from lowtide.store.schema.server_info import DatabaseFacts
from lowtide.store.schema.tables import HEAD
from lowtide.system import SystemClock
from lowtide.wiring.database import skew_refusal, store_of


async def check_postgres(settings: Settings) -> Finding:
    """The finding on PostgreSQL: it is reachable, writable, safe, at this version's schema, and
    its clock agrees.
    """
    try:
        store = store_of(settings)
    except (ConfigError, StoreError) as error:
        return Finding("store", "fail", str(error), "Correct server.database_url.")
    try:
        facts = await store.facts(SystemClock())
        if not facts.is_standby:
            await store.check_fit()
    except StoreError as error:
        remedy = "Check server.database_url, and that this machine may connect (pg_hba.conf)."
        return Finding("store", "fail", str(error), remedy)
    finally:
        await store.aclose()
    return _finding(facts, settings.dispatch.lease_ttl_s)


def _finding(facts: DatabaseFacts, lease_ttl_s: float) -> Finding:
    """The finding on the facts, the gravest first."""
    what = f"{facts.server}, {'empty' if facts.schema is None else f'schema {facts.schema}'}"
    if facts.is_standby:
        remedy = "Name the primary, or several hosts with ?target_session_attrs=read-write."
        return Finding("store", "fail", f"{what}: a standby, which takes no writes", remedy)
    skewed = skew_refusal(facts.clock_ahead_s, lease_ttl_s)
    if skewed is not None:
        return Finding("store", "fail", f"{what}: {skewed}", "Set the clock.")
    if facts.schema is not None:
        refused = refusal(facts.schema, facts.least_code)
        if refused is not None:
            return Finding("store", "fail", refused.what, refused.remedy)
    if facts.schema is not None and facts.schema > HEAD:
        what += f", newer than this version's {HEAD} and fit for it: an upgrade under way?"
    if facts.schema is not None and facts.schema < HEAD:
        remedy = "The next start will bring it up to date; back it up before."
        return Finding("store", "warn", f"{what}, this version has {HEAD}", remedy)
    if facts.unsafe:
        remedy = "A crash of the database may lose results that were paid for: set them on."
        return Finding("store", "warn", f"{what}, {', '.join(facts.unsafe)}", remedy)
    if abs(facts.clock_ahead_s) > limits.STORE_CLOCK_SKEW_S:
        what += f", its clock {-facts.clock_ahead_s:+.1f} s from ours"
        return Finding("store", "warn", what, "Set the clocks by NTP: leases suffer.")
    return Finding("store", "ok", what)
