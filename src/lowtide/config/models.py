"""`[[model]]` and the catalogue file: what is known of models, and what their settings must be."""

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import cached_property
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final, Literal

import msgspec

from lowtide.config.problems import Problem, unless
from lowtide.config.sections import Section
from lowtide.core.accounts.catalogue import ModelEntry
from lowtide.core.accounts.money import PriceError
from lowtide.core.scheduling.operating_hours import Span, span_of

SHIPPED_CATALOGUES: Final = files("lowtide") / "catalogues"
"""A catalogue file given by a bare name is one of these."""


class ModelSettings(Section, frozen=True):
    """An entry of the catalogue. Prices are US dollars per million tokens, live, and exact."""

    id: str
    aliases: tuple[str, ...] = ()
    engine_name: str | None = None
    """What the engine calls it; None: the id."""
    type: Literal["chat", "language", "embedding", "code"] = "chat"
    size: str | None = None
    context_length: int | None = None
    input_price: Decimal = Decimal(0)
    cached_input_price: Decimal | None = None
    """The price of input tokens that the engine had cached; None: the input price."""
    output_price: Decimal = Decimal(0)
    batch_discount: Decimal = Decimal("0.5")
    """The share that a batch does not pay."""
    hours: str | None = None
    """When its batch work starts; None: the hours of [dispatch]."""

    @cached_property
    def entry(self) -> ModelEntry:
        """The entry of the catalogue that these settings describe."""
        fields = msgspec.structs.asdict(self)
        del fields["hours"]
        return ModelEntry(**fields)

    @cached_property
    def span(self) -> Span | None:
        """The span of its hours; None without any. Raises ValueError for
        words that stand for no hours.
        """
        return None if self.hours is None else span_of(self.hours)


def catalogue_place(name: str) -> Traversable | Path:
    """The path of the shipped catalogue of that name, else the file of that path."""
    place: Traversable | Path = SHIPPED_CATALOGUES / f"{name}.toml"
    if re.fullmatch(r"[\w-]+", name) and place.is_file():
        return place
    try:
        return Path(name).expanduser()
    except RuntimeError:  # this user has no home folder: said as "no such file"
        return Path(name)


def problems_of(models: Sequence[ModelSettings]) -> Iterator[Problem]:
    """What makes no sense in the list. Entries are told by their ids."""
    seen: set[str] = set()
    for place, model in enumerate(models):
        for name in (model.id, *model.aliases):
            if name in seen:
                words = f"{model.id}: {name!r} is twice; each name may be used once"
                yield Problem(("model", place), words)
            seen.add(name)
        yield from _prices(model, place)


def _prices(model: ModelSettings, place: int) -> Iterator[Problem]:
    discount = model.batch_discount
    problems = list(
        unless(
            discount.is_finite() and 0 <= discount <= 1,
            ("model", place, "batch_discount"),
            "a share from 0 to 1",
        )
    )
    prices = {
        "input_price": model.input_price,
        "cached_input_price": model.cached_input_price or Decimal(0),
        "output_price": model.output_price,
    }
    for key, price in prices.items():
        problems += unless(price.is_finite(), ("model", place, key), "a number")
    yield from problems
    if problems:
        return
    try:
        _ = model.entry.prices
    except PriceError as error:
        yield Problem(("model", place), str(error))
