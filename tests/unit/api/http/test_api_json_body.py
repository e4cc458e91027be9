"""JSON bodies: bounded, and objects only."""

from collections.abc import Sequence

import pytest
from starlette.requests import Request

from lowtide import limits
from lowtide.api.http.json_body import declared_length, read_bounded, read_json
from lowtide.core.errors import LowtideError


def request(pieces: Sequence[bytes], length: str | None = None) -> Request:
    waiting = list(pieces)

    async def receive() -> dict[str, object]:
        body = waiting.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(waiting)}

    headers = [] if length is None else [(b"content-length", length.encode())]
    return Request({"type": "http", "headers": headers}, receive)


async def test_an_object_is_read_from_pieces_and_nothing_is_an_empty_object() -> None:
    assert await read_json(request([b'{"a"', b": 1}"])) == {"a": 1}
    assert await read_json(request([b" \n"])) == {}


@pytest.mark.parametrize("body", [b"[1]", b"1", b"{", b'"\xff"', b"{'a': 1}"])
async def test_anything_else_is_refused(body: bytes) -> None:
    with pytest.raises(LowtideError) as refused:
        await read_json(request([body]))
    assert refused.value.code == "invalid_request"


async def test_deep_nesting_is_refused_by_name() -> None:
    with pytest.raises(LowtideError, match="nested too deeply") as refused:
        await read_json(request([b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"]))
    assert refused.value.code == "invalid_request"


async def test_a_body_is_refused_before_it_is_held() -> None:
    with pytest.raises(LowtideError) as refused:
        await read_json(request([], str(limits.JSON_BODY_BYTES_MAX + 1)))
    assert refused.value.code == "request_too_large"
    with pytest.raises(LowtideError):
        await read_bounded(request([b"123", b"45"]), 4)
    assert await read_bounded(request([b"12", b"34"]), 4) == b"1234"


@pytest.mark.parametrize(("text", "length"), [("12", 12), ("-1", 0), ("²", 0), ("", 0), ("1_0", 0)])
def test_a_length_that_is_no_number_counts_as_not_told(text: str, length: int) -> None:
    assert declared_length(request([], text)) == length
