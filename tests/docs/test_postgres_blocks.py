"""What the pages say about PostgreSQL, run in its order on a real one, by `make test-pages`."""

import os
import sys
from pathlib import Path
from typing import Final

from page_blocks import blocks_that
from page_session import ROOT, Session

from testkit.postgres import USER, PostgresServer

HOW_TO: Final = ROOT / "docs" / "how-to"


def lines_of(page: str, wanted: str) -> str:
    (block,) = blocks_that(HOW_TO / page, wanted)
    return block.text


def as_page(*parts: str) -> str:
    return "".join(f"```\n{part.strip()}\n```\n" for part in parts)


async def test_a_database_is_made_bounded_dumped_and_restored_as_the_pages_say(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    database = f"postgresql://{USER}@/lowtide?host={postgres.folder}"
    # the role of this server has the page's name already
    create = lines_of("many-machines.md", "CREATE ROLE").replace("ROLE lowtide", "ROLE of_the_page")
    dump, _, _ = lines_of("backup.md", "pg_dump").partition("aws ")
    restore = lines_of("runbooks.md", "pg_restore").replace("--repair", "--repair --yes")
    page = tmp_path / "page.md"
    page.write_text(
        as_page(
            create.replace("OWNER lowtide", "OWNER of_the_page"),
            "psql -c 'ALTER DATABASE lowtide OWNER TO lowtide' -c 'DROP ROLE of_the_page'",
            f"""psql "{database}" <<'END'\n{lines_of("deploy.md", "ALTER ROLE")}END""",
            "lowtide keys create first",
            dump.replace("postgresql://lowtide@db.internal/lowtide", database),
            "lowtide keys create second",
            "mv lowtide-*.dump older.dump",
            restore.replace("postgresql://...", database),
            """test "$(lowtide keys list --json | jq -r '.data[].name')" = first""",
        )
    )
    path = (str(postgres.binaries), str(Path(sys.executable).parent), os.environ["PATH"])
    environment = {
        "PATH": os.pathsep.join(path),
        "PGHOST": str(postgres.folder),
        "PGUSER": USER,
        "PGDATABASE": "postgres",
        "LOWTIDE_SERVER__DATABASE_URL": database,
    }
    folder = tmp_path / "folder"
    folder.mkdir()
    async with Session(folder, "random", environment=environment) as session:
        await session.follow(page)
