"""`lowtide.map` and `lowtide.amap`: one request for each row of a table, the answers beside it.

Public; exported by `lowtide`. The work is done in `map_run`.
"""

import inspect
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, Unpack, overload

from lowtide.client.errors import RowsFailed, in_python, translated

if TYPE_CHECKING:
    from pydantic import BaseModel

    from lowtide.client.stopping import ThreadStop

_Table = TypeVar("_Table")
_StrPath = str | os.PathLike[str]


class MapArguments(TypedDict, total=False):
    """The arguments of `map` and `amap` besides the rows and the prompt; see `map`."""

    model: _StrPath | None
    schema: "type[BaseModel] | Mapping[str, Any] | None"
    system: str | None
    server: str | None
    url: str | None
    api_key: str | None
    params: Mapping[str, Any] | None
    image_column: str | None
    answer_column: str | None
    prefix: str
    endpoint: str | None
    window: int | None
    fresh: bool
    progress: bool
    on_error: Literal["keep", "raise"]
    state_dir: _StrPath | None
    config_file: _StrPath | None


@overload
def map(
    rows: Iterable[Mapping[str, Any]], *, prompt: str, **arguments: Unpack[MapArguments]
) -> list[dict[str, Any]]: ...
@overload
def map(rows: _Table, *, prompt: str, **arguments: Unpack[MapArguments]) -> _Table: ...
def map(
    rows: Any,
    *,
    prompt: str,
    model: _StrPath | None = None,
    schema: "type[BaseModel] | Mapping[str, Any] | None" = None,
    system: str | None = None,
    server: str | None = None,
    url: str | None = None,
    api_key: str | None = None,
    params: Mapping[str, Any] | None = None,
    image_column: str | None = None,
    answer_column: str | None = None,
    prefix: str = "",
    endpoint: str | None = None,
    window: int | None = None,
    fresh: bool = False,
    progress: bool = True,
    on_error: Literal["keep", "raise"] = "keep",
    state_dir: _StrPath | None = None,
    config_file: _StrPath | None = None,
) -> Any:
    """Ask a model about each row; the same kind of table, with the answers as columns beside.

    rows: a list of dicts, a pandas or polars DataFrame, an Arrow table or a Hugging Face Dataset.
    prompt, system: Jinja2 templates; `{{ text }}` is the column `text` of the row.
    model: the model to ask. Without `server` and `url` it is loaded here: `demo`, a GGUF file or a
        hub id. May be left out where a server or an engine has just one.
    schema: a Pydantic model or a JSON schema of the answer. Its fields become typed columns; in a
        list of dicts, `answer` is an object of the Pydantic model.
    server: a Lowtide server, for example `http://127.0.0.1:8000`. url: an engine, `http://.../v1`.
    api_key: for either. Default: LOWTIDE_API_KEY.
    params: fields of every request, for example `{"max_tokens": 200}`.
    image_column: the column with an image: path, URL or bytes.
    answer_column: where the answer goes; default `answer`. prefix: before each new column's name.
    endpoint: `/v1/chat/completions`, or `/v1/embeddings` for a column of embeddings.
    window: requests in flight at once, with `url` or a model of your own.
    fresh: throw away an unfinished run of the same call and begin anew.
    progress: show a bar and sentences on standard error; else they go to the logger `lowtide`.
    on_error: "keep": a row that fails has its `_error`. "raise": RowsFailed, once all are through.
    state_dir: where an unfinished run is kept. Default: `~/.local/state/lowtide/runs`.
    config_file: settings, default `./lowtide.toml` where there is one.

    Each row also gets `_error` (why it has no answer), `_finish_reason` and `_tokens`. Interrupted,
    in a dead kernel or beside a dead server: the same call goes on where it stopped, and says so.

    Raises Error where nothing can be asked at all, TypeError and ValueError for wrong arguments.
    """
    given = {name: value for name, value in locals().items() if name != "rows"}
    return _run(rows, given, None)


@overload
async def amap(
    rows: Iterable[Mapping[str, Any]], *, prompt: str, **arguments: Unpack[MapArguments]
) -> list[dict[str, Any]]: ...
@overload
async def amap(rows: _Table, *, prompt: str, **arguments: Unpack[MapArguments]) -> _Table: ...
async def amap(rows: Any, *, prompt: str, **arguments: Unpack[MapArguments]) -> Any:
    """`map`, with the same arguments, for programs that go on meanwhile.

    The work is done in a thread. Cancelling stops it as Ctrl-C stops `map`: what is done is kept,
    which may take some seconds, and the same call goes on from there.
    """
    from lowtide.client.stopping import ThreadStop, in_thread

    stop = ThreadStop()
    given = {"prompt": prompt, **arguments}
    return await in_thread(lambda: _run(rows, given, stop), stop)


amap.__signature__ = inspect.signature(map)  # type: ignore[attr-defined] # what help() shows


def _run(rows: Any, given: Mapping[str, Any], stop: "ThreadStop | None") -> Any:
    with translated():
        from lowtide.cli.tables.table_options import require_tables

        require_tables()
        from lowtide.cli.terminal.command_errors import CommandError
        from lowtide.client.map_plan import MapOptions
        from lowtide.client.map_run import run_map
        from lowtide.client.stopping import ThreadStop
        from lowtide.tables.errors import TableError

        options = MapOptions(**given)
        try:
            result, counts = run_map(rows, options, stop or ThreadStop())
        except TableError as error:
            raise in_python(CommandError(error.message, error.hint, code=error.code)) from None
    if options.on_error == "raise" and counts.failed:
        reason, count = counts.reasons.most_common(1)[0]
        raise RowsFailed(
            f"{counts.failed:,} of {len(result):,} rows failed; {count:,} x {reason}"
            f" (row {counts.examples[reason]:,}).",
            result,
            counts.failed,
        )
    return result
