"""What of an address may be shown."""

import pytest

from lowtide.core.reporting.shown_url import shown_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://127.0.0.1:9001/v1", "http://127.0.0.1:9001/v1"),
        ("https://[::1]:8000", "https://[::1]:8000"),
        ("http://me:s3cret@host/v1", "http://me:***@host/v1"),
        ("https://host/v1?key=s3cret", "https://host/v1?key=***"),
        ("s3://bucket/prefix", "s3://bucket/prefix"),
        ("file:///srv/blobs", "file:///srv/blobs"),
        (
            "postgresql://u:s3cret@a:1,b:2/d?password=s3cret",
            "postgresql://u:***@a:1,b:2/d?password=***",
        ),
        ("postgresql:///d?host=/run&password=x", "postgresql:///d?host=/run&password=***"),
        ("https://s3cret@host/v1?s3cret#x", "https://***@host/v1?***"),
        ("https://host/v1#s3cret", "https://host/v1#***"),
    ],
)
def test_an_address_is_shown_without_what_may_be_secret(url: str, shown: str) -> None:
    assert shown_url(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "http://me:pa55/w0rd@host/v1",
        "http://me:pa55#w0rd@host/v1",
        "http://me:pa55?w0rd@host/v1",
        "http://me:pa55 w0rd@host/v1",
        "http://me:[pa55]w0rd@ho st",
        "http://host:pa55w0rd/v1",
        "me:pa55w0rd@host",
        "pa55w0rd",
        "",
    ],
)
def test_what_is_no_sound_address_is_not_shown_at_all(url: str) -> None:
    shown = shown_url(url)
    assert "pa55" not in shown
    assert "w0rd" not in shown
