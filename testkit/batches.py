"""A batch for tests of what is worked out from its record alone."""

from datetime import datetime, timedelta
from typing import Any

from lowtide.core.batches.batch import Batch


def a_batch(created_at: datetime, *, window_s: int = 86400, **fields: Any) -> Batch:
    """A batch of that instant, due at the end of its window; `fields` of Batch go before."""
    made: dict[str, Any] = {
        "id": "batch_1",
        "project_id": "p",
        "user_id": "u",
        "dialect": "openai",
        "input_file_id": "file-1",
        "input_bytes": 1,
        "endpoint": "/v1/chat/completions",
        "completion_window_s": window_s,
        "created_at": created_at,
        "expires_at": created_at + timedelta(seconds=window_s),
    }
    return Batch(**made | fields)
