"""`lowtide limits`: what an organization may do, and what is left of it."""

from lowtide.api.objects.limits import LimitList
from lowtide.cli.client.objects import read_view
from lowtide.cli.options import DEFAULT_SERVER, JsonOption, KeyOption, ServerOption, connect
from lowtide.cli.terminal import console, table, units


def limits(
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show each limit of the key's organization: used, left, and when more of it comes."""
    with connect(server, api_key) as client:
        answer = client.limits()
    if as_json:
        console.emit_json(answer)
        return
    limit_list = read_view(answer, LimitList)
    table.show_table(
        (
            table.whole("limit"),
            table.name("model"),
            *map(table.number, ("at most", "used", "left")),
            table.name("frees"),
        ),
        [
            (
                each.name,
                each.model or "",
                *(_shown(value, each.unit) for value in (each.limit, each.used, each.left)),
                units.human_instant(each.frees_at) if each.frees_at else each.frees or "",
            )
            for each in limit_list.data
        ],
    )


def _shown(value: int | str | None, unit: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return f"${value}"
    return units.human_bytes(value) if unit == "bytes" else f"{value:,}"
