"""One server for all pages of a module."""

from collections.abc import Iterator

import pytest
from page_server import MODEL, PageServer, running_server

collect_ignore = [] if MODEL == "demo" else ["test_postgres_blocks.py"]
"""What takes too long for `make test`."""


@pytest.fixture(scope="module")
def page_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    with running_server(tmp_path_factory.mktemp("server")) as server:
        yield server
