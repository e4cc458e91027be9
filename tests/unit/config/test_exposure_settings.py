"""Names, origins and networks in the settings."""

from pathlib import Path

import pytest

from lowtide.cli.server.foreground import exposed_without_keys
from lowtide.config import AuthSettings, ServerSettings, Settings, load
from lowtide.config.exposure import exposed_names, host_name, origin_of
from lowtide.config.sources import ConfigError


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("localhost:8000", "localhost"),
        ("LocalHost", "localhost"),
        ("127.0.0.1:1", "127.0.0.1"),
        ("[::1]:8000", "[::1]"),
        ("batch.example.org", "batch.example.org"),
        ("", None),
        ("a b", None),
        ("a/b", None),
        ("localhost@evil", None),
        ("localhost:80:80", None),
        ("localhost:8000/", None),
        ("localhost\x00", None),
    ],
)
def test_a_host_has_one_spelling_without_its_port(text: str, name: str | None) -> None:
    assert host_name(text) == name


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://LOCALHOST:3000", "http://localhost:3000"),
        ("http://localhost:80/x", "http://localhost"),
        ("https://a.example:443", "https://a.example"),
        ("https://a.example:8443/v1", "https://a.example:8443"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("null", None),
        ("file:///x", None),
        ("http://", None),
        ("http://a@b", None),
        ("http://a:99999", None),
    ],
)
def test_an_origin_is_scheme_host_and_port(url: str, origin: str | None) -> None:
    assert origin_of(url) == origin


@pytest.mark.parametrize(
    "line",
    [
        'allowed_hosts = ["http://a"]',
        'allowed_hosts = ["a b"]',
        'allowed_origins = ["localhost:3000"]',
        'allowed_origins = ["http://localhost:3000/app"]',
        'allowed_origins = ["*"]',
        'trusted_proxies = ["proxy.example"]',
        'trusted_proxies = ["10.0.0.0/33"]',
    ],
)
def test_what_is_none_is_refused_with_its_key(tmp_path: Path, line: str) -> None:
    file = tmp_path / "lowtide.toml"
    file.write_text(f"[server]\n{line}\n")
    with pytest.raises(ConfigError, match=f"server.{line.partition(' ')[0]}"):
        load(file, {})


def test_a_public_address_in_open_mode_is_refused_with_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "lowtide.toml"
    file.write_text('[server]\nhost = "0.0.0.0"\n')
    with pytest.raises(ConfigError, match="container") as refused:
        load(file, {})
    assert "lowtide keys create" in str(refused.value)
    file.write_text('[server]\nhost = "0.0.0.0"\n[auth]\nmode = "keys"\n')
    assert load(file, {}).server.host == "0.0.0.0"


@pytest.mark.parametrize(
    ("public_url", "hosts", "names"),
    [
        (None, (), []),
        ("http://localhost:8000", ("127.0.0.1", "[::1]:1"), []),
        ("https://a.example:1/x", ("B.lan:8000", "a.example"), ["a.example", "b.lan"]),
    ],
)
def test_names_that_others_may_know_are_told(
    public_url: str | None, hosts: tuple[str, ...], names: list[str]
) -> None:
    assert exposed_names(public_url, hosts) == names
    settings = Settings(server=ServerSettings(public_url=public_url, allowed_hosts=hosts))
    reported = exposed_without_keys(settings)
    assert (reported is not None) == bool(names)
    assert all(name in (reported or "") for name in names)
    keys = Settings(server=settings.server, auth=AuthSettings(mode="keys"))
    assert exposed_without_keys(keys) is None
