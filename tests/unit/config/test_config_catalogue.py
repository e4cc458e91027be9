"""The catalogue in the settings: exact prices, the shipped file, and what wins."""

from decimal import Decimal
from pathlib import Path

import pytest

from lowtide import config
from lowtide.config import Settings
from lowtide.config.sources import ConfigError
from lowtide.core.accounts.catalogue import Catalogue, ModelEntry
from lowtide.core.accounts.money import UnitPrices

LAUNCH = {
    "deepseek-ai/DeepSeek-R1": "685B",
    "deepseek-ai/DeepSeek-V3": "671B",
    "meta-llama/Llama-3-70b-chat-hf": "70B",
    "meta-llama/Llama-3.3-70B-Instruct-Turbo": "70B",
    "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8": "17B",
    "meta-llama/Llama-4-Scout-17B-16E-Instruct": "17B",
    "meta-llama/Meta-Llama-3.1-405B-Instruct-Turbo": "405B",
    "meta-llama/Meta-Llama-3.1-70B-Instruct-Turbo": "70B",
    "meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo": "8B",
    "mistralai/Mistral-7B-Instruct-v0.1": "7B",
    "mistralai/Mixtral-8x7B-Instruct-v0.1": "8x7B",
    "Qwen/Qwen2.5-72B-Instruct-Turbo": "72B",
    "Qwen/Qwen2.5-7B-Instruct-Turbo": "7B",
    "Qwen/Qwen3-235B-A22B-fp8-tput": "235B",
    "Qwen/QwQ-32B": "32B",
}


def load(folder: Path, text: str, **environ: str) -> Settings:
    file = folder / "lowtide.toml"
    file.write_text(text)
    return config.load(file, environ)


def test_the_launch_catalogue_has_the_fifteen_models_with_their_sizes(tmp_path: Path) -> None:
    settings = load(tmp_path, "[catalogue]\nfile = 'launch'\n")
    assert {model.id: model.size for model in settings.model} == LAUNCH
    for model in settings.model:
        assert model.context_length
        assert model.input_price > 0 < model.output_price
        assert model.batch_discount == Decimal("0.5")


def test_a_model_of_the_settings_wins_over_the_catalogue_file(tmp_path: Path) -> None:
    own = "[[model]]\nid = 'Qwen/QwQ-32B'\ninput_price = 9.5\n"
    settings = load(tmp_path, f"[catalogue]\nfile = 'launch'\n{own}")
    (qwq,) = [model for model in settings.model if model.id == "Qwen/QwQ-32B"]
    assert qwq.input_price == Decimal("9.5")
    assert len(settings.model) == len(LAUNCH)


def test_a_catalogue_file_can_be_anywhere(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text("[[model]]\nid = 'a'\ninput_price = 0.1\ncached_input_price = 0.025\n")
    (model,) = load(tmp_path, f"[catalogue]\nfile = '{mine}'\n").model
    assert (model.input_price, model.cached_input_price) == (Decimal("0.1"), Decimal("0.025"))


@pytest.mark.parametrize("source", ["toml", "toml text", "environment"])
def test_prices_are_exact_wherever_they_come_from(tmp_path: Path, source: str) -> None:
    if source == "environment":
        models = '[{"id": "a", "input_price": 0.1, "batch_discount": 0.4}]'
        settings = load(tmp_path, "", LOWTIDE_MODEL=models)
    else:
        price = "0.1" if source == "toml" else "'0.1'"
        text = f"[[model]]\nid = 'a'\ninput_price = {price}\nbatch_discount = 0.4\n"
        settings = load(tmp_path, text)
    (model,) = settings.model
    catalogue = Catalogue([ModelEntry(id="a", input_price=model.input_price)])
    assert model.input_price == Decimal("0.1")
    assert model.batch_discount == Decimal("0.4")
    assert catalogue.prices["a"].live == UnitPrices(100_000, 100_000, 0)
    assert catalogue.prices["a"].batch == UnitPrices(50_000, 50_000, 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[model]]\nid = 'a/b'\ninput_price = 0.0000001", "a/b: .*at most six decimals"),
        ("[[model]]\nid = 'a/b'\noutput_price = -1", "a/b: .*nothing below 0"),
        ("[[model]]\nid = 'a/b'\ninput_price = nan", "number 1: input_price: must be a number"),
        ("[[model]]\nid = 'a/b'\ninput_price = inf", "number 1: input_price: must be a number"),
        ("[[model]]\nid = 'a/b'\nbatch_discount = 1.5", "number 1: batch_discount"),
        ("[[model]]\nid = 'a/b'\nbatch_discount = nan", "number 1: batch_discount"),
        ("[catalogue]\nfile = 'nowhere.toml'", "nowhere.toml: no such file. Check catalogue.file"),
        ("[catalogue]\nfile = 'luanch'", "luanch: no such file"),
        ("[catalogue]\nunserved = 'explode'", "unserved"),
        ("[limits]\nbatches_per_hour = -1", "limits.batches_per_hour"),
        ("[limits]\nmedia_urls = []", "limits.media_urls: must be 'pass', 'refuse', or a list"),
        ("[limits]\nmedia_urls = ['https://a.org/x']", "limits.media_urls: must be 'pass'"),
        ("[limits]\nmedia_urls = 'no'", "limits.media_urls: must be 'pass' or 'refuse'"),
        ("[server]\nupload_secret = 'short'", "server.upload_secret: must be at least 32"),
    ],
)
def test_what_cannot_be_is_refused_by_name(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(tmp_path, text)


def test_hosts_of_urls_are_given_in_a_file_or_as_json(tmp_path: Path) -> None:
    text = "[limits]\nmedia_urls = ['a.org', '10.0.0.7:8080']"
    hosts = ("a.org", "10.0.0.7:8080")
    assert load(tmp_path, text).limits.media_urls == hosts
    environ = {"LOWTIDE_LIMITS__MEDIA_URLS": '["a.org", "10.0.0.7:8080"]'}
    assert config.load(None, environ).limits.media_urls == hosts
    assert config.load(None, {"LOWTIDE_LIMITS__MEDIA_URLS": "refuse"}).limits.media_urls == "refuse"


def test_keys_mode_is_allowed_on_any_host_and_open_mode_is_not(tmp_path: Path) -> None:
    public = "[server]\nhost = '0.0.0.0'\n"
    assert load(tmp_path, f"{public}[auth]\nmode = 'keys'\n").server.host == "0.0.0.0"
    with pytest.raises(ConfigError, match="public address"):
        load(tmp_path, public)


def test_only_served_models_are_accepted_when_that_is_asked_for() -> None:
    entries = [ModelEntry(id="warm", aliases=("w",)), ModelEntry(id="cold", aliases=("c",))]
    some = Catalogue(entries, served={"warm"})
    assert some.accepted == {"warm": "warm", "w": "warm"}
    assert set(some.names) == {"warm", "w", "cold", "c"}
    assert Catalogue(entries).accepted == some.names
