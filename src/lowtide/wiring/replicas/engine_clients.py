"""Makes the client of a `[[replica]]`'s engine: address, key, certificates, proxy and query.

Called for batch work, live calls and metrics, each by connections of its own, and by `doctor`.
Invariant: no message has a secret of the settings in it.
"""

import os
from collections.abc import Mapping

from lowtide.config import ReplicaSettings
from lowtide.config.sources import ConfigError
from lowtide.core.reporting.shown_url import shown_url
from lowtide.core.scheduling.reply_budget import ReplyBudget
from lowtide.engines.http.client import HttpEngine
from lowtide.engines.http.key_file import KeyFile


def engine_client(
    replica: ReplicaSettings,
    connections_max: int,
    *,
    beside_v1: bool = False,
    replies: ReplyBudget | None = None,
    environ: Mapping[str, str] = os.environ,
) -> HttpEngine:
    """`beside_v1`: at the root of the engine, where its metrics are. `replies`: what long
    replies share with those of other clients.

    Reads the key and the certificates. Raises ConfigError, which says what would do.
    """
    verify = replica.verify_tls if replica.ca_file is None else str(replica.ca_file)
    key_file = None if replica.api_key_file is None else KeyFile(replica.api_key_file)
    url = replica.url.rstrip("/")
    try:
        return HttpEngine(
            url.removesuffix("/v1") if beside_v1 else url,
            headers=replica.headers,
            api_key=_api_key(replica, environ),
            key_file=key_file,
            query=replica.query,
            proxy=replica.proxy,
            connections_max=connections_max,
            verify=verify,
            replies=replies,
        )
    except ValueError as error:
        raise ConfigError(f"[[replica]] {shown_url(replica.url)}: {error}") from None


def _api_key(replica: ReplicaSettings, environ: Mapping[str, str]) -> str | None:
    name = replica.api_key_env
    if name is None:
        return replica.api_key
    key = environ.get(name, "").strip()
    if not key:
        raise ValueError(f"api_key_env names the variable {name}, which is not set")
    return key
