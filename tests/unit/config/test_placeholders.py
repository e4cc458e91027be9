"""config/placeholders.py: secrets that everybody knows."""

from pathlib import Path

import pytest

from lowtide import config
from lowtide.config.placeholders import holds_template, is_placeholder
from lowtide.config.sources import ConfigError


@pytest.mark.parametrize(
    "secret",
    [
        "0123456789abcdef0123456789abcdef",
        "at-least-32-characters-the-same-for-every-pod",
        "AT-LEAST-32-characters-of-anything-whatever",
        "change-me-change-me-change-me-change-me",
        "CHANGE_THIS_TO_32_RANDOM_CHARACTERS",
        "please replace me by something quite long",
        "your-secret-goes-here-0000000000000000",
        "an example of a secret that is long",
        "x" * 40,
        "abcab" * 8,
    ],
)
def test_a_value_that_was_written_to_be_replaced_is_one(secret: str) -> None:
    assert is_placeholder(secret)
    with pytest.raises(ConfigError, match=r"server\.upload_secret: is an example") as refused:
        config.load(None, {"LOWTIDE_SERVER__UPLOAD_SECRET": secret})
    assert secret not in str(refused.value)


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "e1b9f47a0c2d8835aa61907be4f3d2c85b6e17f09d3c42a8",  # openssl rand -hex 24
        "Zk3v+Qw9/1uYtR0pLsEaXm7cNdBfGhJi",  # openssl rand -base64 24
        "31415926535897932384626433832795",
        "correct horse battery staple, and more",
    ],
)
def test_a_secret_of_ones_own_is_none(secret: str) -> None:
    assert not is_placeholder(secret)


TEMPLATES = [
    "${ENGINE_KEY}",
    "a-${KEY:-none}-b",
    "$ENGINE_KEY",
    "$(ENGINE_KEY)",
    "{{ .Values.key }}",
]


@pytest.mark.parametrize("text", TEMPLATES)
def test_a_template_that_nothing_filled_in_is_refused_without_its_text(
    tmp_path: Path, text: str
) -> None:
    file = tmp_path / "l.toml"
    file.write_text(f"[[replica]]\nurl = 'http://h'\nmodels = ['m']\napi_key = '{text}'\n")
    with pytest.raises(ConfigError) as refused:
        config.load(file, {})
    assert str(refused.value) == (
        f"{file} line 4: [[replica]] number 1: api_key: has a variable or template in it that"
        ' nothing has filled in: give the name of the variable as api_key_env = "NAME"'
    )


@pytest.mark.parametrize(
    ("toml", "remedy"),
    [
        ("[server]\ndatabase_url = 'postgresql://u:${PW}@h/d'", "LOWTIDE_SERVER__DATABASE_URL"),
        (
            "[server]\ndata_dir = '${HOME}/tide'",
            "set the variable LOWTIDE_SERVER__DATA_DIR instead",
        ),
        ("[[replica]]\nurl = 'http://${HOST}:1'\nmodels = ['m']", "url: has a variable"),
        (
            "[[replica]]\nurl = 'http://h'\nmodels = ['m']\nheaders = { x = '${T}' }",
            "write the value itself",
        ),
        ("[[replica]]\nurl = 'http://h'\nmodels = ['${M}']", "models: has a variable"),
    ],
)
def test_a_template_is_refused_wherever_it_stands(tmp_path: Path, toml: str, remedy: str) -> None:
    file = tmp_path / "l.toml"
    file.write_text(toml)
    with pytest.raises(ConfigError, match="nothing has filled in") as refused:
        config.load(file, {})
    assert remedy in str(refused.value)


def test_a_variable_with_a_template_in_it_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^LOWTIDE_SERVER__BLOB_URL: .* filled in"):
        config.load(None, {"LOWTIDE_SERVER__BLOB_URL": "s3://$(BUCKET)/x"})


def test_a_template_for_the_engine_is_the_engines(tmp_path: Path) -> None:
    file = tmp_path / "l.toml"
    file.write_text(
        "[[replica]]\nurl = 'http://h'\nmodels = ['m']\n"
        "extra_body = { chat_template = '{{ messages }}' }\n"
    )
    assert config.load(file, {}).replica[0].extra_body == {"chat_template": "{{ messages }}"}


@pytest.mark.parametrize(
    "text", ["", "pa$$word", "$1,000", "a}b{c", "$", "${", "$(date +%s)", "sk-$X"]
)
def test_a_dollar_alone_is_no_template(text: str) -> None:
    assert not holds_template(text)
