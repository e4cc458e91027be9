"""The catalogue that settings make, and looking things up in it."""

import pytest

from lowtide.config import Model, Replica, Settings
from lowtide.core.errors import LowtideError
from lowtide.service.models import ModelService, catalogue_of

SETTINGS = Settings(
    model=(Model(id="org/big", aliases=("big",), input_price=2.0, output_price=4.0),),
    replica=(
        Replica(url="http://127.0.0.1:1/v1", models=("org/big", "bare")),
        Replica(url="http://127.0.0.1:2/v1", models=("bare", "big", "other")),
    ),
)


def test_what_a_replica_serves_is_listed_without_a_price() -> None:
    models = ModelService(catalogue_of(SETTINGS)).list()
    assert [(m.id, m.input_price) for m in models] == [
        ("org/big", 2.0),
        ("bare", 0.0),
        ("other", 0.0),
    ]


def test_a_model_is_found_by_id_and_by_alias() -> None:
    models = ModelService(catalogue_of(SETTINGS))
    assert models.get("big").id == models.get("org/big").id == "org/big"
    assert models.get("org/big").batch_discount == 0.5


def test_an_unknown_model_is_named_in_the_refusal() -> None:
    with pytest.raises(LowtideError) as caught:
        ModelService(catalogue_of(SETTINGS)).get("nope")
    assert caught.value.code == "model_not_found"
    assert "nope" in caught.value.message
