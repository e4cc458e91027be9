"""What a plan would cost."""

from decimal import Decimal

from lowtide.core.accounts.estimate import Estimate, estimate
from lowtide.core.accounts.money import PICO_PER_DOLLAR, model_prices
from lowtide.core.batches.plan import ModelTotals

PRICES = {"a": model_prices(Decimal(1), None, Decimal(3), Decimal("0.5"))}


def test_input_and_bounded_output_are_priced_live_and_as_a_batch() -> None:
    priced = estimate({"a": ModelTotals(2, 1_000_000, 2_000_000)}, PRICES)
    (model,) = priced.models
    assert model.live_pico == 7 * PICO_PER_DOLLAR
    assert model.batch_pico == 7 * PICO_PER_DOLLAR // 2
    assert (model.requests, model.input_tokens, model.output_tokens_max) == (2, 10**6, 2 * 10**6)


def test_the_sums_are_over_all_models_and_a_model_without_prices_is_free() -> None:
    priced = estimate({"a": ModelTotals(1, 10, 20), "b": ModelTotals(3, 5, 6)}, PRICES)
    assert [model.model for model in priced.models] == ["a", "b"]
    assert priced.models[1].live_pico == priced.models[1].batch_pico == 0
    assert (priced.requests, priced.input_tokens, priced.output_tokens_max) == (4, 15, 26)
    assert priced.live_pico == 2 * priced.batch_pico == 70_000_000
    assert Estimate().requests == Estimate().batch_pico == 0
