"""Signatures: those of the Standard Webhooks specification, and what the openai package takes."""

import json
import time
from datetime import UTC, datetime

import openai
import pytest

from lowtide.core.webhooks.signature import secret_of, signed_headers

# The example of the specification and its reference libraries.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE = "msg_p5jXN8AQM9LWM0D4loKWxJek"
STAMP = datetime.fromtimestamp(1614265330, UTC)
BODY = b'{"test": 2432232314}'


def test_the_example_of_the_specification_is_signed_as_it_says() -> None:
    assert signed_headers(MESSAGE, BODY, STAMP, [SECRET]) == {
        "webhook-id": MESSAGE,
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_each_valid_secret_signs_so_that_a_rotation_breaks_nobody() -> None:
    old, new = secret_of(b"o" * 32), secret_of(b"n" * 32)
    now = datetime.fromtimestamp(int(time.time()), UTC)
    body = json.dumps({"id": "evt_1", "type": "batch.completed", "data": {"id": "b"}}).encode()
    headers = signed_headers("evt_1", body, now, [new, old])
    client = openai.OpenAI(api_key="-", base_url="http://127.0.0.1:1")
    for secret in (old, new):
        event = client.webhooks.unwrap(body, headers, secret=secret)
        assert (event.type, event.data.id) == ("batch.completed", "b")  # type: ignore[union-attr]
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.unwrap(body, headers, secret=secret_of(b"x" * 32))
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.unwrap(body + b" ", headers, secret=new)


def test_nothing_is_sent_unsigned() -> None:
    with pytest.raises(ValueError, match="no secret"):
        signed_headers(MESSAGE, BODY, STAMP, [])
