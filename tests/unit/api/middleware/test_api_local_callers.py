"""Who may call a server that asks for no keys."""

import pytest

from lowtide.api.middleware.local_callers import OpenModePolicy
from lowtide.config import ServerSettings

HERE = "localhost:8000"


def asked(method: str = "POST", server: ServerSettings | None = None, **headers: str) -> str | None:
    """The code of the refusal; None where the call may go on."""
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    refusal = OpenModePolicy(server or ServerSettings()).refusal(method, "http", raw)
    return refusal.code if refusal else None


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "127.9.9.9", "[::1]:8000", "[::1]"]
)
def test_a_name_of_this_machine_is_served_whatever_its_port(host: str) -> None:
    assert asked(host=host) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "0.0.0.0",
        "",
        "x@localhost",
    ],
)
def test_any_other_name_is_refused(host: str) -> None:
    assert asked(host=host) == "host_not_allowed"


def test_no_host_and_two_of_them_are_refused() -> None:
    policy = OpenModePolicy(ServerSettings())
    for hosts in ([], [b"localhost", b"evil.example"], [b"localhost", b"localhost"]):
        refusal = policy.refusal("GET", "http", [(b"host", each) for each in hosts])
        assert refusal is not None
        assert refusal.code == "host_not_allowed"


def test_public_url_the_listening_address_and_allowed_hosts_are_names_of_ours() -> None:
    server = ServerSettings(
        host="::1", public_url="https://batch.example:444/x", allowed_hosts=("Dev.local:1",)
    )
    for host in ("batch.example", "batch.example:9", "[::1]:8000", "dev.local:8000", "dev.local"):
        assert asked(server=server, host=host) is None
    assert asked(server=server, host="example") == "host_not_allowed"


@pytest.mark.parametrize("site", ["same-site", "cross-site", "nonsense"])
def test_a_page_of_another_site_may_not_call(site: str) -> None:
    for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS"):
        headers = {"sec_fetch_site": site, "sec_fetch_mode": "no-cors", "sec_fetch_dest": "image"}
        assert asked(method, host=HERE, **headers) == "origin_not_allowed"


def test_our_own_page_and_the_address_bar_may() -> None:
    assert asked(host=HERE, sec_fetch_site="same-origin", origin=f"http://{HERE}") is None
    assert asked("GET", host=HERE, sec_fetch_site="none") is None


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:3000",
        "https://localhost:8000",
        "http://localhost",
        "http://127.0.0.1:8000",
        "http://evil.example",
        "null",
    ],
)
def test_an_origin_is_ours_only_as_a_whole(origin: str) -> None:
    assert asked(host=HERE, origin=origin) == "origin_not_allowed"
    assert asked("GET", host=HERE, origin=origin, sec_fetch_site="same-origin") is not None


def test_a_link_to_us_may_be_followed_and_nothing_but_a_link() -> None:
    link = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
    assert asked("GET", host=HERE, **link, sec_fetch_dest="document") is None
    assert asked("GET", host=HERE, **link, sec_fetch_dest="iframe") == "origin_not_allowed"
    assert asked("POST", host=HERE, **link, sec_fetch_dest="document") == "origin_not_allowed"
    assert asked("GET", host="evil.example", **link, sec_fetch_dest="document") is not None


def test_an_allowed_origin_may_call() -> None:
    server = ServerSettings(allowed_origins=("http://localhost:3000",))
    page = {"origin": "http://localhost:3000", "sec_fetch_site": "same-site"}
    assert asked(server=server, host=HERE, **page) is None
    assert asked(server=server, host="evil.example", **page) == "host_not_allowed"
    assert asked(server=server, host=HERE, origin="http://localhost:3001") is not None


def test_a_refusal_says_which_setting_to_set() -> None:
    policy = OpenModePolicy(ServerSettings())
    host = policy.refusal("GET", "http", [(b"host", b"box.lan")])
    origin = policy.refusal("GET", "http", [(b"host", b"localhost"), (b"origin", b"http://x")])
    assert host is not None
    assert origin is not None
    assert "'box.lan'" in host.message
    assert "server.allowed_hosts" in host.message
    assert "auth.mode = 'keys'" in host.message
    assert "'http://x'" in origin.message
    assert "server.allowed_origins" in origin.message
