"""Makes the plan of an input file from its bytes: the one place that says what files must satisfy.

Validation, dry runs, flex calls, forecasts, repairs and the offline commands ask it, so that
all of them judge a file alike and give it the same price. Pure: who reads a file feeds the
validator that `begin` gives. Invariant: the settings, models and token models of the moment
hold, not those of start-up.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

from lowtide import limits
from lowtide.core.accounts.catalogue import Catalogue
from lowtide.core.accounts.estimate import Estimate, estimate
from lowtide.core.batches.line import Dialect
from lowtide.core.batches.line_sets import Lines
from lowtide.core.batches.plan import Plan
from lowtide.core.bodies.media_urls import MediaRule
from lowtide.core.tokens.token_model import TokenModel
from lowtide.core.validation.rules import ValidationRules
from lowtide.core.validation.validator import ValidationFailure, Validator

_NO_BOUND = 2**53


class LineSettings(Protocol):
    """What the settings say of lines."""

    @property
    def line_bytes(self) -> int: ...

    @property
    def media_rule(self) -> MediaRule | None: ...


class Planner:
    """`catalogue` and `token_models` may change between calls, and `settings` is asked at each."""

    def __init__(
        self,
        catalogue: Catalogue,
        settings: Callable[[], LineSettings],
        token_models: Mapping[str, TokenModel] = MappingProxyType({}),
    ) -> None:
        """`token_models` are by canonical model id; one that is not there counts as never seen."""
        self._catalogue = catalogue
        self._settings = settings
        self._token_models = token_models

    def begin(
        self,
        endpoint: str,
        dialect: Dialect,
        requests_max: int = limits.REQUESTS_PER_BATCH,
        *,
        takes_any_model: bool = False,
        model_override: str | None = None,
        wanted: Lines | None = None,
    ) -> Validator:
        """A validator for a new file. Raises KeyError for an endpoint that is not one of ENDPOINTS.

        `takes_any_model`: accept models under the names that lines give them, because this process
        does not know what will be served. `model_override`: one model for all lines. `wanted`: the
        lines to plan, ascending; None: all.
        """
        settings = self._settings()
        rules = ValidationRules(
            endpoint=endpoint,
            dialect=dialect,
            models=None if takes_any_model else self._catalogue.accepted,
            requests_max=requests_max,
            line_bytes_max=settings.line_bytes,
            contexts=self._catalogue.contexts,
            media=settings.media_rule,
            model_override=model_override,
            wanted=wanted,
        )
        return Validator(rules, self._token_models)

    def begin_repair(
        self,
        endpoint: str,
        dialect: Dialect,
        models: Mapping[str, str],
        *,
        model_override: str | None = None,
        wanted: Lines | None = None,
    ) -> Validator:
        """A validator for a file that passed before, perhaps by other rules. `models` were accepted
        then, and are accepted whatever is known today. The others are as with `begin`.
        """
        rules = ValidationRules(
            endpoint=endpoint,
            dialect=dialect,
            models={**self._catalogue.names, **models},
            requests_max=_NO_BOUND,
            line_bytes_max=self._settings().line_bytes,
            checks_fields=False,
            model_override=model_override,
            wanted=wanted,
        )
        return Validator(rules)

    def plan(self, content: bytes, endpoint: str, dialect: Dialect) -> Plan | ValidationFailure:
        """The plan of a file that is in memory, or why it fails."""
        validator = self.begin(endpoint, dialect)
        validator.feed(content)
        return validator.finish()

    def price(self, plan: Plan) -> Estimate:
        """What the plan comes to at most, as far as its lines say."""
        known = {model: self._catalogue.names.get(model, model) for model in plan.models}
        prices = self._catalogue.prices
        return estimate(
            plan.models, {model: prices[name] for model, name in known.items() if name in prices}
        )
