"""The checks of `lowtide doctor` on who may call and what it costs (see checks.py).

Invariant: nothing is changed; the database is read by connections that cannot write.
"""

from collections.abc import Sequence
from contextlib import aclosing
from datetime import datetime

from lowtide import limits
from lowtide.cli.doctor.finding import Finding
from lowtide.cli.terminal.units import listed
from lowtide.config import Settings
from lowtide.core.accounts.money import FREE, dollars_text
from lowtide.core.accounts.tenancy import ApiKey, Organization
from lowtide.ports.accounts import LedgerStore
from lowtide.ports.store import StoreError
from lowtide.service.accounts.quotas import month_of
from lowtide.service.catalogue import catalogue_from, resolve
from lowtide.system import SystemClock
from lowtide.wiring.database import is_single_machine, store_of

_FIRST_KEY = "`lowtide keys create NAME --scopes read,submit,admin` makes one."


async def check_accounts(settings: Settings, now: datetime) -> list[Finding]:
    """The findings on keys and spend caps. Call it only when the store was found to be of this
    version, or not made yet.
    """
    if is_single_machine(settings) and not (settings.server.data_dir / "lowtide.db").exists():
        return [_keys_finding(settings, [], now)]
    try:
        # not opened, which would write: its schema was looked at
        async with aclosing(store_of(settings)) as store:
            if (await store.facts(SystemClock())).schema is None:
                return [_keys_finding(settings, [], now)]
            keys = await store.tenants.keys()
            organizations = await store.tenants.organizations()
            caps = await _caps_finding(organizations, store.ledger, now)
    except StoreError as error:
        return [Finding("auth", "fail", f"keys cannot be read: {error}", "Restore a backup.")]
    return [_keys_finding(settings, keys, now), *caps]


def _keys_finding(settings: Settings, keys: Sequence[ApiKey], now: datetime) -> Finding:
    """The finding on keys. In open mode keys do not matter; in keys mode one must
    be able to create others.
    """
    if settings.auth.mode == "open":
        who = "everybody on this machine may do everything"
        return Finding("auth", "ok", f"open: no key is asked for, {who}")
    valid = [key for key in keys if key.is_valid(now)]
    admins = [key for key in valid if "admin" in key.scopes]
    what = f"keys: {len(valid)} valid, {len(admins)} of them with the scope admin"
    if not valid:
        return Finding("auth", "warn", f"{what}; every call is refused", _FIRST_KEY)
    if not admins:
        return Finding("auth", "warn", what, f"Administration is offline only. {_FIRST_KEY}")
    return Finding("auth", "ok", what)


async def _caps_finding(
    organizations: Sequence[Organization], ledger: LedgerStore, now: datetime
) -> list[Finding]:
    """A finding for each cap that is reached, else one for all."""
    capped = [each for each in organizations if each.spend_cap_pico is not None]
    reached = []
    for each in capped:
        cap = each.spend_cap_pico or 0
        spent = await ledger.spent_pico(each.id, month_of(now))
        if spent >= cap:
            what = f"{each.name} ({each.id}) has spent ${dollars_text(spent)} of"
            what += f" ${dollars_text(cap)} this month: its batches wait"
            remedy = f"`lowtide orgs set {each.id} --spend-cap ...` lets them go on."
            reached.append(Finding("spend cap", "warn", what, remedy))
    if capped and not reached:
        return [Finding("spend cap", "ok", f"{len(capped)} set, none is reached")]
    return reached


def check_prices(settings: Settings) -> list[Finding]:
    """The finding on prices: all that is served has one, or nothing has."""
    resolved = resolve(settings, settings.replica)
    known, served = catalogue_from(settings, resolved), resolved.models
    priced = [model for model in known.entries if known.prices[model].live != FREE.live]
    free = sorted(served.difference(priced))
    if not served:
        return []
    if len(free) == len(served):
        return [Finding("prices", "ok", "no served model has one: batches cost nothing")]
    if free:
        what = f"{listed(free, limits.MODELS_NAMED_IN_ERROR)} without one: used for nothing"
        remedy = "Give input_price and output_price in a [[model]] of that id."
        return [Finding("prices", "warn", what, remedy)]
    return [Finding("prices", "ok", f"each of {len(served)} served models has one")]
