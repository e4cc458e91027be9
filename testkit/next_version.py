"""The version after this one, as far as the schema knows: this code, one expanding revision ahead.

Tests of upgrades begin from the schema as it is and end here. Invariant: the revision only adds, to
tables in use and a table of its own, as the rules for migrations ask.
"""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lowtide.store.schema import migrate
from lowtide.store.schema.migrate import MIGRATIONS
from lowtide.store.schema.tables import HEAD

NEXT_HEAD = f"{int(HEAD) + 1:04d}"
_EXPANDING = f'''"""A revision that only adds: to tables in use, and a table."""

import sqlalchemy as sa
from alembic import op

revision = "{NEXT_HEAD}"
down_revision = "{HEAD}"


def upgrade() -> None:
    op.add_column("batches", sa.Column("region", sa.String))
    op.add_column("files", sa.Column("tier", sa.String, nullable=False, server_default="hot"))
    op.create_table("regions", sa.Column("name", sa.String, primary_key=True))
'''


def write_next_migrations(folder: Path) -> Path:
    """All revisions and the next one, in a new folder inside `folder`."""
    migrations = folder / "migrations"
    shutil.copytree(MIGRATIONS, migrations)
    (migrations / "versions" / f"{NEXT_HEAD}_regions.py").write_text(_EXPANDING)
    return migrations


@contextmanager
def next_version(folder: Path) -> Iterator[str]:
    """Inside, this process runs the next version; its HEAD."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(migrate, "MIGRATIONS", write_next_migrations(folder))
        for name, module in list(sys.modules.items()):
            if name.startswith("lowtide.") and getattr(module, "HEAD", None) == HEAD:
                patch.setattr(module, "HEAD", NEXT_HEAD)
        yield NEXT_HEAD
