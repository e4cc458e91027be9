"""core/files/upload.py: the states of an upload, and the choice of its parts."""

from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest

from lowtide import limits
from lowtide.core.errors import LowtideError
from lowtide.core.files.upload import (
    TRANSITIONS,
    Choice,
    IllegalUploadTransition,
    Upload,
    UploadEvent,
    UploadPart,
    UploadStatus,
    choose_parts,
    closed,
    step,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def upload(**rest: Any) -> Upload:
    values = {
        "id": "upload_1",
        "project_id": "p",
        "file_id": "file-1",
        "purpose": "batch",
        "filename": "x",
        "bytes": 10,
        "file_ttl_s": 60,
        "created_at": NOON,
        "expires_at": NOON + timedelta(hours=1),
    }
    return Upload(**(values | rest))


def part(id: str, size: int = 5, number: int | None = None) -> UploadPart:
    return UploadPart(
        id=id,
        upload_id="upload_1",
        number=number,
        bytes=size,
        md5=f"{id}5",
        blob_key=id,
        created_at=NOON,
    )


def refusal(one: Upload, parts: list[UploadPart], choice: Choice) -> str:
    with pytest.raises(LowtideError) as caught:
        choose_parts(one, parts, choice)
    assert caught.value.code == "invalid_request"
    return caught.value.message


def test_only_a_pending_upload_can_end_and_it_can_end_in_three_ways() -> None:
    assert set(TRANSITIONS) == set(get_args(UploadStatus))
    assert {state for state, row in TRANSITIONS.items() if row} == {"pending"}
    assert {step("pending", event) for event in get_args(UploadEvent)} == set(TRANSITIONS) - {
        "pending"
    }
    with pytest.raises(IllegalUploadTransition, match="completed cannot take the event cancel"):
        step("completed", "cancel")


def test_parts_named_by_id_come_in_the_order_of_the_names() -> None:
    parts = [part("a"), part("b"), part("unused")]
    assert choose_parts(upload(), parts, Choice(ids=("b", "a"))) == [parts[1], parts[0]]


def test_parts_named_by_number_come_in_the_order_of_the_numbers() -> None:
    parts = [part("b", number=2), part("a", number=1)]
    choice = Choice(numbers=((2, '"B5"'), (1, "a5")))
    assert choose_parts(upload(parts=2), parts, choice) == [parts[1], parts[0]]


@pytest.mark.parametrize(
    ("choice", "why"),
    [
        (Choice(ids=("a", "x")), "'x' is no part"),
        (Choice(ids=("a", "a")), "named twice"),
        (Choice(ids=("a",)), "5 bytes together"),
        (Choice(), "0 bytes together"),
    ],
)
def test_a_choice_of_ids_that_makes_no_whole_is_refused(choice: Choice, why: str) -> None:
    assert why in refusal(upload(), [part("a"), part("b")], choice)


@pytest.mark.parametrize(
    ("numbers", "why"),
    [
        (((1, "a5"),), "each of 1 to 2"),
        (((1, "a5"), (1, "a5")), "each of 1 to 2"),
        (((1, "a5"), (3, "b5")), "each of 1 to 2"),
        (((1, "b5"), (2, "b5")), "Part 1"),
        (((1, "a5"), (2, "c5")), "Part 2"),
    ],
)
def test_a_choice_of_numbers_that_makes_no_whole_is_refused(
    numbers: tuple[tuple[int, str], ...], why: str
) -> None:
    parts = [part("a", number=1), part("b", number=2)]
    assert why in refusal(upload(parts=2), parts, Choice(numbers=numbers))


def test_a_numbered_part_that_never_came_is_named() -> None:
    choice = Choice(numbers=((1, "a5"), (2, "b5")))
    assert "Part 2" in refusal(upload(parts=2), [part("a", number=1)], choice)


def test_there_is_room_for_parts_that_are_sent_again_where_they_are_not_numbered() -> None:
    assert upload(parts=3).room == 10
    assert upload().room == 10 + limits.UPLOAD_PART_BYTES_MAX
    large = 3 * limits.UPLOAD_PART_BYTES_MAX
    assert upload(bytes=large).room == 2 * large


def test_two_choices_have_one_digest_only_when_they_are_the_same() -> None:
    choices = [
        Choice(ids=("a", "b")),
        Choice(ids=("b", "a")),
        Choice(ids=("a", "b"), md5="m"),
        Choice(numbers=((1, "a"),)),
    ]
    assert len({choice.digest for choice in choices}) == 4
    assert Choice(ids=("a", "b")).digest == choices[0].digest


def test_what_has_ended_says_how() -> None:
    assert closed(upload(), NOON) is None
    over = closed(upload(), NOON + timedelta(hours=1))
    assert over is not None
    assert over.code == "upload_expired"
    for status, word in (("completed", "file-1"), ("cancelled", "cancelled")):
        refused = closed(upload(status=status), NOON + timedelta(hours=2))
        assert refused is not None
        assert refused.code == "upload_closed"
        assert word in refused.message
    assert upload(completion_expires_at=NOON).is_completing(NOON) is False
    assert upload(completion_expires_at=NOON + timedelta(seconds=1)).is_completing(NOON)
