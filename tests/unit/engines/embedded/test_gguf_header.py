"""Reading the facts of a GGUF file, and refusing what is none."""

from pathlib import Path

import gguf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lowtide.engines.embedded.gguf_header import GgufError, GgufHeader, read_header
from property_profiles import examples, unhurried

ONE_PAIR = b"GGUF" + b"\x03\0\0\0" + bytes(8) + b"\x01" + bytes(7)
NO_KEY = bytes(8)
ARRAY = b"\x09\0\0\0"


def write_model(path: Path, *, pooling: bool = False, context: int | None = 512) -> Path:
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_array("general.tags", ["small", "test"])  # arrays come before what we look for
    writer.add_array("general.numbers", [1, 2, 3])
    writer.add_bool("general.flag", True)
    writer.add_float64("general.pi", 3.14)
    if context is not None:
        writer.add_context_length(context)
    if pooling:
        writer.add_pooling_type(gguf.PoolingType.CLS)
    writer.add_token_list(["a", "b"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def test_the_facts_of_a_model_are_read_past_arrays(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.gguf")
    assert read_header(path) == GgufHeader("bert", context_tokens=512, pools=False)


def test_an_embedding_model_is_known_by_its_pooling(tmp_path: Path) -> None:
    assert read_header(write_model(tmp_path / "m.gguf", pooling=True)).pools


def test_a_model_without_a_context_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GgufError, match="context length"):
        read_header(write_model(tmp_path / "m.gguf", context=None))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "letters GGUF"),
        (b"<html>not found</html>", "letters GGUF"),
        (b"GGUF\x03\x00", "ends inside"),
        (b"GGUF" + (1).to_bytes(4, "little") + bytes(16), "version 1"),
        (b"GGUF" + (3).to_bytes(4, "big") + bytes(16), "version"),
        (ONE_PAIR + b"\xff" * 8, "damaged"),
        (ONE_PAIR + NO_KEY + ARRAY + b"\x04\0\0\0" + b"\xff" * 8, "array of"),
        (ONE_PAIR + NO_KEY + ARRAY + ARRAY + b"\x01" + bytes(7), "arrays of"),
        (ONE_PAIR + NO_KEY + b"\x63\0\0\0", "value type 99"),
    ],
)
def test_a_file_that_is_no_gguf_is_refused_by_name(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(GgufError, match=said):
        read_header(path)


@settings(
    suppress_health_check=unhurried(HealthCheck.function_scoped_fixture),
    max_examples=examples(200),
)
@given(at=st.integers(0, 400), value=st.integers(0, 255), cut=st.integers(0, 500))
def test_a_damaged_header_is_refused_or_read_but_never_anything_else(
    tmp_path: Path, at: int, value: int, cut: int
) -> None:
    content = bytearray(write_model(tmp_path / "m.gguf").read_bytes())
    content[at % len(content)] = value
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(content[: max(cut, 4)])
    try:
        header = read_header(damaged)
    except GgufError:
        return
    assert header.context_tokens >= 1
