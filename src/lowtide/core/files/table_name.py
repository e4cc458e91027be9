"""Which file names stand for tables, whose rows `lowtide run` asks about. Pure.

Called by that command, and by the console, which takes requests alone and says to who brings a
table what to do instead.
"""

from typing import Final

TABLE_ENDINGS: Final = (".csv", ".tsv", ".tab", ".parquet", ".pq", ".arrow", ".feather", ".ipc")
"""Files of lines of JSON are not among them: these may be requests."""


def is_table_name(name: str) -> bool:
    """Whether a file of that name is a table, whatever is asked."""
    return name.lower().endswith(TABLE_ENDINGS)
