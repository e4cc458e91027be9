"""core/bodies/media_urls.py: which URLs of a body an engine may be sent."""

import json
from typing import Any

import pytest

from lowtide.core.bodies.media_urls import MediaRule, is_host, media_rule
from lowtide.limits import MEDIA_WORK_MAX

PICTURE = "data:image/png;base64,iVBORw0KGgo="
LISTED = media_rule(("images.example.org", "10.0.0.7:8080", "[fd00::7]"))
NONE = media_rule("refuse")
assert LISTED is not None
assert NONE is not None


def chat(*parts: dict[str, Any], **fields: Any) -> bytes:
    message = {"role": "user", "content": [{"type": "text", "text": "What is it?"}, *parts]}
    return json.dumps({"model": "m", "messages": [message], **fields}).encode()


def picture(url: str) -> bytes:
    return chat({"type": "image_url", "image_url": {"url": url}})


WAYS = {
    "image_url": lambda url: picture(url),
    "image_url as text": lambda url: chat({"type": "image_url", "image_url": url}),
    "video_url": lambda url: chat({"type": "video_url", "video_url": {"url": url}}),
    "audio_url": lambda url: chat({"type": "audio_url", "audio_url": {"url": url}}),
    "a part without a type": lambda url: chat({"image_url": url}),
    "a list of them": lambda url: chat({"image_urls": [PICTURE, url]}),
    "input_image": lambda url: json.dumps(
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}]}
    ).encode(),
    "input_file": lambda url: json.dumps(
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": url}]}]}
    ).encode(),
    "file_data": lambda url: chat({"type": "file", "file": {"file_data": url}}),
    "input_audio": lambda url: chat({"type": "input_audio", "input_audio": {"data": url}}),
    "image": lambda url: chat({"type": "image", "image": url}),
    "a tool server": lambda url: chat(tools=[{"type": "mcp", "server_url": url}]),
    "a top-level field": lambda url: chat(image_data=[url]),
    "a name with escapes": lambda url: picture(url).replace(b'"url"', b'"\\u0075rl"'),
    "a name twice, last": lambda url: picture(PICTURE).replace(
        b'{"url": ', b'{"url": "data:,", "url": %b, "url": ' % json.dumps(url).encode()
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_url_is_found_wherever_an_engine_reads_one(way: str) -> None:
    body = WAYS[way]("http://169.254.169.254/latest/meta-data/")
    json.loads(body)
    for rule in (LISTED, NONE):
        assert rule.refusal(body) is not None


@pytest.mark.parametrize("way", WAYS)
def test_content_itself_is_always_taken(way: str) -> None:
    for rule in (LISTED, NONE):
        assert rule.refusal(WAYS[way](PICTURE)) is None


@pytest.mark.parametrize("way", WAYS)
def test_a_listed_host_is_taken_in_list_mode_alone(way: str) -> None:
    body = WAYS[way]("https://images.example.org/cat.png?size=2&x=@1#top")
    assert LISTED.refusal(body) is None
    assert NONE.refusal(body) is not None


@pytest.mark.parametrize(
    "url",
    [
        "http://images.example.org",
        "HTTPS://Images.Example.ORG/a",
        "https://images.example.org:443/a",
        "http://10.0.0.7:8080/a",
        "http://[fd00::7]/a",
    ],
)
def test_a_host_has_one_meaning(url: str) -> None:
    assert LISTED.refusal(picture(url)) is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://example.org/a",
        "https://evil.org/images.example.org",
        "https://images.example.org.evil.org/a",
        "https://evil-images.example.org/a",
        "https://images.example.org./a",
        "https://images.example.org@evil.org/a",
        "https://user:word@images.example.org/a",
        "https://images.example.org\\@evil.org/a",
        "https:\\\\images.example.org/a",
        "https://images.example.org/a\\b",
        "https://images.example.org#@evil.org/a",
        "https://images.example.org?@evil.org/a",
        "https://images.example.org/a b",
        "https://images.example.org/a\n",
        "https://images.example.org\t/a",
        " https://images.example.org/a",
        "https:/images.example.org/a",
        "https:images.example.org/a",
        "//images.example.org/a",
        "images.example.org/a",
        "https://images.example.org:8443/a",
        "http://images.example.org:443/a",
        "https://images.example.org:/a",
        "https://images.example.org:0443/a",
        "https://10.0.0.7/a",
        "https://images%2eexample.org/a",
        "https://images\u3002example.org/a",
        "https://images.example.org/\u00e9",
        "http://[fd00:0::7]/a",
        "ftp://images.example.org/a",
        "file:///etc/passwd",
        "/etc/passwd.png",
        " data:image/png;base64,AA==",
        "DATA:image/png;base64,AA==",
        "gopher://images.example.org/",
    ],
)
def test_whatever_can_be_read_in_another_way_is_refused(url: str) -> None:
    assert LISTED.refusal(picture(url)) is not None
    assert NONE.refusal(picture(url)) is not None


