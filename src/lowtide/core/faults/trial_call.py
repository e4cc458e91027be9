"""The smallest call that shows whether a scope works: one token, of the scope's model and endpoint.

Sent by loops/dispatch/dispatch.py where nothing else can tell whose fault a failure is
(core/faults/scope.py). Nothing in it comes from a submitter, and its answer is
discarded and not billed.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

_MESSAGE: Final = "Hi"
_BODIES: Final[Mapping[str, Mapping[str, Any]]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": _MESSAGE}], "max_tokens": 1},
    "/v1/completions": {"prompt": _MESSAGE, "max_tokens": 1},
    "/v1/embeddings": {"input": _MESSAGE},
    "/v1/responses": {"input": _MESSAGE, "max_output_tokens": 16},  # the least that OpenAI takes
}


def trial_body(endpoint: str, engine_model: str) -> bytes:
    """The JSON body for that endpoint (`/v1/...`) and the engine's name of the model."""
    fields = _BODIES.get(endpoint, _BODIES["/v1/chat/completions"])
    return msgspec.json.encode({"model": engine_model, **fields})
