"""What may stand after --model, and what is said when it cannot be had."""

from pathlib import Path

import gguf
import pytest

from lowtide.engines.models.source import ModelSourceError, ResolvedModel, resolve_model

REPO = "org/Some-1B-GGUF"


class ShelfHub:
    """A hub whose repository holds `names`; fetched files appear in `folder`."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.folder = folder
        self.names = list(names)
        self.fetched: list[str] = []

    def files(self, repo_id: str) -> list[str]:
        assert repo_id == REPO
        return self.names

    def fetch(self, repo_id: str, name: str) -> Path:
        assert repo_id == REPO
        self.fetched.append(name)
        return self.folder / name


def write_gguf(path: Path) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def refusal(spec: str, cache: Path, hub: ShelfHub | None = None) -> ModelSourceError:
    with pytest.raises(ModelSourceError) as caught:
        resolve_model(spec, cache, hub=hub)
    assert str(caught.value) == caught.value.message
    return caught.value


def test_random_is_written_into_the_cache_and_found_there_again(tmp_path: Path) -> None:
    model = resolve_model("random", tmp_path / "cache")
    assert model.path.parent == tmp_path / "cache"
    assert model.model_id == "random"
    assert model == resolve_model("random", tmp_path / "cache")


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    assert "cannot write the random model" in refusal("random", tmp_path / "cache").message


def test_a_path_is_a_model_named_by_its_stem(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "Tiny-Q8_0.gguf")
    assert resolve_model(str(path), tmp_path) == ResolvedModel(path, "Tiny-Q8_0")


def test_a_gguf_without_the_suffix_is_a_model_too(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "sha256-abc")
    assert resolve_model(str(path), tmp_path).path == path


def test_a_home_folder_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = write_gguf(tmp_path / "m.gguf")
    assert resolve_model("~/m.gguf", tmp_path).path == path


@pytest.mark.parametrize("spec", ["models/none.gguf", "/none/of/this", "name", "a/b/c", "a/b:c:d"])
def test_a_spec_that_leads_nowhere_says_where_it_looked(tmp_path: Path, spec: str) -> None:
    error = refusal(spec, tmp_path)
    assert error.code == "model_not_found"
    assert str(Path(spec).absolute()) in error.message
    assert "hub id" in error.message and "demo" in error.message


def test_a_folder_is_answered_with_the_models_in_it(tmp_path: Path) -> None:
    write_gguf(tmp_path / "inside.gguf")
    error = refusal(str(tmp_path), tmp_path)
    assert error.code == "model_ambiguous"
    assert "inside.gguf" in error.message


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_text("version https://git-lfs.github.com/spec/v1")
    error = refusal(str(path), tmp_path)
    assert error.code == "model_not_gguf"
    assert str(path) in error.message


def test_any_part_of_a_split_model_leads_to_the_first(tmp_path: Path) -> None:
    parts = [write_gguf(tmp_path / f"Big-{i:05d}-of-00003.gguf") for i in (1, 2, 3)]
    assert resolve_model(str(parts[1]), tmp_path) == ResolvedModel(parts[0], "Big")


def test_a_split_model_with_a_part_missing_is_refused_by_that_name(tmp_path: Path) -> None:
    part = write_gguf(tmp_path / "Big-00001-of-00002.gguf")
    error = refusal(str(part), tmp_path)
    assert error.code == "model_not_found"
    assert "Big-00002-of-00002.gguf" in error.message


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["M-Q8_0.gguf", "M-Q4_K_M.gguf", "M-Q4_K_S.gguf"], "M-Q4_K_M.gguf"),
        (["M.Q8_0.gguf", "M.Q5_K_M.gguf", "README.md"], "M.Q5_K_M.gguf"),
        (["m-q2_k.gguf", "m-fp16.gguf", "m-q4_0.gguf"], "m-q4_0.gguf"),
        (["mmproj-M-Q4_K_M.gguf", "M-BF16.gguf"], "M-BF16.gguf"),
        (["UD/M-UD-Q4_K_M.gguf", "M-Q4_K_M.gguf"], "M-Q4_K_M.gguf"),
        (["unheard-of.gguf"], "unheard-of.gguf"),
    ],
)
def test_the_best_quantisation_is_picked(tmp_path: Path, names: list[str], chosen: str) -> None:
    hub = ShelfHub(tmp_path, *names)
    assert resolve_model(REPO, tmp_path, hub=hub) == ResolvedModel(tmp_path / chosen, REPO)
    assert hub.fetched == [chosen]


@pytest.mark.parametrize("wanted", ["Q8_0", "q8_0", "M-Q8_0.gguf", "sub/M-Q8_0.gguf"])
def test_a_quantisation_or_a_file_can_be_asked_for(tmp_path: Path, wanted: str) -> None:
    hub = ShelfHub(tmp_path, "M-Q4_K_M.gguf", "sub/M-Q8_0.gguf", "M-IQ8_0X.gguf")
    model = resolve_model(f"{REPO}:{wanted}", tmp_path, hub=hub)
    assert model.path == tmp_path / "sub" / "M-Q8_0.gguf"


def test_all_parts_of_a_split_model_are_fetched(tmp_path: Path) -> None:
    parts = [f"Q4_K_M/M-Q4_K_M-{i:05d}-of-00003.gguf" for i in (1, 2, 3)]
    hub = ShelfHub(tmp_path, *parts, "M-Q8_0.gguf")
    assert resolve_model(REPO, tmp_path, hub=hub).path == tmp_path / parts[0]
    assert hub.fetched == parts


def test_an_unknown_quantisation_is_answered_with_what_there_is(tmp_path: Path) -> None:
    error = refusal(f"{REPO}:Q9", tmp_path, ShelfHub(tmp_path, "M-Q4_0.gguf", "M-Q8_0.gguf"))
    assert error.code == "model_not_found"
    assert "'Q9'" in error.message and "M-Q4_0.gguf, M-Q8_0.gguf" in error.message


def test_a_repository_without_a_gguf_says_what_to_look_for(tmp_path: Path) -> None:
    error = refusal(REPO, tmp_path, ShelfHub(tmp_path, "model.safetensors", "mmproj.gguf"))
    assert error.code == "model_not_found"
    assert "-GGUF" in error.message
