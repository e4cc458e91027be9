"""Upload forms, cut anywhere by the network."""

from collections.abc import AsyncIterator, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide import limits
from lowtide.api.http.multipart_form import UploadForm, boundary_of, read_form
from lowtide.core.errors import LowtideError

EDGE = b"--edge"


class Gathered:
    """A sink in memory."""

    def __init__(self) -> None:
        self.data = b""

    async def write(self, data: bytes) -> None:
        self.data += data


async def in_pieces(pieces: Sequence[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def read(pieces: Sequence[bytes]) -> tuple[UploadForm, bytes | None]:
    """The form, and the bytes of its file; None when no file was opened."""
    opened: list[Gathered] = []

    async def open_file() -> Gathered:
        opened.append(Gathered())
        return opened[-1]

    form = await read_form(in_pieces(pieces), EDGE[2:], open_file)
    return form, opened[0].data if opened else None


def part(name: str, data: bytes, filename: str | None = None) -> bytes:
    named = "" if filename is None else f'; filename="{filename}"'
    head = f'Content-Disposition: form-data; name="{name}"{named}\r\nContent-Type: a/b\r\n\r\n'
    return EDGE + b"\r\n" + head.encode() + data + b"\r\n"


END = EDGE + b"--\r\n"


async def test_fields_and_file_come_in_any_order() -> None:
    parts = [part("purpose", b"batch"), part("file", b"data", "x.jsonl")]
    for order in (parts, parts[::-1]):
        form, data = await read([b"".join(order) + END])
        assert (form.fields, form.filename, data) == ({"purpose": "batch"}, "x.jsonl", b"data")


@given(
    data=st.binary(max_size=200) | st.sampled_from([b"\r\n--edg", b"\r\n--edgx\r\n", b"\r\n--"]),
    cuts=st.lists(st.integers(0, 400), max_size=20),
)
async def test_where_the_network_cuts_a_form_makes_no_difference(
    data: bytes, cuts: list[int]
) -> None:
    if b"\r\n--edge" in data:
        return
    body = part("file", data, "näme") + part("a", "wört".encode()) + part("b", b"") + END
    places = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    pieces = [body[start:end] for start, end in pairwise(places)]
    form, got = await read(pieces)
    assert got == data
    assert form.filename == "näme"
    assert form.fields == {"a": "wört", "b": ""}


@pytest.mark.parametrize(
    ("disposition", "filename"),
    [
        ("filename*=UTF-8''na%C3%AFve.jsonl", "naïve.jsonl"),
        ("filename=\"plain.jsonl\"; filename*=utf-8'en'na%C3%AFve.jsonl", "naïve.jsonl"),
        ("filename*=iso-8859-1''%A3.jsonl; filename=plain", "£.jsonl"),
        ("filename*=utf-8''%FF.jsonl", "\N{REPLACEMENT CHARACTER}.jsonl"),
        ("filename=\"plain.jsonl\"; filename*=klingon''x", "plain.jsonl"),
        ("filename=\"a; filename*=utf-8''b\"", "a; filename*=utf-8''b"),
    ],
)
async def test_an_extended_filename_goes_before_the_plain_one(
    disposition: str, filename: str
) -> None:
    head = f'--edge\r\nContent-Disposition: form-data; name="file"; {disposition}\r\n\r\n'
    form, data = await read([head.encode() + b"x\r\n" + END])
    assert (form.filename, data) == (filename, b"x")


async def test_a_file_without_a_name_is_a_file_and_no_file_opens_nothing() -> None:
    form, data = await read([part("file", b"x") + END])
    assert (form.filename, data) == ("", b"x")
    form, data = await read([part("file_name", b"x") + END])
    assert (form.has_file, data) == (False, None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        part("file", b"x", "a"),
        part("file", b"x", "a") + part("file", b"y", "b") + END,
        EDGE + b"\r\n\r\nno name\r\n" + END,
        EDGE + b"\r\nX: " + b"y" * 10_000 + b"\r\n\r\n" + END,
        EDGE + b"\r\n" + b"X: y\r\n" * 100 + b"\r\n" + END,
        part("field", b"x" * (limits.FORM_FIELD_BYTES_MAX + 1)) + END,
        b"".join(part(f"n{n}", b"") for n in range(limits.FORM_PARTS_MAX + 1)) + END,
    ],
)
async def test_what_cannot_be_read_or_held_is_refused(body: bytes) -> None:
    with pytest.raises(LowtideError) as refused:
        await read([body])
    assert refused.value.code == "invalid_request"


def test_the_boundary_is_read_plain_or_quoted() -> None:
    assert boundary_of("multipart/form-data; boundary=abc") == b"abc"
    assert boundary_of('multipart/form-data; charset=x; boundary="a;b"') == b"a;b"
    with pytest.raises(LowtideError):
        boundary_of("multipart/form-data")
