"""core/files/file_format.py: files of other kinds are called by their names."""

import gzip
import io
import json
import zipfile

import pytest

from lowtide import limits
from lowtide.core.batches.batch import BatchError
from lowtide.core.batches.plan import Plan
from lowtide.core.files.file_format import recognise
from lowtide.core.validation.rules import ValidationRules
from lowtide.core.validation.validator import ValidationFailure, Validator

CHAT = "/v1/chat/completions"
REQUEST = {
    "custom_id": "a",
    "method": "POST",
    "url": CHAT,
    "body": {"model": "m", "messages": [{"role": "user", "content": "é, 潮"}]},
}
LINE = json.dumps(REQUEST).encode()


def run(data: bytes, block: int = limits.VALIDATE_BLOCK_BYTES) -> Plan | ValidationFailure:
    validator = Validator(ValidationRules(endpoint=CHAT, dialect="openai"))
    for start in range(0, len(data), block):
        validator.feed(data[start : start + block])
    return validator.finish()


def zipped(data: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("in.jsonl", data)
    return stream.getvalue()


OTHERS = {
    "compressed with gzip": gzip.compress(LINE * 100, mtime=0),
    "a ZIP archive": zipped(LINE),
    "compressed with zstd": b"\x28\xb5\x2f\xfd" + b"\x00\x01" * 40,
    "compressed with bzip2": b"BZh91AY&SY" + b"\x9c" * 40,
    "compressed with xz": b"\xfd7zXZ\x00" + b"\x04" * 40,
    "Apache Parquet": b"PAR1" + b"\x15\x04" * 40,
    "text in UTF-16": LINE.decode().encode("utf-16"),
    "UTF-16, not UTF-8": LINE.decode().encode("utf-16-le"),
    "UTF-16, not": LINE.decode().encode("utf-16-be"),
    "text in UTF-32": LINE.decode().encode("utf-32"),
    "HTML or XML": b"<!DOCTYPE html>\n<html>",
    "one JSON array": json.dumps([REQUEST] * 3).encode(),
    "one JSON array, not": b"[\n" + LINE + b",\n" + LINE + b"\n]\n",
    "JSON array, not": json.dumps([REQUEST] * 3, indent=2).encode(),
    "a JSON array": b"[" + LINE + b",\n" + LINE + b"]",
    "indented JSON": json.dumps(REQUEST, indent=2).encode(),
    "indented JSON, not": b'{"custom_id": "a",\n "body": {}}\n',
    "CSV": b"custom_id,prompt\n1,hello\n",
    "CSV, not JSONL": b'"custom id";"prompt"\n"1";"hello"\n',
    "tab-separated text": b"custom_id\tprompt\n1\thello\n",
}


@pytest.mark.parametrize(("name", "data"), OTHERS.items(), ids=list(OTHERS))
def test_a_file_of_another_kind_is_called_by_its_name(name: str, data: bytes) -> None:
    failure = run(data)
    assert isinstance(failure, ValidationFailure)
    (error,) = failure.errors
    assert (error.code, error.line, failure.total_errors) == ("invalid_file_format", 1, 1)
    assert name.removeprefix("a ").partition(",")[0] in error.message


@pytest.mark.parametrize("block", [1, 7, 4095, 4096, 10_000])
def test_how_the_file_is_cut_into_blocks_changes_nothing(block: int) -> None:
    for data in OTHERS.values():
        long = data + b"\n" + LINE * 100
        assert run(data, block) == run(data)
        assert run(long, block) == run(long)


def test_the_line_is_the_first_that_is_not_blank() -> None:
    failure = run(b"\xef\xbb\xbf\n \n" + OTHERS["indented JSON"])
    assert isinstance(failure, ValidationFailure)
    assert failure.errors[0].line == 3


@pytest.mark.parametrize(
    "data",
    [
        LINE,
        b"\xef\xbb\xbf" + LINE,
        b"\n\n" + LINE + b"\n",
        b"",
        b"hello\n" + LINE,
        b"hello, world\n" + LINE,
        b"custom_id,prompt",
        b"[1]\n" + LINE,
        b"[]\n" + LINE,
        b"{\n",
        LINE + b",\n" + LINE + b",\n",
        b'{"custom_id": "cut in the mid\n' + LINE,
        b"{" * 5000,
        b"[" * 5000,
    ],
)
def test_lines_that_could_be_meant_as_requests_are_judged_one_by_one(data: bytes) -> None:
    assert recognise(data[: limits.FORMAT_HEAD_BYTES]) is None
    result = run(data)
    if isinstance(result, ValidationFailure):
        assert "invalid_file_format" not in {error.code for error in result.errors}


def test_a_bom_before_a_good_file_is_passed_over() -> None:
    assert isinstance(run(b"\xef\xbb\xbf" + LINE), Plan)


def test_only_the_beginning_is_looked_at() -> None:
    many = b"[" + b",".join([LINE] * 100) + b"]"
    failure = run(many)
    assert isinstance(failure, ValidationFailure)
    assert isinstance(failure.errors[0], BatchError)
    assert "JSON array" in failure.errors[0].message
