"""Routes about what failed: groups of failures, the retry of failed lines, results joined.

The rules are in service/batches/retries.py and joined_results.py. Guards: an answer with results
is a stream that has begun well: what can be known to be missing is refused before it.
"""

from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from lowtide.api.batches.batches import answer_batch, render_list
from lowtide.api.dialects import openai
from lowtide.api.files.downloads import begin_stream, in_download_place
from lowtide.api.http.idempotency_key import PARAMETERS, key_of
from lowtide.api.http.json_body import as_struct, json_response, read_json
from lowtide.api.middleware.auth import set_audit_subject
from lowtide.api.middleware.caller import identify, services_of
from lowtide.api.objects.batches import BatchJob, BatchObject, BatchPage
from lowtide.api.objects.failures import (
    FailureExampleObject,
    FailureGroupList,
    FailureGroupObject,
    RetryCount,
)
from lowtide.api.objects.instants import object_of
from lowtide.api.openapi.answers import (
    BATCH_WRITES,
    TEXT,
    DescribedAnswer,
    answers,
    json_body,
    refusals,
)
from lowtide.api.openapi.routes import Routes, read_query
from lowtide.core.batches.failures import FailureGroup
from lowtide.core.batches.retry import RETRY_ONLY
from lowtide.service.batches.retries import RetryBatch

routes = Routes("batches")

_RETRY: Final[dict[str, Any]] = {
    "only": {"enum": list(RETRY_ONLY), "default": "all_unsuccessful"},
    "codes": {"type": "array", "items": {"type": "string"}},
    "groups": {"type": "array", "items": {"type": "string"}},
    "model": {"type": "string"},
    "completion_window": {"type": "string", "examples": ["24h"]},
    "priority": {"type": "integer"},
    "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
    "idempotency_key": {"type": "string", "minLength": 1, "maxLength": 255},
}


@routes.add(
    "POST",
    "/v1/batches/{batch_id}/retry",
    answers(
        (BatchObject, BatchJob),
        *BATCH_WRITES,
        "batch_not_found",
        "model_not_found",
        "batch_not_ended",
        "batch_failed",
        "retry_unfinished",
        "nothing_to_retry",
        "idempotency_key_reused",
        "input_gone",
        "file_expired",
        "file_lost",
        "spend_cap_exceeded",
    ),
    parameters=PARAMETERS,
    requestBody={**json_body({"type": "object", "properties": _RETRY}), "required": False},
)
async def retry(request: Request, batch_id: str) -> Response:
    """Run the lines without success again, as a new batch over the stored input."""
    caller = identify(request)
    asked = as_struct(await read_json(request), RetryBatch)
    means = (batch_id, msgspec.structs.replace(asked, idempotency_key=None))
    key = key_of(request, "batch", means, asked.idempotency_key)
    batch = await services_of(request).retries.retry(
        caller.project_id, caller.user_id, batch_id, asked, key
    )
    set_audit_subject(request, batch.id)
    return await answer_batch(request, batch)


class CountRetry(msgspec.Struct, frozen=True):
    """The query of a count: which lines without success, as in the body of a retry."""

    only: str = "all_unsuccessful"


@routes.add(
    "GET",
    "/v1/batches/{batch_id}/retry",
    answers(
        RetryCount,
        "invalid_value",
        "batch_not_found",
        "batch_not_ended",
        "batch_failed",
        "retry_unfinished",
        "nothing_to_retry",
        "input_gone",
        "file_expired",
        "file_lost",
    ),
    parameters=CountRetry,
)
async def count_retry(request: Request, batch_id: str) -> Response:
    """How many lines a retry would run now, or why it would be refused. Changes nothing."""
    asked = RetryBatch(only=read_query(request, CountRetry).only)
    project_id = identify(request).project_id
    lines = await services_of(request).retries.count(project_id, batch_id, asked)
    return json_response(RetryCount(batch_id=batch_id, lines=lines))


@routes.add("GET", "/v1/batches/{batch_id}/retries", answers(BatchPage, "batch_not_found"))
async def retries(request: Request, batch_id: str) -> Response:
    """The batches over the same input: the first one and all its retries, as they were made."""
    project_id = identify(request).project_id
    tree = await services_of(request).retries.tree(project_id, batch_id)
    return json_response(openai.batch_page(await render_list(request, tree, "openai"), more=False))


@routes.add("GET", "/v1/batches/{batch_id}/errors", answers(FailureGroupList, "batch_not_found"))
async def errors(request: Request, batch_id: str) -> Response:
    """Why lines failed: groups of alike failures so far, counted, with examples."""
    project_id = identify(request).project_id
    groups = await services_of(request).retries.failures(project_id, batch_id)
    total = sum(group.requests for group in groups)
    return json_response(FailureGroupList(data=tuple(map(_group_object, groups)), total=total))


class ReadResults(msgspec.Struct, frozen=True):
    """The query of results. `with_retries`: of the whole tree of retries."""

    with_retries: bool = False


@routes.add(
    "GET",
    "/v1/batches/{batch_id}/results",
    {
        200: DescribedAnswer(content={"application/jsonl": TEXT}),
        **refusals(
            "invalid_request", "batch_not_found", "batch_not_ended", "batch_failed", "results_gone"
        ),
    },
    parameters=ReadResults,
)
async def results(request: Request, batch_id: str) -> Response:
    """All results in input order, successes and failures in one stream, each request once."""
    return await in_download_place(request, lambda: _results(request, batch_id))


async def _results(request: Request, batch_id: str) -> Response:
    asked, project_id = read_query(request, ReadResults), identify(request).project_id
    results = await services_of(request).joined.open(
        project_id, batch_id, with_retries=asked.with_retries
    )
    headers = {
        "content-type": "application/jsonl",
        "content-disposition": f'attachment; filename="{batch_id}_results.jsonl"',
        "x-incomplete": "true" if results.incomplete else "false",
    }
    return await begin_stream(request, results.body, 200, headers)


def _group_object(group: FailureGroup) -> FailureGroupObject:
    return object_of(
        FailureGroupObject,
        group,
        message=group.shape,
        count=group.requests,
        examples=tuple(object_of(FailureExampleObject, each) for each in group.examples),
    )
