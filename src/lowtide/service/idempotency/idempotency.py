"""Idempotency keys as clients send them, and the batch that an earlier request with one made.

The API makes a `RequestKey` of the header `Idempotency-Key` or the field `idempotency_key`. A
service that creates something asks `earlier_batch` first, so that no limit refuses what was
accepted before, and hands the key to the store, which takes it in the transaction of the create.
Guards: a key that stands for another request is refused.
"""

from typing import Any

from lowtide import limits
from lowtide.core.batches.batch import Batch
from lowtide.core.errors import LowtideError
from lowtide.core.idempotency.request_key import KeyTaken, Made, RequestKey, digest_of, is_key
from lowtide.ports.clock import Clock
from lowtide.ports.store import Store


def sent_key(header: str | None, field: str | None = None) -> str | None:
    """The key that a client sent in a header or in the body; None without one. Raises LowtideError
    with the parameter at fault.
    """
    if header and field and header != field:
        raise LowtideError(
            "invalid_request",
            "idempotency_key differs from the header Idempotency-Key: send one of them.",
            "idempotency_key",
        )
    key = header or field or None
    if key is not None and not is_key(key):
        raise LowtideError(
            "invalid_request",
            f"An idempotency key has 1 to {limits.IDEMPOTENCY_KEY_CHARS_MAX} visible ASCII"
            " characters, without spaces.",
            "idempotency_key",
        )
    return key


def request_key(
    organization_id: str, project_id: str, key: str, kind: Made, request: Any
) -> RequestKey:
    """The key with a digest of the request that it stands for."""
    digest = digest_of(project_id, request)
    return RequestKey(organization_id=organization_id, key=key, kind=kind, digest=digest)


async def earlier_batch(
    store: Store, clock: Clock, project_id: str, key: RequestKey | None
) -> Batch | None:
    """The batch that an earlier request with this key made; None without one. Raises LowtideError
    `idempotency_key_reused`.
    """
    if key is None:
        return None
    try:
        batch_id = await store.idempotency.made_by(key, clock.now())
    except KeyTaken:
        raise reused(key) from None
    return None if batch_id is None else await store.batches.get(project_id, batch_id)


def reused(key: RequestKey) -> LowtideError:
    """The refusal of a key that stands for another request."""
    return LowtideError(
        "idempotency_key_reused",
        f"The idempotency key '{key.key[: limits.VALUE_CHARS_QUOTED]}' was used for another request"
        " within the last 24 hours. Send the same request for the same answer, or another key.",
        "idempotency_key",
    )
