"""config/placeholders.py: secrets that everybody knows."""

import pytest

from lowtide import config
from lowtide.config.placeholders import is_placeholder
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
