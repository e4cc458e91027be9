"""The server's objects as the commands read them: only the fields that are shown or decided on.

Shapes are those of the OpenAI dialect (protocol.md section 3) and our additions to it; whatever
else an object holds is kept in the raw answer, which `--json` prints unchanged.
"""

from typing import Any, Final, TypeVar

import msgspec

from lowtide.cli.exits import CommandError

JsonObject = dict[str, Any]
_View = TypeVar("_View", bound=msgspec.Struct)

TERMINAL: Final = frozenset({"completed", "failed", "expired", "cancelled"})
"""States after which nothing changes any more; the dialect's words, not the core's."""


class CountsView(msgspec.Struct, frozen=True):
    total: int = 0
    completed: int = 0
    failed: int = 0

    @property
    def settled(self) -> int:
        return self.completed + self.failed


class UsageView(msgspec.Struct, frozen=True):
    input_tokens: int = 0
    output_tokens: int = 0


class BatchErrorView(msgspec.Struct, frozen=True):
    code: str | None = None
    message: str = ""
    line: int | None = None
    param: str | None = None


class BatchErrorsView(msgspec.Struct, frozen=True):
    data: tuple[BatchErrorView, ...] = ()


class BatchView(msgspec.Struct, frozen=True):
    """A batch. Instants are Unix seconds."""

    id: str
    status: str
    endpoint: str = ""
    input_file_id: str = ""
    created_at: int | None = None
    expires_at: int | None = None
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelled_at: int | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    request_counts: CountsView | None = None
    usage: UsageView | None = None
    errors: BatchErrorsView | None = None
    metadata: dict[str, str] | None = None
    reason: str | None = None
    stage: str | None = None
    eta_seconds: int | None = None
    errors_total: int | None = None
    model: str | None = None

    @property
    def is_over(self) -> bool:
        return self.status in TERMINAL

    @property
    def counts(self) -> CountsView:
        return self.request_counts or CountsView()

    @property
    def ended_at(self) -> int | None:
        return self.completed_at or self.failed_at or self.expired_at or self.cancelled_at


class FileView(msgspec.Struct, frozen=True):
    id: str
    filename: str = ""
    bytes: int = 0
    purpose: str = ""
    created_at: int | None = None
    expires_at: int | None = None
    status: str | None = None


def read_view(answer: Any, view: type[_View]) -> _View:
    """The fields we know. Raises CommandError when the answer is no such object."""
    try:
        return msgspec.convert(answer, view, strict=False)
    except msgspec.ValidationError as error:
        raise CommandError(
            f"The server's answer is not what a Lowtide server sends: {error}",
            "Check --server.",
            code="not_lowtide",
        ) from None
