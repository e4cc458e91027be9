"""Domain errors: what a verb may refuse, with the words a client sees.

A verb raises `LowtideError` with one of the codes below; `api/http/errors.py` holds the one table
from code to HTTP status, the CLI prints message and code. Nothing here knows HTTP.
"""

from typing import Literal

ErrorCode = Literal[
    "invalid_request",  # a parameter has a wrong value
    "missing_required_parameter",
    "invalid_value",  # none of the values that there are; the message lists them
    "unknown_parameter",  # a field that the call does not take, where a mistyped one would harm
    "object_above_max_properties",  # these three are OpenAI's, of metadata
    "property_name_above_max_length",
    "string_above_max_length",
    "invalid_purpose",
    "file_not_found",
    "file_expired",  # past its expires_at, whether its bytes are swept by now or not
    "file_lost",  # its bytes are gone: an operator's loss, not the caller's
    "file_not_ready",  # metadata known, bytes not (yet) uploaded
    "batch_not_found",
    "batch_not_ended",  # what is asked for needs a batch that has ended
    "batch_ended",  # what is asked for needs a batch that has not
    "batch_failed",  # in validation: it has no line to run again, and no results
    "retry_unfinished",  # another retry of the same tree runs; the message names it
    "nothing_to_retry",
    "results_gone",  # of a batch: deleted, expired or lost
    "input_gone",  # of a batch: deleted or expired, so that nothing can run again
    "model_not_found",
    "file_too_large",
    "request_too_large",  # a control request or an upload form, not the file in it
    "upload_invalid",  # signature wrong, or the address was used already
    "upload_expired",
    "upload_interrupted",
    "upload_busy",  # its bytes are under way in another request
    "upload_not_found",  # an upload in parts
    "upload_closed",  # completed or cancelled, or just being completed
    "upload_completing",  # and it takes longer than a caller may wait
    "offset_expired",  # a partial read goes on after its segments were swept
    "range_not_satisfiable",
    "missing_api_key",
    "invalid_api_key",  # unknown, revoked, expired or mistyped: a client is not told which
    "insufficient_scope",
    "host_not_allowed",  # open mode, called by a name that is not this machine's
    "origin_not_allowed",  # open mode, called by another origin's page
    "organization_not_found",
    "project_not_found",
    "key_not_found",
    "rate_limit_exceeded",
    "storage_limit_exceeded",  # the organization's share, as opposed to storage_full
    "spend_cap_exceeded",
    "window_infeasible",  # refused only where the settings say so
    "resource_unavailable",  # no batch capacity for a single call within the time that it may wait
    "response_not_found",
    "model_unavailable",  # known, and no replica that serves it takes calls now
    "engine_error",  # the engine broke off, or answered what no client can use
    "engine_timeout",
    "idempotency_key_reused",  # with another request
    "webhook_not_found",
    "delivery_not_found",  # no event of that id was for that webhook, or it is forgotten by now
    "webhook_unreachable",  # a test that got no answer
    "not_found",
    "method_not_allowed",
    "storage_full",
    "storage_unavailable",
    "server_stopping",
    "server_busy",  # too much is under way; not the caller's doing
    "request_timeout",  # its bytes came too slowly
    "internal_error",
]


class LowtideError(Exception):
    """A refusal with code, message (what to do about it) and the parameter at fault.

    `retry_after_s`: whole seconds after which the same request may succeed; None where waiting
    alone does not help.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        param: str | None = None,
        *,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code: ErrorCode = code
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s


def missing_parameter(param: str) -> LowtideError:
    """The refusal of a body without that field."""
    return LowtideError(
        "missing_required_parameter", f"Missing required parameter: '{param}'.", param
    )


def out_of_range(param: str, low: int, high: int, of: str | None = None) -> LowtideError:
    """The refusal of a number beyond its bounds. `of`: what it is called, where not by `param`."""
    return LowtideError("invalid_request", f"{of or param} must be from {low} to {high}.", param)


def file_lost(file_id: str, param: str) -> LowtideError:
    """The refusal of a file whose bytes are gone."""
    return LowtideError(
        "file_lost",
        f"The content of {file_id} was lost. If you still have it, upload it again; if it is the"
        " result of a batch, run the batch again.",
        param,
    )
