"""Who asks: where a key is looked for."""

import pytest
from starlette.requests import Request

from lowtide.api.middleware.caller import credential


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({}, None),
        ({"authorization": "Bearer abc"}, "abc"),
        ({"authorization": "bearer  abc "}, "abc"),
        ({"authorization": "Basic abc"}, None),
        ({"authorization": "Bearer "}, None),
        ({"x-api-key": "abc"}, "abc"),
        ({"authorization": "Bearer abc", "x-api-key": "other"}, "abc"),
        ({"authorization": "Basic x", "x-api-key": "abc"}, "abc"),
    ],
)
def test_a_key_is_read_from_either_header(headers: dict[str, str], key: str | None) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert credential(Request({"type": "http", "headers": raw})) == key
