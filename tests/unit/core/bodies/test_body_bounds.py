"""core/bodies/body_bounds.py: what one body may cost to read, in lines, flex calls and live
calls."""

from typing import Any

import msgspec
import pytest

from lowtide import limits
from lowtide.core.batches.plan import Plan
from lowtide.core.bodies import body_bounds
from lowtide.core.bodies.body_bounds import BOUNDED_BYTES, body_excess, line_excess
from lowtide.core.errors import LowtideError
from lowtide.core.live.flex import read_flex
from lowtide.core.live.live import read_live
from lowtide.core.validation.rules import ValidationRules
from lowtide.core.validation.validator import ValidationFailure, Validator

CHAT = "/v1/chat/completions"
KNOWN: dict[str, Any] = {"model": "m", "messages": [], "service_tier": "flex"}


def body(fields: int) -> bytes:
    more = {f"x{number}": number for number in range(fields - len(KNOWN))}
    return msgspec.json.encode(KNOWN | more)


def line(raw: bytes) -> bytes:
    return b'{"custom_id":"a","method":"POST","url":"%b","body":%b}\n' % (CHAT.encode(), raw)


def verdict(content: bytes) -> Plan | ValidationFailure:
    validator = Validator(ValidationRules(endpoint=CHAT, dialect="openai"))
    validator.feed(content)
    return validator.finish()


def test_a_body_with_as_many_fields_as_are_allowed_passes_everywhere() -> None:
    whole = body(limits.BODY_FIELDS_MAX)
    assert read_live(CHAT, whole).model == "m"
    assert read_flex(CHAT, whole) is not None
    assert isinstance(verdict(line(whole)), Plan)


def test_one_field_more_is_refused_everywhere() -> None:
    raw = body(limits.BODY_FIELDS_MAX + 1)
    for read in (read_live, read_flex):
        with pytest.raises(LowtideError, match="more than 256 fields") as caught:
            read(CHAT, raw)
        assert caught.value.code == "invalid_request"
    failure = verdict(line(raw))
    assert isinstance(failure, ValidationFailure)
    (error,) = failure.errors
    assert (error.code, error.param) == ("invalid_request", "body")
    assert "more than 256 fields" in error.message


def test_what_has_too_many_fields_is_refused_before_it_is_read_to_its_end() -> None:
    """Reading it would hold the interpreter, for all threads, as long as it is large."""
    raw = body(limits.BODY_FIELDS_MAX + 1)[:-1] + b',"no JSON from here on'
    for read in (read_live, read_flex):
        with pytest.raises(LowtideError, match="more than 256 fields"):
            read(CHAT, raw)
    failure = verdict(line(raw))
    assert isinstance(failure, ValidationFailure)
    assert "more than 256 fields" in failure.errors[0].message


def test_more_values_than_a_prompt_may_have_tokens_are_refused_everywhere() -> None:
    numbers = b"0" + b",0" * (limits.BODY_VALUES_MAX + 1)
    raw = b'{"model":"m","service_tier":"flex","messages":[],"x":[%b]}' % numbers
    for read in (read_live, read_flex):
        with pytest.raises(LowtideError, match="more than 2,000,000 commas"):
            read(CHAT, raw)
    failure = verdict(line(raw))
    assert isinstance(failure, ValidationFailure)
    assert "more than 2,000,000 commas" in failure.errors[0].message


@pytest.mark.parametrize(
    "raw",
    [
        b'{"":0' + b',"":0' * 100_000 + b"}",
        b'{"a":0' + b',"model":"m"' * 100_000,  # and it does not end
        b'{"a" : 0' + b' , "a" : [1]' * 100_000 + b"}",
    ],
)
def test_of_a_hundred_thousand_fields_no_more_are_read_than_are_allowed(
    raw: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    monkeypatch.setattr(
        body_bounds, "_Name", type("_Name", (str,), {"__init__": lambda _, name: read.append(name)})
    )
    assert body_excess(raw) is not None
    assert len(read) <= limits.BODY_FIELDS_MAX


def test_a_bad_line_with_many_fields_is_not_taken_apart() -> None:
    many = b",".join(b'"x%d":1' % number for number in range(1_000))
    failure = verdict(b'{"custom_id":"a",%b}\n' % many)
    assert isinstance(failure, ValidationFailure)
    assert "The line has more than 256 fields" in failure.errors[0].message


def test_many_colons_in_texts_and_nested_objects_are_no_fields() -> None:
    deep = KNOWN | {"x": {str(n): {"y": ":"} for n in range(2_000)}, "messages": [{"a": ":" * 999}]}
    raw = msgspec.json.encode(deep)
    assert body_excess(raw) is None
    assert line_excess(line(raw)) is None
    assert isinstance(verdict(line(raw)), Plan)


def test_more_objects_than_a_reader_should_make_are_refused() -> None:
    objects = b",".join([b"{}"] * (limits.BODY_OBJECTS_MAX + 1))
    raw = b'{"model":"m","messages":[%b]}' % objects
    assert body_excess(raw) == "more than 250,000 opening braces"
    failure = verdict(line(raw))
    assert isinstance(failure, ValidationFailure)
    assert "250,000 opening braces" in failure.errors[0].message


def test_no_body_of_bounded_bytes_has_too_many_fields() -> None:
    raw = b'{"":0' + b',"":0' * limits.BODY_FIELDS_MAX + b"}"
    assert len(raw) > BOUNDED_BYTES
    assert body_excess(raw) == "more than 256 fields at its top level"


def test_what_is_no_object_is_left_to_its_reader() -> None:
    assert body_excess(b"[" + b'":",' * 1_000 + b"]") is None
