"""The table of statuses, and the one envelope."""

import json
from typing import get_args

import pytest
from starlette.requests import ClientDisconnect

from lowtide.api.http.errors import STATUS_OF, as_lowtide_error, envelope, error_response
from lowtide.core.errors import ErrorCode, LowtideError
from lowtide.ports.blobs import BlobNotFound, BlobsFull, BlobsUnavailable
from lowtide.ports.store import StoreFull, StoreUnavailable


def test_every_code_has_a_status() -> None:
    assert set(STATUS_OF) == set(get_args(ErrorCode))
    assert all(400 <= status < 600 for status in STATUS_OF.values())


@pytest.mark.parametrize("code", get_args(ErrorCode))
def test_every_code_makes_an_envelope(code: ErrorCode) -> None:
    response = error_response(LowtideError(code, "why", "param"))
    assert response.headers["content-type"] == "application/json"
    error = json.loads(bytes(response.body))["error"]
    assert error == {"message": "why", "type": error["type"], "param": "param", "code": code}
    types = ("invalid_request_error", "authentication_error", "rate_limit_error", "server_error")
    assert error["type"] in types
    assert (error["type"] == "server_error") is (response.status_code >= 500)


def test_what_no_retry_can_mend_is_not_retried() -> None:
    assert envelope(409, "m", None).headers["x-should-retry"] == "false"
    assert envelope(507, "m", None).headers["x-should-retry"] == "false"
    assert "x-should-retry" not in envelope(503, "m", None).headers
    assert 0 < int(envelope(503, "m", None).headers["retry-after"]) <= 60


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StoreFull(), "storage_full"),
        (BlobsFull(), "storage_full"),
        (StoreUnavailable(), "storage_unavailable"),
        (BlobsUnavailable(), "storage_unavailable"),
        (BlobNotFound(), "file_not_found"),
        (ClientDisconnect(), "upload_interrupted"),
        (LowtideError("not_found", "m"), "not_found"),
    ],
)
def test_failures_of_the_ports_have_a_code(error: Exception, code: str) -> None:
    known = as_lowtide_error(error)
    assert known is not None
    assert known.code == code


def test_a_mistake_of_ours_has_none() -> None:
    assert as_lowtide_error(KeyError("x")) is None
