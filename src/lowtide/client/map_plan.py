"""What a call of `lowtide.map` is going to do, decided before anything is started or sent.

Turns the arguments into a `MapJob`, or into an error that says what to change: the template is
compiled against the columns, the columns of the result are settled, who answers is known, and so is
the digest by which the run is found again. Nothing here has an effect.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from lowtide import limits
from lowtide.cli.run.run_target import RunBackend, RunTarget, backend_of
from lowtide.cli.tables.table_parts import PartFiles
from lowtide.cli.tables.table_state import Part, TableState
from lowtide.cli.terminal.command_errors import CommandError
from lowtide.client.answer_schema import AnswerSchema
from lowtide.client.kinds import Rows, rows_of
from lowtide.client.list_rows import ListRows
from lowtide.tables.errors import TableError
from lowtide.tables.json_text import json_bytes
from lowtide.tables.prompts import Prompt
from lowtide.tables.requests import (
    CHAT,
    EMBEDDINGS,
    ENDPOINTS,
    PartBounds,
    RequestTemplate,
    write_part,
)
from lowtide.tables.result_columns import EMBEDDING_SCHEMA, ResultColumns
from lowtide.tables.rows import Row, RowQueue

_SET_BY_US: Final = ("model", "messages", "input", "response_format")
_NAME: Final = "map"  # of the run, where a server's lists and the progress show one


@dataclass(frozen=True, slots=True, kw_only=True)
class MapOptions:
    """The arguments of `lowtide.map`, which says what each means."""

    prompt: str
    model: str | os.PathLike[str] | None = None
    schema: Any = None
    system: str | None = None
    server: str | None = None
    url: str | None = None
    api_key: str | None = None
    params: Mapping[str, Any] | None = None
    image_column: str | None = None
    answer_column: str | None = None
    prefix: str = ""
    endpoint: str | None = None
    window: int | None = None
    fresh: bool = False
    progress: bool = True
    on_error: str = "keep"
    state_dir: str | os.PathLike[str] | None = None
    config_file: str | os.PathLike[str] | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of which rows; no model and no server has a part in it yet."""

    rows: Rows
    schema: AnswerSchema
    columns: ResultColumns
    template: RequestTemplate

    @property
    def gives_objects(self) -> bool:
        """Whether a row's answer is an object of the caller's model rather than columns."""
        return self.schema.model is not None and isinstance(self.rows, ListRows)


@dataclass(frozen=True, slots=True)
class MapJob:
    """A question, and the backend that will answer it. `key`: the digest of its content."""

    rows: Rows
    template: RequestTemplate
    backend: RunBackend
    state: TableState
    key: str


def plan_question(given: Any, options: MapOptions) -> Question:
    """Raises TableError, TypeError, ValueError."""
    if options.on_error not in ("keep", "raise"):
        raise ValueError(f"on_error={options.on_error!r}: it is 'keep' or 'raise'.")
    if not isinstance(options.prompt, str):
        raise TypeError(f"prompt must be text, not {type(options.prompt).__name__}.")
    rows = rows_of(given)
    schema = AnswerSchema(options.schema)
    endpoint = options.endpoint or CHAT
    if endpoint not in ENDPOINTS:
        raise TableError(f"endpoint={endpoint!r}: rows are asked with {' or '.join(ENDPOINTS)}.")
    is_embedding = endpoint == EMBEDDINGS
    if is_embedding and (options.system or options.schema or options.image_column):
        raise TableError("Embeddings have no system prompt, no schema and no image.")
    names = rows.columns if len(rows) or rows.columns else None  # an empty list has none to check
    template = RequestTemplate(
        model="",
        prompt=_prompt(options.prompt, names, "prompt"),
        system=_prompt(options.system, names, "system") if options.system else None,
        schema=schema.json,
        image_column=options.image_column,
        endpoint=endpoint,
        params=_params(options.params),
    )
    if names is not None and options.image_column not in (None, *names):
        raise TableError(
            f"image_column names {options.image_column}, and the rows have no such column.",
            f"Their columns: {', '.join(names)}",
            code="unknown_column",
        )
    has_objects = schema.model is not None and isinstance(rows, ListRows)
    columns = ResultColumns(
        rows.columns,
        EMBEDDING_SCHEMA if is_embedding else None if has_objects else schema.json,
        options.answer_column or ("embedding" if is_embedding else "answer"),
        options.prefix,
    )
    return Question(rows, schema, columns, template)


