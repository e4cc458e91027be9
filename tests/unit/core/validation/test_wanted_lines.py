"""A plan over some lines of a file, and on another model than its lines name."""

from collections.abc import Sequence

import numpy as np
import pytest

from lowtide.core.batches.plan import Plan, unpack_entries
from lowtide.core.validation.rules import ValidationRules
from lowtide.core.validation.validator import ValidationFailure, Validator

MODELS = {"m": "m", "alias": "m", "n": "n"}


def content(count: int, model: str = "m") -> bytes:
    return b"".join(
        b'{"custom_id":"r-%d","method":"POST","url":"/v1/chat/completions","body":{"model":"%b",'
        b'"messages":[]}}\n' % (line, model.encode())
        for line in range(1, count + 1)
    )


def rules(wanted: Sequence[int] | None = None, override: str | None = None) -> ValidationRules:
    return ValidationRules(
        endpoint="/v1/chat/completions",
        dialect="openai",
        models=MODELS,
        wanted=None if wanted is None else np.array(wanted, np.uint32),
        model_override=override,
    )


def plan_of(data: bytes, rules: ValidationRules, block: int = 1 << 20) -> Plan:
    validator = Validator(rules)
    for start in range(0, len(data), block):
        validator.feed(data[start : start + block])
    found = validator.finish()
    assert isinstance(found, Plan), found
    return found


@pytest.mark.parametrize("block", [7, 100, 1 << 20])
def test_only_the_wanted_lines_are_planned_where_they_lie(block: int) -> None:
    data = content(50)
    whole = {entry.line: entry for entry in unpack_entries(plan_of(data, rules()).data)}
    some = unpack_entries(plan_of(data, rules([3, 17, 50]), block).data)
    assert some == [whole[3], whole[17], whole[50]]


def test_a_bad_line_that_is_not_wanted_does_no_harm() -> None:
    data = content(3) + b"{bad\n" + content(1).replace(b"r-1", b"r-5")
    assert plan_of(data, rules([1, 5])).requests == 2


def test_nothing_behind_the_last_wanted_line_is_asked_for() -> None:
    validator = Validator(rules([2]))
    validator.feed(content(1))
    assert not validator.is_decided
    validator.feed(content(1).replace(b"r-1", b"r-2"))
    assert validator.is_decided
    assert isinstance(validator.finish(), Plan)


def test_many_lines_that_are_passed_over_are_not_taken_for_blank_ones() -> None:
    data = b"\n" * 400_000 + content(1)
    everything = Validator(rules())
    everything.feed(data)
    assert isinstance(everything.finish(), ValidationFailure)
    assert plan_of(data, rules([400_001])).requests == 1


def test_an_override_takes_all_lines_and_counts_those_that_name_another_model() -> None:
    data = content(2) + content(1, "alias").replace(b"r-1", b"r-3")
    data += content(1, "gone").replace(b"r-1", b"r-4")
    found = plan_of(data, rules(override="n"))
    assert {model: share.requests for model, share in found.models.items()} == {"n": 4}
    (warning,) = found.warnings
    assert (warning.code, warning.message.split(" name")[0]) == ("model_overridden", "4 lines")


def test_an_override_by_the_same_model_says_nothing() -> None:
    assert plan_of(content(2, "alias"), rules(override="m")).warnings == ()


def test_with_an_override_a_line_may_leave_its_model_out() -> None:
    data = content(2).replace(b'"model":"m",', b"")
    without = Validator(rules())
    without.feed(data)
    assert isinstance(without.finish(), ValidationFailure)
    found = plan_of(data, rules(override="n"))
    assert (found.requests, found.warnings) == (2, ())


def test_an_override_that_is_not_served_fails_the_batch_in_one_sentence() -> None:
    validator = Validator(rules(override="gone"))
    assert validator.is_decided
    validator.feed(content(3))
    found = validator.finish()
    assert isinstance(found, ValidationFailure)
    assert [error.code for error in found.errors] == ["model_not_found"]
    assert "'gone' is not available" in found.errors[0].message


def test_other_errors_of_a_line_are_told_under_an_override() -> None:
    validator = Validator(rules(override="n"))
    validator.feed(content(1, "gone").replace(b'"messages":[]', b'"prompt":"x"'))
    found = validator.finish()
    assert isinstance(found, ValidationFailure)
    assert found.errors[0].param == "body.messages"
