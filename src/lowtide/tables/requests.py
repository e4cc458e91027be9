"""Makes a request line of a row, and of a run of rows a file that fits a server's limits.

Invariant: a row always gives the same line, and rows go to lines in their order; a row that cannot
be made into a request takes no line and has a fault instead.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from lowtide.limits import CUSTOM_ID_CHARS_MAX, LINE_BYTES_MAX
from lowtide.tables.images import image_url
from lowtide.tables.json_text import json_bytes
from lowtide.tables.prompts import Prompt, RowFault
from lowtide.tables.rows import RowQueue

CHAT: Final = "/v1/chat/completions"
EMBEDDINGS: Final = "/v1/embeddings"
ENDPOINTS: Final = (CHAT, EMBEDDINGS)


@dataclass(frozen=True, slots=True)
class RequestTemplate:
    """What every row's request is made of. `params` are members of each body as they stand."""

    model: str
    prompt: Prompt
    system: Prompt | None = None
    schema: Mapping[str, Any] | None = None
    image_column: str | None = None
    id_column: str | None = None
    endpoint: str = CHAT
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def columns(self) -> frozenset[str]:
        """The columns that are read to make requests."""
        named = {name for name in (self.image_column, self.id_column) if name is not None}
        return self.prompt.columns | (self.system.columns if self.system else frozenset()) | named


def custom_id(template: RequestTemplate, row: Mapping[str, Any], number: int) -> str:
    """The line's id: the id column's value, else the row's number from 1. Raises RowFault."""
    if template.id_column is None:
        return f"row-{number + 1}"
    value = row[template.id_column]
    if value is None or value == "":
        raise RowFault(f"The row has no id in the column {template.id_column}.")
    text = str(value)
    if len(text) > CUSTOM_ID_CHARS_MAX:
        raise RowFault(f"The id has more than {CUSTOM_ID_CHARS_MAX} characters.")
    return text


def request_line(
    template: RequestTemplate, row: Mapping[str, Any], number: int, folder: Path | None
) -> bytes:
    """The line for row `number` (from 0), with its end. `folder`: where image paths start.

    Raises RowFault.
    """
    request = {
        "custom_id": custom_id(template, row, number),
        "method": "POST",
        "url": template.endpoint,
        "body": _body(template, row, folder),
    }
    try:
        line = json_bytes(request)
    except UnicodeEncodeError:  # half of a surrogate pair, which Python's own text can hold
        raise RowFault("The request has text that is no Unicode, and cannot be sent.") from None
    if len(line) >= LINE_BYTES_MAX:
        raise RowFault(f"The request has {len(line):,} bytes; {LINE_BYTES_MAX:,} is the most.")
    return line + b"\n"


def _body(template: RequestTemplate, row: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    text = template.prompt.render(row)
    if template.endpoint == EMBEDDINGS:
        return {"model": template.model, "input": text, **template.params}
    content: Any = text
    if template.image_column is not None:
        url = image_url(row[template.image_column], folder)
        if url is not None:
            image = {"type": "image_url", "image_url": {"url": url}}
            content = [{"type": "text", "text": text}, image]
    messages = [{"role": "user", "content": content}]
    if template.system is not None:
        messages.insert(0, {"role": "system", "content": template.system.render(row)})
    body: dict[str, Any] = {"model": template.model, "messages": messages}
    if template.schema is not None:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": template.schema},
        }
    return body | dict(template.params)


class PartBounds(msgspec.Struct, frozen=True):
    """What one batch may hold."""

    requests: int
    bytes: int


class WrittenPart(msgspec.Struct, frozen=True):
    """A file of requests: how many rows it took, how many of them became lines, and its bytes."""

    rows: int
    lines: int
    bytes: int


class RowIndexEntry(msgspec.Struct, frozen=True, array_like=True):
    """A row of a part: its number in the table, and the id of its line or why it has none."""

    number: int
    custom_id: str | None
    fault: str | None


def write_part(
    template: RequestTemplate,
    rows: RowQueue,
    bounds: PartBounds,
    lines: BinaryIO,
    index: BinaryIO,
) -> WrittenPart:
    """Writes request lines until a bound is reached or the rows end, and an entry of the index for
    each row taken. A row that alone passes the bound on bytes is written all the same, alone: what
    it meets is said by the server."""
    taken = written = size = 0
    while (written < bounds.requests) and (row := rows.next()) is not None:
        try:
            line = request_line(template, row.values, row.number, row.folder)
        except RowFault as fault:
            entry = RowIndexEntry(row.number, None, str(fault))
        else:
            if written and size + len(line) > bounds.bytes:
                rows.put_back(row)
                break
            lines.write(line)
            written, size = written + 1, size + len(line)
            entry = RowIndexEntry(row.number, custom_id(template, row.values, row.number), None)
        index.write(json_bytes(entry) + b"\n")
        taken += 1
    return WrittenPart(taken, written, size)


_entry: Final = msgspec.json.Decoder(RowIndexEntry)


def read_index(stream: BinaryIO) -> Iterator[RowIndexEntry]:
    """What `write_part` noted, in the order of rows."""
    return map(_entry.decode, stream)