def _prompt(text: str, names: Any, argument: str) -> Prompt:
    if names is None:
        return Prompt("", (), argument)
    return Prompt(text, names, argument)


def _params(given: Mapping[str, Any] | None) -> Mapping[str, Any]:
    params = dict(given or {})
    for name in _SET_BY_US:
        if name in params:
            raise TableError(
                f"params cannot set {name}: other arguments do (model, prompt, system, schema)."
            )
    try:
        json_bytes(params)
    except (TypeError, ValueError) as error:
        raise TypeError(f"params cannot be sent as JSON: {error}") from None
    return params


def plan_map(question: Question, options: MapOptions) -> MapJob:
    """Decide who answers, and find out the run's digest. Raises CommandError, ConfigError."""
    target = _target(options)
    backend, model = backend_of(target)
    template = replace(question.template, model=model)
    asked = _digests(template, target)
    identity = _identity(question.rows, template)
    state = TableState(
        table=_NAME,
        identity=identity,
        rows=len(question.rows),
        asked=asked,
        server=backend.server,
        model=model,
        requests_max=limits.REQUESTS_PER_BATCH,
        bytes_max=limits.FILE_BYTES,
    )
    key = _digest([identity, len(question.rows), asked, backend.server, model])[:32]
    return MapJob(question.rows, template, backend, state, key)


def _target(options: MapOptions) -> RunTarget:
    if options.url is not None and options.server is not None:
        raise CommandError("url= and server= exclude each other.")
    if options.window is not None and (options.server is not None or options.window < 1):
        raise CommandError("window= is 1 or more, and goes with url= or a model of your own.")
    config_file = options.config_file
    return RunTarget(
        model=os.fspath(options.model) if options.model is not None else None,
        url=options.url,
        server=options.server,
        window=options.window,
        config_file=Path(config_file) if config_file is not None else None,
        api_key=options.api_key or os.environ.get("LOWTIDE_API_KEY") or None,
    )


def _digests(template: RequestTemplate, target: RunTarget) -> dict[str, str]:
    """A digest of each argument. `window` and keys are left out: they change neither the
    question nor who answers it.
    """
    values: dict[str, Any] = {
        "prompt": template.prompt.text,
        "system": template.system.text if template.system else None,
        "schema": template.schema,
        "image_column": template.image_column,
        "endpoint": template.endpoint,
        "params": template.params,
        "model": target.model,
        "url": target.url,
    }
    return {name: _digest(value)[:16] for name, value in values.items()}


def _digest(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="sorted", enc_hook=str)).hexdigest()


def _identity(rows: Rows, template: RequestTemplate) -> str:
    """SHA-256 in hex over what the requests are made of, row by row."""
    digest = hashlib.sha256()
    names = [name for name in rows.columns if name in template.columns]
    for values in rows.values(names, 0):
        try:
            digest.update(json_bytes(values))
        except (TypeError, ValueError):  # keys that are no text, half a surrogate pair
            digest.update(repr(values).encode(errors="surrogatepass"))
        digest.update(b"\n")
    return digest.hexdigest()


class MemoryPartWriter:
    """Writes the requests of one part after another, from rows in memory."""

    def __init__(self, job: MapJob) -> None:
        self._job = job
        self._names = [name for name in job.rows.columns if name in job.template.columns]
        self._queue: RowQueue | None = None
        self._at = (0, 0)  # where the queue stands, and where it ends

    def __call__(self, first: int, end: int, bounds: PartBounds, files: PartFiles) -> Part:
        if self._queue is None or self._at != (first, end):
            self._queue = RowQueue(self._rows(first, end))
        with files.requests.open("wb") as lines, files.index.open("wb") as index:
            written = write_part(self._job.template, self._queue, bounds, lines, index)
            for stream in (lines, index):
                stream.flush()
                os.fsync(stream.fileno())
        self._at = (first + written.rows, end)
        return Part(first=first, rows=written.rows, lines=written.lines)

    def _rows(self, first: int, end: int) -> Iterator[Row]:
        here = Path.cwd()  # where relative paths of images start
        values = self._job.rows.values(self._names, first)
        for number, row in zip(range(first, end), values, strict=False):
            yield Row(number, row, here)
