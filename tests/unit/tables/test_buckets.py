"""Tables in buckets: S3 by moto's server on this machine; for Google's a store in memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from obstore.store import MemoryStore

from lowtide.tables import sources
from lowtide.tables.errors import TableError
from lowtide.tables.reader import Table, open_table


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    urlopen(Request(f"http://{host}:{port}/tables", method="PUT")).close()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["s3", "gs"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where four files lie: two CSVs, one below, one Parquet."""
    if request.param == "gs":
        memory = MemoryStore()
        monkeypatch.setattr("obstore.store.from_url", lambda *_: memory)
    else:
        for name, value in {
            "AWS_ENDPOINT": request.getfixturevalue("endpoint"),
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }.items():
            monkeypatch.setenv(name, value)
    address = f"{request.param}://tables/in"
    pq.write_table(pa.table({"n": list(range(2000))}), tmp_path / "n.parquet", row_group_size=300)
    for name, content in {"b.csv": "n\n3\n", "a.csv": "n\n1\n2\n", "deep/c.csv": "n\n9\n"}.items():
        (tmp_path / "x").write_text(content)
        sources.upload(tmp_path / "x", f"{address}/{name}")
    sources.upload(tmp_path / "n.parquet", f"{request.param}://tables/n.parquet")
    return address


def rows_of(table: Table, **how: Any) -> list[Any]:
    return [row["n"] for _, batch in table.batches(**how) for row in batch.to_pylist()]


@pytest.mark.parametrize("ending", ["", "/", "/*.csv", "/?.csv"])
def test_a_folder_or_a_glob_in_a_bucket_is_one_table(bucket: str, ending: str) -> None:
    assert rows_of(open_table(bucket + ending)) == ["1", "2", "3"]


def test_one_object_is_read_from_any_row_on(bucket: str) -> None:
    assert rows_of(open_table(bucket + "/a.csv")) == ["1", "2"]
    table = open_table(bucket.removesuffix("in") + "n.parquet")
    assert rows_of(table) == list(range(2000))
    assert rows_of(table, first=1999) == [1999]


def test_a_changed_object_has_another_identity(bucket: str, tmp_path: Path) -> None:
    before = sources.identity_of(sources.find_files(bucket))
    assert sources.identity_of(sources.find_files(bucket)) == before
    (tmp_path / "x").write_text("n\n4\n")
    sources.upload(tmp_path / "x", bucket + "/b.csv")
    assert sources.identity_of(sources.find_files(bucket)) != before


def test_what_is_there_is_known(bucket: str) -> None:
    assert sources.exists(bucket + "/a.csv")
    assert not sources.exists(bucket + "/gone.csv")


@pytest.mark.parametrize("ending", ["/gone.csv", "/gone/", "/*.parquet"])
def test_what_is_not_there_is_said(bucket: str, ending: str) -> None:
    with pytest.raises(TableError) as caught:
        open_table(bucket + ending)
    assert caught.value.code in ("no_table", "bucket_unavailable")


def test_a_bucket_that_cannot_be_reached_is_said_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any) -> None:
        raise obstore.exceptions.GenericError("no credentials\nand a dump of internals")

    monkeypatch.setattr("obstore.store.from_url", refuse)
    with pytest.raises(TableError, match=r"cannot be reached: no credentials$") as caught:
        open_table("s3://tables/a.csv")
    assert "AWS_ACCESS_KEY_ID" in (caught.value.hint or "")
