"""The options of `lowtide run` that make it a run over the rows of a table, and when it is one."""

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from lowtide.cli.terminal.command_errors import CommandError
from lowtide.core.files.table_name import is_table_name

_PANEL = "Tables: rows in, rows out (needs lowtide[tables])"


def _option(help_text: str, *names: str, metavar: str | None = None, **more: Any) -> Any:
    return typer.Option(*names, help=help_text, metavar=metavar, rich_help_panel=_PANEL, **more)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableOptions:
    """The options as given; `with_table_options` makes them those of a command."""

    prompt: Annotated[
        str | None,
        _option("What to ask about each row; {{ column }} is its value.", metavar="TEXT"),
    ] = None
    prompt_file: Annotated[
        Path | None, _option("The same from a file (Jinja2).", metavar="FILE")
    ] = None
    system: Annotated[str | None, _option("System prompt, of the same kind.", metavar="TEXT")] = (
        None
    )
    system_file: Annotated[Path | None, _option("The same from a file.", metavar="FILE")] = None
    schema: Annotated[
        Path | None,
        _option("JSON schema of the answer; its fields become columns.", metavar="FILE"),
    ] = None
    image_column: Annotated[
        str | None, _option("The column with an image: path, URL or bytes.", metavar="NAME")
    ] = None
    id_column: Annotated[
        str | None, _option("The column to take custom_id from.", metavar="NAME")
    ] = None
    limit: Annotated[int | None, _option("Only the first rows.", min=1)] = None
    sample: Annotated[int | None, _option("Only so many rows, drawn evenly.", min=1)] = None
    types: Annotated[
        str | None,
        _option(
            "Types of CSV columns: text (default), int, float, bool, date, timestamp.",
            metavar="NAME=TYPE,...",
        ),
    ] = None
    param: Annotated[
        list[str] | None,
        _option("A field of every request, for example max_tokens=64.", metavar="NAME=VALUE"),
    ] = None
    answer_column: Annotated[
        str | None, _option("Where the answer goes. Default: answer", metavar="NAME")
    ] = None
    prefix: Annotated[
        str, _option("Stands before the name of each new column.", metavar="TEXT")
    ] = ""
    dry_run: Annotated[
        bool, _option("Show the first requests, tokens and price; run nothing.", "--dry-run")
    ] = False

    @property
    def is_used(self) -> bool:
        """Whether one of them was given."""
        return any(getattr(self, field.name) != field.default for field in fields(self))


def with_table_options(function: Callable[..., None]) -> Callable[..., None]:
    """Makes a command whose parameter `options`, a TableOptions, stands for an option for each."""
    signature = inspect.signature(function)
    each_option = [
        inspect.Parameter(
            each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=each.type
        )
        for each in fields(TableOptions)
    ]

    @functools.wraps(function)
    def command(**given: Any) -> None:
        options = TableOptions(**{each.name: given.pop(each.name) for each in each_option})
        function(**given, options=options)

    parameters: list[inspect.Parameter] = []
    for name, each in signature.parameters.items():
        is_one = name != "options"
        parameters += [each.replace(kind=each.KEYWORD_ONLY)] if is_one else each_option
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command


def is_table(source: str, options: TableOptions) -> bool:
    """Whether a run is over rows rather than over lines that are requests."""
    is_bucket = source.startswith(("s3://", "gs://"))
    is_rows = source.lower().endswith(".ndjson")  # .jsonl may be requests: a prompt tells
    return options.is_used or is_bucket or is_rows or is_table_name(source)


def require_tables() -> None:
    """Raises CommandError where the extra is not installed."""
    try:
        import jinja2  # noqa: F401
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise CommandError(
            f"Tables need the extra `tables` ({error.name} is not installed).",
            "pip install 'lowtide[tables]'",
            code="missing_extra",
        ) from None


def read_types(text: str | None) -> dict[str, str]:
    """`--types`: by column, the word for its type. Raises CommandError."""
    from lowtide.tables.csv_rows import TYPES

    types: dict[str, str] = {}
    for pair in (text or "").split(","):
        if not pair.strip():
            continue
        name, equals, kind = (part.strip() for part in pair.rpartition("="))
        if not equals or kind not in TYPES:
            raise CommandError(
                f"--types: {pair.strip()!r} is no NAME=TYPE.", f"Types: {', '.join(TYPES)}"
            )
        types[name] = kind
    return types


def read_params(pairs: Sequence[str]) -> dict[str, Any]:
    """`--param`: values are JSON, or text where they are none. Raises CommandError."""
    params: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.strip():
            raise CommandError(
                f"--param {pair!r} is no NAME=VALUE.", "For example: --param max_tokens=64"
            )
        if name.strip() in ("model", "messages", "input"):
            raise CommandError(
                f"--param cannot set {name.strip()}.", "It comes from --model and --prompt."
            )
        try:
            params[name.strip()] = msgspec.json.decode(text)
        except msgspec.DecodeError:
            params[name.strip()] = text
    return params


def read_text(text: str | None, path: Path | None, option: str) -> tuple[str, str] | None:
    """A prompt and the option that it came by; None where neither is given. Raises CommandError."""
    if text is not None and path is not None:
        raise CommandError(f"{option} and {option}-file exclude each other.")
    if path is None:
        return None if text is None else (text, option)
    try:
        return path.read_text(encoding="utf-8"), f"{option}-file {path}"
    except UnicodeDecodeError:
        raise CommandError(f"{path} is no UTF-8 text.") from None


def read_schema(path: Path | None) -> dict[str, Any] | None:
    """`--schema`. Raises CommandError."""
    if path is None:
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CommandError(
            f"{path} is no JSON object: {error}.",
            "It must hold one JSON schema.",
            code="bad_schema",
        ) from None
