"""An upload form (multipart/form-data) read piece by piece: fields gathered, the file passed on.

The file may come before or after the fields that say what it is for (protocol.md section
3.1), so its bytes go to the sink at once. Guards: the memory that a form can take is
bounded, whatever it contains.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from lowtide import limits
from lowtide.core.errors import LowtideError

FILE_FIELD: Final = "file"


class Sink(Protocol):
    """The target of the file's bytes."""

    async def write(self, data: bytes) -> None: ...


@dataclass(slots=True)
class UploadForm:
    """The fields of a form; `filename` is as sent, None when the form had no file."""

    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None

    @property
    def has_file(self) -> bool:
        return self.filename is not None


@dataclass(frozen=True, slots=True)
class PartBegin:
    name: str
    filename: str | None


@dataclass(frozen=True, slots=True)
class PartData:
    data: bytes


class FormParser:
    """Bytes in, events out; no I/O. Raises LowtideError `invalid_request`."""

    def __init__(self, boundary: bytes) -> None:
        self._events: list[PartBegin | PartData] = []
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self._parts = 0
        self.complete = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part_begin,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise _malformed(str(error)) from None

    def feed(self, data: bytes) -> list[PartBegin | PartData]:
        """The events that these bytes complete."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _malformed(str(error)) from None
        events, self._events = self._events, []
        return events

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > limits.FORM_PARTS_MAX:
            raise _malformed(f"more than {limits.FORM_PARTS_MAX} parts")
        self._disposition = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def _on_header_end(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = bytes(value)
        self._header = (bytearray(), bytearray())

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise _malformed("a part has no name")
        filename = _extended_filename(self._disposition)
        if filename is None and (plain := options.get(b"filename")) is not None:
            filename = _text(plain)
        self._events.append(PartBegin(_text(options[b"name"]), filename))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._events.append(PartData(data[start:end]))

    def _on_end(self) -> None:
        self.complete = True


async def read_form(
    pieces: AsyncIterator[bytes],
    boundary: bytes,
    open_file: Callable[[], Awaitable[Sink]],
    file_field: str = FILE_FIELD,
    before_file: Callable[[UploadForm], None] = lambda _: None,
) -> UploadForm:
    """Read a whole form. The part named `file_field` goes to what `open_file` gives, if there is
    one. `before_file` sees its name and the fields that came before it, and may refuse the rest.

    Raises LowtideError `invalid_request`, and what the sink raises.
    """
    parser, form = FormParser(boundary), UploadForm()
    sink: Sink | None = None
    name, value = "", bytearray()
    async for piece in pieces:
        for event in parser.feed(piece):
            match event:
                case PartBegin():
                    name, value, sink = event.name, bytearray(), None
                    if name == file_field:
                        if form.has_file:
                            raise _malformed(f"two parts are named {file_field!r}; send one")
                        form.filename = event.filename or ""
                        before_file(form)
                        sink = await open_file()
                    else:
                        form.fields[name] = ""
                case PartData(data) if sink is not None:
                    await sink.write(data)
                case PartData(data):
                    value += data
                    if len(value) > limits.FORM_FIELD_BYTES_MAX:
                        raise _malformed(f"the field {name!r} is too long")
                    form.fields[name] = _text(value)
    if not parser.complete:
        raise _malformed("it ends before its last boundary")
    return form


def boundary_of(content_type: str) -> bytes:
    """The boundary parameter of a multipart content type. Raises LowtideError `invalid_request`."""
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise _malformed("the Content-Type has no boundary")
    return boundary


_QUOTED: Final = re.compile(rb'"(?:\\.|[^"\\])*"')
_EXTENDED: Final = re.compile(rb";\s*filename\*\s*=\s*([\w-]+)'[^';]*'([^;\s]*)", re.IGNORECASE)
_CHARSETS: Final = {b"utf-8": "utf-8", b"iso-8859-1": "latin-1"}


def _extended_filename(disposition: bytes) -> str | None:
    """The value of `filename*` (RFC 8187), which some clients send for names beyond ASCII, and
    which goes before `filename`; None where there is none that can be read.
    """
    matched = _EXTENDED.search(_QUOTED.sub(b'""', disposition))
    charset = _CHARSETS.get(matched[1].lower()) if matched is not None else None
    if matched is None or charset is None:
        return None
    return unquote_to_bytes(matched[2]).decode(charset, "replace")


def _text(raw: bytes | bytearray) -> str:
    return raw.decode("utf-8", "replace")  # the clients send names as raw UTF-8


def _malformed(why: str) -> LowtideError:
    return LowtideError("invalid_request", f"The upload form cannot be read: {why}.")
