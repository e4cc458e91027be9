"""`lowtide limits`: what an organization may do, and what is left of it."""

from lowtide.api.objects.limits import LimitList
from lowtide.cli.client.objects import read_view
from lowtide.cli.client.server_client import ServerClient
from lowtide.cli.server_commands import Answers, server_command
from lowtide.cli.terminal import table, units


@server_command
def limits(client: ServerClient) -> Answers:
    """Show each limit of the key's organization: used, left, and when more of it comes."""
    answer = client.limits()
    yield answer
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