@pytest.mark.parametrize(
    "body",
    [
        chat({"type": "text", "text": "See https://example.org/a.png and file:///etc/passwd"}),
        chat(metadata={"source_url": "https://example.org/"}),
        chat(
            tools=[
                {
                    "type": "function",
                    "function": {
                        "name": "fetch",
                        "parameters": {
                            "type": "object",
                            "properties": {"url": {"type": "string", "format": "uri"}},
                            "required": ["url"],
                        },
                    },
                }
            ]
        ),
        chat({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}),
        b'{"input": "image_url: https://example.org"}',
    ],
)
def test_what_no_engine_fetches_is_no_url(body: bytes) -> None:
    for rule in (LISTED, NONE):
        assert rule.refusal(body) is None


@pytest.mark.parametrize(
    "body", [b'{"broken": "url', b"[" * 100_000 + b'"url"', b'\xef\xbb\xbf{"url": "data:,"}']
)
def test_what_cannot_be_looked_through_is_refused(body: bytes) -> None:
    assert NONE.refusal(body) is not None


def test_a_byte_that_is_no_text_hides_no_url() -> None:
    body = picture("http://evil.org/").replace(b"What is it?", b"What is it\xff?")
    assert NONE.refusal(body) is not None
    assert LISTED.refusal(body) is not None


@pytest.mark.parametrize("filling", [b"0,", b"[],", b"{},", b'"",'])
def test_what_would_take_long_to_look_through_is_refused_unread(
    filling: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = b'{"url": "data:,", "x": [%b0]}'
    assert NONE.refusal(body % (filling * 1_000)) is None
    monkeypatch.setattr(json, "JSONDecoder", None)
    found = NONE.refusal(body % (filling * (MEDIA_WORK_MAX + 1)))
    assert found is not None
    assert "more values" in found[1]


def test_numbers_of_any_length_are_passed_over() -> None:
    assert NONE.refusal(b'{"url": "data:,", "n": %b}' % (b"9" * 10_000)) is None


def test_the_refusal_names_the_member_and_not_the_address() -> None:
    found = LISTED.refusal(picture("http://10.1.2.3/secret"))
    assert found is not None
    assert found[0] == "image_url" or found[0] == "url"
    assert "10.1.2.3" not in found[1]


def test_most_bodies_are_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MediaRule, "_judged", None)  # would end the test if it were called
    monkeypatch.setattr(json, "JSONDecoder", None)
    assert NONE.refusal(b'{"model":"m","messages":[{"role":"user","content":"Hello"}]}') is None


def test_by_default_there_is_no_rule() -> None:
    assert media_rule("pass") is None


@pytest.mark.parametrize("text", ["example.org", "example.org:8443", "10.0.0.7", "[::1]", "cdn_1"])
def test_hosts_for_the_list(text: str) -> None:
    assert is_host(text)


@pytest.mark.parametrize(
    "text",
    ["", "https://example.org", "Example.org", "example.org/a", "*.example.org", "a b", "-a"],
)
def test_no_hosts_for_the_list(text: str) -> None:
    assert not is_host(text)
