"""What a run over a table is going to do, decided before anything is started or sent.

Turns the options into a `TableJob`, or into an error that says what to change: the table is looked
through, templates are compiled against its columns, the columns of the result are settled, and who
answers is known. Nothing here has an effect.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from lowtide import limits
from lowtide.cli.batches.outputs import writable_target
from lowtide.cli.run.run_target import RunBackend, RunTarget, backend_of
from lowtide.cli.tables.table_options import (
    TableOptions,
    read_params,
    read_schema,
    read_text,
    read_types,
)
from lowtide.cli.tables.table_parts import PartFiles
from lowtide.cli.tables.table_state import Part, TableState
from lowtide.cli.terminal.command_errors import CommandError
from lowtide.cli.terminal.counter import delayed_counter
from lowtide.tables import sources
from lowtide.tables.errors import TableError
from lowtide.tables.formats import Format, format_of
from lowtide.tables.prompts import Prompt
from lowtide.tables.reader import Table, open_table
from lowtide.tables.requests import (
    CHAT,
    EMBEDDINGS,
    ENDPOINTS,
    PartBounds,
    RequestTemplate,
    write_part,
)
from lowtide.tables.result_columns import EMBEDDING_SCHEMA, ResultColumns
from lowtide.tables.rows import RowCursor
from lowtide.tables.selection import select_rows
from lowtide.tables.sources import identity_of
from lowtide.tables.unique_ids import first_duplicate
from lowtide.tables.writers import check_writable, result_schema


@contextmanager
def table_errors() -> Iterator[None]:
    """What the tables refuse, as the command line says it."""
    try:
        yield
    except TableError as error:
        raise CommandError(error.message, error.hint, code=error.code) from None


@dataclass(frozen=True, slots=True)
class TableJob:
    """A run over a table, with all that it needs to know. `state`: how it would be recorded
    at its start. `held`: what the folder of the run is named after; beside the output, or
    here for a bucket's.
    """

    table: Table
    numbers: Sequence[int]
    template: RequestTemplate
    columns: ResultColumns
    kind: Format
    output: str
    held: Path
    state: TableState
    backend: RunBackend


def plan_table(
    source: str, output: str, options: TableOptions, target: RunTarget, endpoint: str | None
) -> TableJob:
    """Raises CommandError, ConfigError, typer.BadParameter."""
    if "-" in (source, output):
        raise CommandError(
            "A table is read several times, and its results are written at the end.",
            "Give files instead of -.",
        )
    prompt = read_text(options.prompt, options.prompt_file, "--prompt")
    if prompt is None:
        raise CommandError(
            f"{source} is a table, and nothing says what to ask about its rows.",
            'Give --prompt "... {{ column }} ..." or --prompt-file FILE.',
            code="missing_prompt",
        )
    kind, held = _output_of(output)
    table, numbers = _rows_of(source, options)
    template = _template_of(table, prompt, options, endpoint)
    columns = _columns_of(table, template, options)
    check_writable(kind, result_schema(table, columns))
    _check_ids(table, numbers, options.id_column)
    backend, model = backend_of(target)
    template = replace(template, model=model)
    state = TableState(
        table=source,
        identity=identity_of([file for file, _ in table.files]),
        rows=len(numbers),
        asked=_digests(options, template, prompt),
        server=backend.server,
        model=model,
        requests_max=limits.REQUESTS_PER_BATCH,
        bytes_max=limits.FILE_BYTES,
    )
    return TableJob(table, numbers, template, columns, kind, output, held, state, backend)


def _output_of(output: str) -> tuple[Format, Path]:
    kind = format_of(output)
    if sources.is_bucket(output):
        return kind, writable_target(Path(output.rpartition("/")[2]))
    return kind, writable_target(Path(output))


def _rows_of(source: str, options: TableOptions) -> tuple[Table, Sequence[int]]:
    with delayed_counter(f"reading {source}") as advance:
        table = open_table(source, read_types(options.types), advance)
    numbers = select_rows(table.rows, options.limit, options.sample)
    if not numbers:
        raise CommandError(f"{source} has no rows.", code="empty_table")
    return table, numbers


def _template_of(
    table: Table, prompt: tuple[str, str], options: TableOptions, endpoint: str | None
) -> RequestTemplate:
    if endpoint is not None and endpoint not in ENDPOINTS:
        raise CommandError(
            f"--endpoint {endpoint}: a table is asked with {' or '.join(ENDPOINTS)}."
        )
    names = table.schema.names
    for option, name in (
        ("--image-column", options.image_column),
        ("--id-column", options.id_column),
    ):
        if name is not None and name not in names:
            raise CommandError(
                f"{option} names {name}, and the table has no such column.",
                f"Its columns: {', '.join(names)}",
                code="unknown_column",
            )
    system = read_text(options.system, options.system_file, "--system")
    schema = read_schema(options.schema)
    if endpoint == EMBEDDINGS and (system or schema or options.image_column):
        raise CommandError("Embeddings have no system prompt, no schema and no image.")
    return RequestTemplate(
        model="",
        prompt=Prompt(prompt[0], names, prompt[1]),
        system=Prompt(system[0], names, system[1]) if system else None,
        schema=schema,
        image_column=options.image_column,
        id_column=options.id_column,
        endpoint=endpoint or CHAT,
        params=read_params(options.param or ()),
    )


def _columns_of(table: Table, template: RequestTemplate, options: TableOptions) -> ResultColumns:
    is_embedding = template.endpoint == EMBEDDINGS
    name = options.answer_column or ("embedding" if is_embedding else "answer")
    schema = EMBEDDING_SCHEMA if is_embedding else template.schema
    return ResultColumns(table.schema.names, schema, name, options.prefix)


def _check_ids(table: Table, numbers: Sequence[int], column: str | None) -> None:
    if column is not None and (twice := first_duplicate(table, column, numbers)) is not None:
        raise CommandError(
            f"The column {column} has {twice} in more than one row.",
            "An id names one row; leave --id-column, and rows are told apart by their numbers.",
            code="duplicate_id",
        )


def _digests(
    options: TableOptions, template: RequestTemplate, prompt: tuple[str, str]
) -> dict[str, str]:
    """A digest of each option's value, so that a resumed run can say what has changed."""
    system = read_text(options.system, options.system_file, "--system")
    values: dict[str, Any] = {
        "--prompt": prompt[0],
        "--system": system[0] if system else None,
        "--schema": template.schema,
        "--image-column": options.image_column,
        "--id-column": options.id_column,
        "--endpoint": template.endpoint,
        "--param": template.params,
        "--limit": options.limit,
        "--sample": options.sample,
        "--types": read_types(options.types),
    }
    return {
        name: hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()[:16]
        for name, value in values.items()
    }


class PartWriter:
    """Writes the requests of one part after another, reading the table once as far as it can."""

    def __init__(self, job: TableJob) -> None:
        self._job = job
        self._cursor: RowCursor | None = None
        self._at = (0, 0)  # where the cursor stands, and where it ends

    def __call__(self, first: int, end: int, bounds: PartBounds, files: PartFiles) -> Part:
        job = self._job
        if self._cursor is None or self._at != (first, end):
            self._cursor = RowCursor(job.table, job.template.columns, job.numbers[:end], first)
        with (
            table_errors(),
            files.requests.open("wb") as lines,
            files.index.open("wb") as index,
        ):
            written = write_part(job.template, self._cursor, bounds, lines, index)
            for stream in (lines, index):
                stream.flush()
                os.fsync(stream.fileno())
        self._at = (first + written.rows, end)
        return Part(first=first, rows=written.rows, lines=written.lines)
