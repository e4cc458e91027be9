"""What tenants read names no address and no path."""

import pytest

from lowtide.core.reporting.public_text import without_places


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("not to gpu-17.corp.invalid:8000: refused", "not to (address): refused"),
        ("https://bob:hunter2@llm.example.org/v1: away", "(address) away"),
        ("postgresql://u:p@db/x refuses us", "(address) refuses us"),
        ("connect to 10.1.2.3:8000 timed out", "connect to (address) timed out"),
        ("connect to 10.1.2.3 timed out", "connect to (address) timed out"),
        ("Connect call failed ('127.0.0.1', 9)", "Connect call failed (address)"),
        ("Connect call failed ('::1', 9, 0, 0)", "Connect call failed (address)"),
        ("no route to [fe80::1]:8000", "no route to (address)"),
        ("no route to fe80::1", "no route to (address)"),
        ("localhost:8000 refused", "(address) refused"),
        ("engine_1:8000 refused", "(address) refused"),
        ("Not a directory: '/srv/lowtide/blobs/x'", "Not a directory: '(address)'"),
        ("cannot write ~/data/x, disk full", "cannot write (address), disk full"),
        (r"cannot write C:\data\x", "cannot write (address)"),
    ],
)
def test_addresses_and_paths_are_taken_out(said: str, shown: str) -> None:
    assert without_places(said) == shown


@pytest.mark.parametrize(
    "said",
    [
        "the engine answered 503",
        "no complete answer within 2.5 s",
        "live load 82 %",
        "connection refused (errno 111)",
        "model llama-3.1-8b is loading",
        "the engine answered 429: You exceeded your current quota, please wait 10 s.",
        "4 of 10 and/or more",
        "at 12:30:45 UTC, or at 12:30",
        "std::bad_alloc in worker 3",
        "Qwen/Qwen2.5-7B has 128k tokens; 1/2 of them",
    ],
)
def test_words_about_the_fault_stay(said: str) -> None:
    assert without_places(said) == said
