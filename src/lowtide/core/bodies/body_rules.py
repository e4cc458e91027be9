"""What a replica's engine receives of a request's body: which fields are kept from it, which are
set.

Batch calls and live calls go by the same rules, so that no caller reaches in a live call what a
batch line cannot, or the reverse. Pure. Invariants: a field of `RESERVED_FIELDS` is set by Lowtide,
or by a caller whom an operator allowed it, and never by a caller alone; two organizations have no
entry of an engine's prompt cache in common where `isolates_cache` holds.
"""

from collections.abc import Mapping
from functools import partial
from hashlib import sha256
from types import MappingProxyType
from typing import Final

import msgspec

from lowtide.core.batches.line import engine_body

RESERVED_FIELDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "priority": "places in the engine's queue (vLLM, SGLang): Lowtide sets it for batch calls",
        "request_id": "ids of calls, which must not meet (vLLM)",
        "rid": "the same in SGLang, whose calls can be aborted by it",
        "kv_transfer_params": "makes the engine fetch prompts' memory from another one (vLLM)",
        "ec_transfer_params": "the same for encoders (vLLM)",
        "bootstrap_host": "the same in SGLang",
        "bootstrap_port": "the same in SGLang",
        "bootstrap_room": "the same in SGLang",
        "data_parallel_rank": "which part of the engine works, past its own balance (SGLang)",
        "routed_dp_rank": "the same in newer SGLang",
        "disagg_prefill_dp_rank": "the same for the engine that reads the prompt (SGLang)",
        "custom_logit_processor": "code that the engine runs, if started for that (SGLang)",
        "session_params": "conversations that the engine keeps (SGLang)",
        "id_slot": "which place of the engine works, and so whose cache is used (llama.cpp)",
    }
)
"""Fields that act on the engine and on other callers rather than on this answer, with the reason.
Sources: the request types of vLLM, SGLang and llama.cpp's server."""

_RESPONSES: Final = "/v1/responses"
_SALTED: Final = frozenset({"/v1/chat/completions", "/v1/completions", _RESPONSES})
NO_FIELDS: Final[Mapping[str, object]] = MappingProxyType({})
_NOT_STORED: Final[Mapping[str, object]] = MappingProxyType({"store": False})
"""The reason: any caller who has its id may continue what an engine stores; no
tenant owns it there.
"""


NOT_CONTINUED: Final = (
    "Responses are not stored at the engines, where no tenant would own them, so none can be"
    " continued by its id: send the whole conversation in 'input'."
)


class BodyRules(msgspec.Struct, frozen=True):
    """The rules of one replica. `isolates_cache` None: where its engine is known to take a salt."""

    drop_fields: frozenset[str] = frozenset(RESERVED_FIELDS)
    set_fields: Mapping[str, object] = NO_FIELDS
    isolates_cache: bool | None = False

    def body(
        self,
        body: bytes,
        endpoint: str,
        model: str | None,
        organization_id: str,
        *,
        takes_salt: bool = False,
        set_fields: Mapping[str, object] = NO_FIELDS,
        without: frozenset[str] = frozenset(),
    ) -> bytes:
        """The body to send for `body`, of a call of that organization; `model` as the engine names
        it.

        `set_fields` and `without` are those of this one call. Raises LineFormatError when the body
        is no JSON object.
        """
        drop_fields = self.drop_fields | without if without else self.drop_fields
        fields = {**self.set_fields, **set_fields} if self.set_fields else set_fields
        stores = "store" not in drop_fields
        if endpoint == _RESPONSES and stores:  # an engine stores these unless it is told not to
            fields = {**fields, **_NOT_STORED}
        salts = takes_salt if self.isolates_cache is None else self.isolates_cache
        return engine_body(
            body,
            model=model,
            drop_fields=drop_fields,
            set_fields=fields,
            replaced=_NOT_STORED if stores else NO_FIELDS,
            salt=partial(cache_salt, organization_id) if salts and endpoint in _SALTED else None,
        )


def rules_of(
    *,
    drop: frozenset[str] = frozenset(),
    allow: frozenset[str] = frozenset(),
    set_fields: Mapping[str, object] = NO_FIELDS,
    isolates_cache: bool | None = False,
) -> BodyRules:
    """The rules that a replica's settings come to: `allow` lets reserved fields through."""
    return BodyRules(frozenset(RESERVED_FIELDS.keys() - allow) | drop, set_fields, isolates_cache)


def cache_salt(organization_id: str, own: bytes) -> str:
    """32 hex digits. An engine shares the memory of a prompt only between calls with one salt.

    `own` is the caller's own salt as JSON, empty for none: an organization may go on to separate
    its users. The salt is no secret: a caller chooses a part of what is hashed and never the
    organization, so it cannot make another's.
    """
    text = b"lowtide cache\0%b\0%b" % (organization_id.encode(), own)
    return sha256(text).hexdigest()[:32]
