"""What a file would use at most and cost, from its plan and the catalogue's prices.

Input tokens are the plan's estimate (four bytes a token), as the server counts them against its
limits. Output tokens are bounded by what each line asks for; a line that names no bound makes the
bound of its model unknown, and the price then covers what is known.
"""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from lowtide.cli.input_file import Inspection
from lowtide.config import Model, Settings
from lowtide.core.plan import Plan, unpack_entries
from lowtide.core.validation import ValidationFailure


class ModelEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens and US dollars for one model. Prices are None where the settings name none."""

    requests: int
    input_tokens: int
    output_tokens_max: int
    is_bounded: bool
    live_price: float | None = None
    batch_price: float | None = None


class Estimate(msgspec.Struct, frozen=True):
    models: Mapping[str, ModelEstimate]


class _Body(msgspec.Struct):
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    n: int | None = None


class _Line(msgspec.Struct):
    body: _Body


_decode = msgspec.json.Decoder(_Line).decode


def estimate(path: Path, endpoint: str, inspection: Inspection, settings: Settings) -> Estimate:
    """Read the bounds that the lines name. Empty for a file that would fail."""
    if isinstance(inspection.result, ValidationFailure):
        return Estimate({})
    plan = inspection.result
    puts_out_tokens = endpoint != "/v1/embeddings"
    nothing = dict.fromkeys(plan.models, (0, True))
    bounds = _output_bounds(path, plan) if puts_out_tokens else nothing
    catalogue = {name: model for model in settings.model for name in (model.id, *model.aliases)}
    models = {}
    for name, share in plan.models.items():
        output_tokens, is_bounded = bounds[name]
        live, batch = _prices(catalogue.get(name), share.input_tokens, output_tokens)
        models[name] = ModelEstimate(
            requests=share.requests,
            input_tokens=share.input_tokens,
            output_tokens_max=output_tokens,
            is_bounded=is_bounded,
            live_price=live,
            batch_price=batch,
        )
    return Estimate(models)


def _output_bounds(path: Path, plan: Plan) -> dict[str, tuple[int, bool]]:
    """By model: the sum of the bounds that its lines name, and whether every line names one."""
    entries = unpack_entries(plan.data)
    bounds: dict[str, tuple[int, bool]] = dict.fromkeys(plan.models, (0, True))
    with path.open("rb") as stream:
        for chunk in plan.chunks:
            total, is_bounded = bounds[chunk.model]
            for entry in entries[chunk.first : chunk.first + chunk.count]:
                stream.seek(entry.offset)
                bound = _bound(stream.read(entry.length))
                total += bound or 0
                is_bounded = is_bounded and bound is not None
            bounds[chunk.model] = (total, is_bounded)
    return bounds


def _bound(raw: bytes) -> int | None:
    """Tokens that one request may put out at most; None when it does not say."""
    try:
        body = _decode(raw).body
    except msgspec.ValidationError:
        return None  # an odd type in a field that is the engine's to judge
    bound = body.max_completion_tokens or body.max_output_tokens or body.max_tokens
    return bound * max(body.n or 1, 1) if bound is not None else None


def _prices(
    model: Model | None, input_tokens: int, output_tokens: int
) -> tuple[float | None, float | None]:
    """Live and as a batch, in dollars; None when the model has no price."""
    if model is None or not (model.input_price or model.output_price):
        return None, None
    live = (input_tokens * model.input_price + output_tokens * model.output_price) / 1_000_000
    return float(live), float(live * (1 - model.batch_discount))
