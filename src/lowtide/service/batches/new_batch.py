"""What a create request asks for, and the refusal of what can be known to be wrong with it.

Called by service/batches/batches.py; the API's routes decode into `NewBatch`. Invariant: every
refusal names the parameter at fault. What is in the lines is found by validation, and fails the
batch, not the call (protocol.md section 8).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from lowtide import limits
from lowtide.core.accounts.catalogue import Catalogue
from lowtide.core.batches.completion_window import window_s
from lowtide.core.batches.line import ENDPOINTS
from lowtide.core.errors import LowtideError, file_lost, missing_parameter, out_of_range
from lowtide.core.files.file import PURPOSES, File
from lowtide.core.webhooks.endpoint import BatchWebhook


class OutputExpiry(msgspec.Struct, frozen=True):
    """How long result files are kept (protocol.md section 3.3)."""

    anchor: str
    seconds: int


class NewBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A create request as sent; fields of other vendors are passed over. None: not given."""

    input_file_id: str | None = None
    endpoint: str | None = None
    completion_window: str | None = None
    metadata: Mapping[str, str] | None = None
    output_expires_after: OutputExpiry | None = None
    priority: int | None = None
    model: str | None = None
    model_id: str | None = None
    webhook: str | None = None
    """The id of a webhook, or an address of its own, that hears of this batch's end."""
    idempotency_key: str | None = None
    dry_run: bool | None = None
    delete_input: bool | None = None

    @property
    def model_override(self) -> str | None:
        """The model that all lines shall run on; `model_id` is Together's name for it."""
        return self.model if self.model is not None else self.model_id


class CheckedBatchRequest(msgspec.Struct, frozen=True):
    """A create request whose values make sense."""

    file: File
    endpoint: str
    window_s: int
    webhook: BatchWebhook | None = None


def check_window(asked: NewBatch, default_s: int) -> int:
    """The completion window in seconds. Raises LowtideError for values that make no sense."""
    if not asked.input_file_id:
        raise missing_parameter("input_file_id")
    check_metadata(asked.metadata or {})
    _check_output_expiry(asked.output_expires_after)
    check_priority(asked.priority)
    return checked_window_s(asked.completion_window, default_s)


def check_model(model: str | None, catalogue: Catalogue, param: str = "model") -> None:
    """Raises LowtideError for a model that no line may name."""
    if model is not None and model not in catalogue.accepted:
        raise LowtideError(
            "model_not_found",
            f"The model '{model[: limits.VALUE_CHARS_QUOTED]}' is not available."
            " GET /v1/models lists those that are.",
            param,
        )


def check_priority(priority: int | None) -> None:
    """Raises LowtideError for one out of bounds."""
    if priority is not None and abs(priority) > limits.PRIORITY_MAX:
        raise out_of_range("priority", -limits.PRIORITY_MAX, limits.PRIORITY_MAX)


def checked_window_s(words: str | None, default_s: int) -> int:
    """A completion window in seconds; the default where none is given. Raises LowtideError."""
    if words is None:
        return default_s
    try:
        return window_s(words)
    except ValueError as error:
        message = f"completion_window = {error}"
        raise LowtideError("invalid_request", message, "completion_window") from None


def invalid_value(value: str, supported: Sequence[str], param: str) -> LowtideError:
    """The refusal of a value that is none of those that there are, in OpenAI's words."""
    quoted = [f"'{each}'" for each in supported]
    *most, last = quoted
    listed = f"{', '.join(most)}, and {last}" if len(most) > 1 else " and ".join(quoted)
    return LowtideError(
        "invalid_value",
        f"Invalid value: '{value[: limits.VALUE_CHARS_QUOTED]}'. Supported values are: {listed}.",
        param,
    )


def check_input(file: File, now: datetime) -> None:
    """Checks that a batch can read the file. Raises LowtideError."""
    if file.expires_at is not None and file.expires_at <= now:
        raise LowtideError(
            "file_expired",
            f"File '{file.id}' expired at {file.expires_at:%Y-%m-%dT%H:%M:%SZ}. Upload it again;"
            " expires_after says how long a file is kept.",
            "input_file_id",
        )
    if file.purpose not in PURPOSES:
        raise LowtideError(
            "invalid_purpose",
            f"File '{file.id}' has the purpose '{file.purpose}'; the input of a batch needs"
            " 'batch' or 'batch-api'.",
            "input_file_id",
        )
    if file.status == "lost":
        raise file_lost(file.id, "input_file_id")
    if file.status != "uploaded":
        raise LowtideError(
            "file_not_ready",
            f"The content of file '{file.id}' has not been uploaded yet.",
            "input_file_id",
        )


def check_endpoint(endpoint: str | None, file: File) -> str:
    """The requested endpoint. Raises LowtideError for an unknown one, and where OpenAI's clients
    give none; Together's launch example leaves it out and means chat.
    """
    if not endpoint:
        if file.dialect == "together":
            return "/v1/chat/completions"
        raise missing_parameter("endpoint")
    if endpoint not in ENDPOINTS:
        raise invalid_value(endpoint, sorted(ENDPOINTS), "endpoint")
    return endpoint


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Raises LowtideError where there are too many pairs, or one is too long."""
    pairs, key_chars, value_chars = (
        limits.METADATA_PAIRS_MAX,
        limits.METADATA_KEY_CHARS_MAX,
        limits.METADATA_VALUE_CHARS_MAX,
    )
    if len(metadata) > pairs:
        raise LowtideError(
            "object_above_max_properties",
            f"Invalid 'metadata': too many properties. Expected an object with at most {pairs}"
            f" properties, but got an object with {len(metadata)} properties instead.",
            "metadata",
        )
    for key, value in metadata.items():
        if len(key) > key_chars:
            raise LowtideError(
                "property_name_above_max_length",
                f"Invalid 'metadata': a key is too long. Expected keys with maximum length"
                f" {key_chars}, but got '{key[:key_chars]}...' with length {len(key)} instead.",
                "metadata",
            )
        if len(value) > value_chars:
            raise LowtideError(
                "string_above_max_length",
                f"Invalid 'metadata.{key}': string too long. Expected a string with maximum length"
                f" {value_chars}, but got a string with length {len(value)} instead.",
                f"metadata.{key}",
            )


def _check_output_expiry(expiry: OutputExpiry | None) -> None:
    if expiry is None:
        return
    if expiry.anchor != "created_at":
        raise LowtideError(
            "invalid_request",
            "output_expires_after.anchor must be 'created_at'.",
            "output_expires_after",
        )
    low, high = limits.OUTPUT_EXPIRES_AFTER_S_MIN, limits.FILE_TTL_S
    if not low <= expiry.seconds <= high:
        raise out_of_range("output_expires_after", low, high, "output_expires_after.seconds")
