"""The answer to a dry run: an object of Lowtide's own, the same for every client."""

from lowtide.api.dialects import money, openai
from lowtide.api.objects.batches import (
    EstimateObject,
    ExceededObject,
    ModelEstimateObject,
    TotalsObject,
)
from lowtide.api.objects.instants import object_of
from lowtide.core.accounts.money import dollars_text
from lowtide.core.scheduling.feasibility import Feasibility
from lowtide.service.batches.estimates import DryRun, Exceeded
from lowtide.service.batches.new_batch import CheckedBatchRequest


def estimate_object(
    run: DryRun, draft: CheckedBatchRequest, verdict: Feasibility
) -> EstimateObject:
    """Tokens in are estimates, tokens out the bounds that the lines name; `amount` is the batch's
    price, `live_amount` that of the same tokens live.
    """
    estimate = run.estimate
    return EstimateObject(
        input_file_id=draft.file.id,
        endpoint=draft.endpoint,
        requests=estimate.requests,
        models=tuple(
            object_of(
                ModelEstimateObject,
                model,
                **money.amount_fields(model.batch_pico, model.live_pico),
            )
            for model in estimate.models
        ),
        totals=object_of(
            TotalsObject,
            estimate,
            **money.amount_fields(estimate.batch_pico, estimate.live_pico),
        ),
        errors=openai.errors(run.errors),
        errors_total=run.errors_total,
        warnings=openai.errors(run.warnings),
        feasibility=openai.feasibility(verdict),
        would_exceed=tuple(_exceeded(limit) for limit in run.exceeded),
    )


def _exceeded(limit: Exceeded) -> ExceededObject:
    """Money as decimal strings in dollars, everything else as whole numbers."""
    is_money = limit.limit == "spend_cap"

    def shown(value: int | None) -> int | str | None:
        return dollars_text(value) if is_money and value is not None else value

    return object_of(
        ExceededObject,
        limit,
        allowed=shown(limit.allowed),
        used=shown(limit.used),
        asked=shown(limit.asked),
    )
