"""Which addresses webhooks may be sent to: public ones, and what an operator allows."""

from ipaddress import ip_network

import pytest

from lowtide import limits
from lowtide.core.webhooks.address_rules import refusal_of, target_of


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "100.100.100.200",  # a cloud's metadata
        "127.0.0.1",
        "127.8.8.8",
        "168.63.129.16",  # another's, at a public number
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.0.2.1",
        "192.168.1.1",
        "198.18.0.1",
        "203.0.113.9",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::808:808",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "2001:0:4136:e378:8000:63bf:80ff:fffe",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "ff02::1",
    ],
)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    assert refusal_of(address, ()) is not None


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "172.32.0.1", "2606:4700::1111", "64:ff9b::808:808"]
)
def test_a_public_address_is_called(address: str) -> None:
    assert refusal_of(address, ()) is None


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("10.1.2.3", 'allow_networks = ["10.1.2.3/32"]'),
        ("fd00::1", 'allow_networks = ["fd00::1/128"]'),
        ("::ffff:10.0.0.1", 'allow_networks = ["::ffff:a00:1/128"]'),
    ],
)
def test_a_refusal_names_the_very_line_that_allows_the_address(address: str, line: str) -> None:
    refusal = refusal_of(address, ())
    assert refusal is not None
    assert line in refusal
    assert "[webhooks]" in refusal
    network = line.partition('"')[2].partition('"')[0]
    assert refusal_of(address, [ip_network(network)]) is None


def test_a_network_of_one_family_allows_nothing_of_the_other() -> None:
    assert refusal_of("10.0.0.1", [ip_network("::/0")]) is not None
    assert refusal_of("::1", [ip_network("0.0.0.0/0")]) is not None
    assert refusal_of("::ffff:10.0.0.1", [ip_network("10.0.0.0/8")]) is not None


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("https://a.example", (True, "a.example", 443, "/", "a.example")),
        ("http://a.example/x", (False, "a.example", 80, "/x", "a.example")),
        (
            "HTTPS://A.Example.:8443/h?k=v&w",
            (True, "a.example", 8443, "/h?k=v&w", "a.example:8443"),
        ),
        ("https://[2606:4700::1]:444/", (True, "2606:4700::1", 444, "/", "[2606:4700::1]:444")),
        ("http://1.2.3.4:80/", (False, "1.2.3.4", 80, "/", "1.2.3.4")),
    ],
)
def test_an_address_has_the_parts_that_a_call_needs(url: str, parts: tuple[object, ...]) -> None:
    found = target_of(url)
    assert (found.is_tls, found.host, found.port, found.path, found.authority) == parts


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://a.example/", "must begin with"),
        ("file:///etc/passwd", "must begin with"),
        ("a.example/hooks", "must begin with"),
        ("https://", "no host"),
        ("https://.../", "no host"),
        ("https://a b.example/", "space"),
        ("https://a.example/\r\nx: y", "control"),
        ("https://ä.example/", "ASCII"),
        ("https://user:pass@a.example/", "no user"),
        ("https://a.example@127.0.0.1/", "no user"),
        ("https://a.example/#x", "fragment"),
        ("https://a.example:99999/", "host or port"),
        ("https://a.example:x/", "host or port"),
        ("https://a.example:/", "host or port"),
        ("https://a.example:0/", "host or port"),
        ("https://[1::2::3]/", "At most one"),
        ("https://[fe80::1%25eth0]/", "no host"),
        ("https://a\\example/", "no host"),
        ("https://[::1/", "host or port"),
        ("https://a.example/" + "x" * limits.WEBHOOK_URL_CHARS_MAX, "longer than"),
    ],
)
def test_an_address_that_events_cannot_be_sent_to_says_what_is_wrong(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        target_of(url)
