"""The recipe of the random model: every byte has its token, and only printable ones are likely."""

from pathlib import Path

import gguf
import numpy as np
import pytest

from lowtide.engines.models.random_model import CONTEXT_TOKENS
from lowtide.engines.models.random_recipe import write_random


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> gguf.GGUFReader:
    path: Path = tmp_path_factory.mktemp("random") / "random.gguf"
    write_random(path, CONTEXT_TOKENS)
    return gguf.GGUFReader(path)


def test_there_is_one_token_for_each_byte_and_all_differ(model: gguf.GGUFReader) -> None:
    field = model.get_field("tokenizer.ggml.tokens")
    assert field is not None
    tokens = field.contents()
    assert len(set(tokens)) == len(tokens) > 256
    assert not any(character.isspace() for token in tokens for character in token)


def test_only_printable_characters_and_the_end_are_ever_likely(model: gguf.GGUFReader) -> None:
    tensors = {tensor.name: tensor.data for tensor in model.tensors}
    bias = tensors["output.weight"][:, 0]  # the constant feature: see the recipe
    likely = set(np.flatnonzero(bias > -5).tolist())
    printable = set(range(0x20, 0x7F))
    assert likely - {256} <= printable
    assert {256, ord(" "), ord("e"), ord("z"), ord("0")} <= likely


def test_no_layer_touches_the_constant_feature(model: gguf.GGUFReader) -> None:
    into_the_stream = ("attn_output.weight", "ffn_down.weight")
    rows = [tensor.data[0] for tensor in model.tensors if tensor.name.endswith(into_the_stream)]
    assert len(rows) == 4
    assert not any(row.any() for row in rows)
