"""What a file would use at most and cost, from its plan and the catalogue's exact prices.

Input tokens are the plan's estimate, as the server counts them against its limits. Output tokens
are bounded by what each line asks for; a line that names no bound makes the bound of its model
unknown, and the price then covers what is known.
"""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from lowtide.cli.batches.input_file import Inspection
from lowtide.config import Settings
from lowtide.core.accounts import estimate as core
from lowtide.core.accounts.catalogue import Catalogue, ModelEntry
from lowtide.core.accounts.money import UnitPrices
from lowtide.core.batches.plan import ModelTotals, Plan, unpack_entries
from lowtide.core.validation.validator import ValidationFailure


class OfflineModelEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens and pico-dollars for one model. `has_price`: whether the settings name one."""

    requests: int
    input_tokens: int
    output_tokens_max: int
    is_bounded: bool
    has_price: bool
    live_pico: int
    batch_pico: int


class OfflineEstimate(msgspec.Struct, frozen=True):
    models: Mapping[str, OfflineModelEstimate]

    @property
    def live_pico(self) -> int:
        return sum(model.live_pico for model in self.models.values())

    @property
    def batch_pico(self) -> int:
        return sum(model.batch_pico for model in self.models.values())

    @property
    def has_price(self) -> bool:
        return any(model.has_price for model in self.models.values())

    @property
    def is_bounded(self) -> bool:
        """Whether the price is the most that it can be, as far as prices are known."""
        return all(model.is_bounded for model in self.models.values() if model.has_price)


class _Body(msgspec.Struct):
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    n: int | None = None


class _Line(msgspec.Struct):
    body: _Body


_decode = msgspec.json.Decoder(_Line).decode


def estimate(
    path: Path, endpoint: str, inspection: Inspection, settings: Settings
) -> OfflineEstimate:
    """Read the bounds that the lines name. Empty for a file that would fail."""
    if isinstance(inspection.result, ValidationFailure):
        return OfflineEstimate({})
    plan = inspection.result
    puts_out_tokens = endpoint != "/v1/embeddings"
    nothing = dict.fromkeys(plan.models, (0, True))
    bounds = _output_bounds(path, plan) if puts_out_tokens else nothing
    catalogue = Catalogue(ModelEntry(**msgspec.structs.asdict(model)) for model in settings.model)
    prices = {
        name: catalogue.prices[entry.id]
        for name in plan.models
        if (entry := catalogue.get(name)) is not None
    }
    shares = {
        name: ModelTotals(share.requests, share.input_tokens, bounds[name][0])
        for name, share in plan.models.items()
    }
    return OfflineEstimate(
        {
            priced.model: OfflineModelEstimate(
                requests=priced.requests,
                input_tokens=priced.input_tokens,
                output_tokens_max=priced.output_tokens_max,
                is_bounded=bounds[priced.model][1],
                has_price=priced.model in prices and prices[priced.model].live != UnitPrices(),
                live_pico=priced.live_pico,
                batch_pico=priced.batch_pico,
            )
            for priced in core.estimate(shares, prices).models
        }
    )


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
