"""How a command ends: its exit codes, and the one place that turns any failure into words.

`app.main` calls `explain` for whatever a command raised. Invariant: a person sees one sentence that
says what is wrong and, where there is one, a second that says what to do; never a traceback.
"""

import errno
import json
import os
from typing import Final

DONE: Final = 0
SOME_LINES_FAILED: Final = 1
USAGE: Final = 2
BATCH_FAILED: Final = 3
INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it
BROKEN_PIPE: Final = 141  # 128 + SIGPIPE
TERMINATED: Final = 143  # 128 + SIGTERM

DISK_FULL_HINT: Final = "Make room and run the same command again; what was done is kept."


class CommandError(Exception):
    """What a command could not do. `hint` says what would help; `code` is stable, for scripts."""

    def __init__(
        self, message: str, hint: str | None = None, *, code: str = "usage", exit_code: int = USAGE
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code
        self.exit_code = exit_code


class Terminated(BaseException):
    """SIGTERM came: unwind like Ctrl-C, and say so by the exit code."""


def explain(error: BaseException) -> CommandError:
    """The words for whatever a command raised. An unforeseen exception is
    reported as a bug of Lowtide.
    """
    # Here, so that a command that ends well need not load all that could have failed.
    import httpx

    from lowtide.config.sources import ConfigError
    from lowtide.core.errors import LowtideError
    from lowtide.data_dir import DataDirError
    from lowtide.engines.embedded.engine import EngineStartError
    from lowtide.engines.models.source import ModelSourceError
    from lowtide.ports.blobs import BlobError, BlobsFull
    from lowtide.ports.store import StoreError, StoreFull

    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    match error:
        case CommandError():
            return error
        case LowtideError():
            place = f" ({error.param})" if error.param else ""
            return CommandError(error.message + place, code=error.code)
        case ConfigError():
            hint = "`lowtide doctor` checks a configuration."
            return CommandError(str(error), hint, code="bad_config")
        case EngineStartError():
            return CommandError(error.message, f"Its log is {error.log_path}.", code=error.code)
        case ModelSourceError():
            return CommandError(error.message, code=error.code)
        case DataDirError():
            return CommandError(str(error), code="data_dir")
        case StoreFull() | BlobsFull():
            return CommandError(str(error), DISK_FULL_HINT, code="storage_full")
        case StoreError() | BlobError():
            return CommandError(str(error), code="storage_unavailable")
        case httpx.HTTPError() | httpx.InvalidURL():
            return CommandError(f"The server could not be asked: {error}", code="no_server")
        case OSError():
            return _explain_os_error(error)
    return CommandError(
        f"Lowtide stopped on an error that it does not know: {type(error).__name__}: {error}",
        "That is a bug; LOWTIDE_DEBUG=1 shows where it happened.",
        code="internal_error",
    )


def _explain_os_error(error: OSError) -> CommandError:
    place = f"{error.filename}: " if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CommandError(f"{place}no space left on this disk.", DISK_FULL_HINT, code="disk_full")
    reason = error.strerror or str(error) or type(error).__name__
    return CommandError(f"{place}{reason}.", code="os_error")


def as_json(failure: CommandError) -> str:
    """The failure as the one object that `--json` promises on standard output."""
    error = {"code": failure.code, "message": failure.message, "hint": failure.hint}
    return json.dumps({"error": error})


def debugging() -> bool:
    """Whether the user asked for tracebacks."""
    return os.environ.get("LOWTIDE_DEBUG", "") not in ("", "0")
