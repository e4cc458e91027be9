"""Looking models up by any of their names."""

import pytest

from lowtide.core.accounts.catalogue import Catalogue, ModelEntry
from lowtide.core.errors import LowtideError
from lowtide.service.models import ModelService

MODELS = ModelService(
    Catalogue([ModelEntry(id="org/big", aliases=("big",)), ModelEntry(id="small")])
)


def test_models_are_listed_in_the_order_of_the_catalogue() -> None:
    assert [model.id for model in MODELS.list()] == ["org/big", "small"]


def test_a_model_is_found_by_id_and_by_alias() -> None:
    assert MODELS.get("big") == MODELS.get("org/big") == MODELS.list()[0]


def test_an_unknown_model_is_named_in_the_refusal() -> None:
    with pytest.raises(LowtideError) as caught:
        MODELS.get("nope")
    assert caught.value.code == "model_not_found"
    assert "nope" in caught.value.message
