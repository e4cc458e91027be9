"""Engine URLs taken apart, and header blocks put together."""

import pytest

from lowtide import __version__
from lowtide.engines.http.request import EngineAddress, Extras, RequestHeads, parse_proxy, parse_url
from lowtide.limits import REQUEST_HEADS_MAX


@pytest.mark.parametrize(
    ("url", "target"),
    [
        (
            "http://127.0.0.1:9001/v1",
            EngineAddress(
                "http://127.0.0.1:9001/v1", False, "127.0.0.1", 9001, "127.0.0.1:9001", "/v1"
            ),
        ),
        (
            "http://gpu.local/v1/",
            EngineAddress("http://gpu.local/v1", False, "gpu.local", 80, "gpu.local", "/v1"),
        ),
        (
            "https://a.example",
            EngineAddress("https://a.example", True, "a.example", 443, "a.example", ""),
        ),
        (
            "http://[::1]:8000",
            EngineAddress("http://[::1]:8000", False, "::1", 8000, "[::1]:8000", ""),
        ),
        (
            "http://bücher.example/",
            EngineAddress(
                "http://bücher.example",
                False,
                "xn--bcher-kva.example",
                80,
                "xn--bcher-kva.example",
                "",
            ),
        ),
    ],
)
def test_a_url_is_taken_apart(url: str, target: EngineAddress) -> None:
    assert parse_url(url) == target


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("127.0.0.1:9001/v1", "must start with http"),
        ("ftp://host/v1", "must start with http"),
        ("http:///v1", "names no host"),
        ("http://host:99999/v1", "port that is no number"),
        ("http://host:eighty/v1", "port that is no number"),
        ("http://host/v1?key=1", "query"),
        ("http://host/v1#top", "fragment"),
        ("http://host/v1\r\nX: y", "control character"),
        ("http://ho st/v1", "space"),
        ("http://host/vé", "plain ASCII"),
        ("http://[::1/v1", "brackets that hold no IPv6"),
    ],
)
def test_a_url_that_cannot_work_is_refused(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_url(url)


def test_credentials_in_a_url_are_refused_without_being_echoed() -> None:
    with pytest.raises(ValueError, match="user or password") as caught:
        parse_url("http://admin:s3cret@host/v1")
    assert "s3cret" not in str(caught.value)


def heads(headers: dict[str, str] | None = None, api_key: str | None = None) -> RequestHeads:
    extras = Extras(headers=headers or {}, api_key=api_key)
    return RequestHeads(parse_url("http://host:9/v1"), extras)


def test_a_post_head_is_complete_up_to_the_length() -> None:
    assert heads({"X-Team": "red"}, "k").post("/embeddings") == (
        b"POST /v1/embeddings HTTP/1.1\r\n"
        b"Content-Type: application/json\r\n"
        b"Host: host:9\r\n"
        b"User-Agent: lowtide/" + __version__.encode() + b"\r\n"
        b"Accept: application/json\r\n"
        b"Accept-Encoding: identity\r\n"
        b"X-Team: red\r\n"
        b"Authorization: Bearer k\r\n"
        b"Content-Length: "
    )


def test_a_get_has_no_body_headers_and_ends_the_head() -> None:
    get = heads().get("/models")
    assert get.startswith(b"GET /v1/models HTTP/1.1\r\nHost: host:9\r\n")
    assert get.endswith(b"\r\n\r\n")
    assert b"Content-" not in get


def test_an_operators_header_replaces_ours_whatever_its_case() -> None:
    post = heads({"HOST": "models.internal", "user-agent": "probe"}).post("/x")
    assert post.lower().count(b"\r\nhost: ") == 1
    assert b"HOST: models.internal\r\n" in post
    assert b"lowtide/" not in post


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"X-A": "b\r\nX-C: d"}, "line break"),
        ({"X-A": "b\n"}, "line break"),
        ({"X-A": "b\0"}, "NUL"),
        ({"X-A": "☂"}, "Latin-1"),
        ({"X A": "b"}, "not valid"),
        ({"X-A\r\n": "b"}, "not valid"),
        ({"": "b"}, "not valid"),
        ({"Content-Length": "3"}, "set by the engine client"),
        ({"transfer-encoding": "chunked"}, "set by the engine client"),
    ],
)
def test_a_header_that_would_break_the_request_is_refused(
    headers: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        heads(headers)


def test_a_key_with_a_line_break_is_refused_without_being_echoed() -> None:
    with pytest.raises(ValueError, match="Authorization contains a line break") as caught:
        heads(api_key="s3cret\r\n")
    assert "s3cret" not in str(caught.value)


def test_a_key_and_an_authorization_header_are_not_both_taken() -> None:
    with pytest.raises(ValueError, match="not both"):
        heads({"authorization": "Basic x"}, "k")


@pytest.mark.parametrize("path", ["models", "", "/a b", "/a\r\nX: y", "/é"])
def test_a_path_that_would_break_the_request_line_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="must start with /"):
        heads().post(path)
    with pytest.raises(ValueError, match="must start with /"):
        heads().get(path)


def test_paths_without_end_do_not_fill_the_memory() -> None:
    many = heads()
    for number in range(REQUEST_HEADS_MAX * 2):
        assert f"/v1/p{number} ".encode() in many.post(f"/p{number}")
    assert len(many._posts) == REQUEST_HEADS_MAX


def test_the_query_goes_behind_every_path() -> None:
    extras = Extras(query={"api-version": "2024-10-21", "x": "a b&c"})
    several = RequestHeads(parse_url("http://host:9/v1"), extras)
    first = b" /v1/chat/completions?api-version=2024-10-21&x=a%20b%26c HTTP/1.1\r\n"
    assert several.post("/chat/completions").startswith(b"POST" + first)
    assert several.get("/chat/completions").startswith(b"GET" + first)


def test_a_forward_proxy_is_told_the_whole_address_and_its_credentials() -> None:
    extras = Extras(proxy=parse_proxy("http://me:p%40ss@proxy"))
    head = RequestHeads(parse_url("http://host:9/v1"), extras).get("/models")
    assert head.startswith(b"GET http://host:9/v1/models HTTP/1.1\r\nHost: host:9\r\n")
    assert b"\r\nProxy-Authorization: Basic bWU6cEBzcw==\r\n" in head


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("proxy:3128", "must start with http://"),
        ("https://me:s3cret@proxy", "must start with http://"),
        ("http://me:s3cret@proxy/path", "end after its port"),
        ("http://me:s3cret@proxy:many", "port that is no number"),
        ("http://me:s3cret@", "names no host"),
    ],
)
def test_a_proxy_that_cannot_be_one_is_refused_without_being_echoed(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse_proxy(url)
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(parse_proxy("http://me:s3cret@proxy"))
