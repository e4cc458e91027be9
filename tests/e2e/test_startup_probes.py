"""What a process looks at before it takes work: each refusal says what is wrong and what to do.

The same words from `lowtide serve`, `lowtide worker` and `lowtide doctor`. The clock is tried in
test_runbooks.py.
"""

import http.client
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest
from runbook_env import Site

from testkit.patience import PATIENCE_S
from testkit.postgres import PostgresServer


@contextmanager
def without_conditions(target: str) -> Iterator[str]:
    """A store that takes the condition of a create-only write and ignores it, as some do."""
    place = urlsplit(target)

    class Forward(http.server.BaseHTTPRequestHandler):
        def _forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            dropped = ("if-none-match", "x-amz-copy-source-if-none-match", "connection")
            headers = {k: v for k, v in self.headers.items() if k.lower() not in dropped}
            connection = http.client.HTTPConnection(place.netloc, timeout=PATIENCE_S)
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            length = answer.getheader("content-length") if self.command == "HEAD" else None
            self.send_header("content-length", length or str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            connection.close()

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _forward  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Forward)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def moto() -> Iterator[str]:
    """An S3 with the bucket `lowtide`."""
    module = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    server = module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    urlopen(Request(f"http://{host}:{port}/lowtide", method="PUT")).close()
    yield f"http://{host}:{port}"
    server.stop()


def on_bucket(folder: Path, endpoint: str, bucket: str, database_url: str = "sqlite") -> Site:
    environ = {
        "AWS_ENDPOINT": endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    return Site(folder, [], database_url=database_url, blob_url=f"s3://{bucket}", environ=environ)


async def refusal(site: Site, *words: str) -> str:
    """What a process says that will not start."""
    async with await site.start(*words, name=f"{words[0]}-refused") as process:
        code, _, reported = await process.ended()
    assert code == 2, reported
    return reported


async def test_a_bucket_that_ignores_the_condition_is_refused_by_all(
    tmp_path: Path, moto: str
) -> None:
    with without_conditions(moto) as endpoint:
        site = on_bucket(tmp_path, endpoint, "lowtide")
        for words in (("serve",), ("worker",)):
            reported = await refusal(site, *words)
            assert (
                "create-only" in reported
                and "If-None-Match" in reported
                and "will not start" in reported
            )
        code, found = await site.doctor()
    (blobs,) = found["blobs"]
    assert (code, blobs["verdict"]) == (1, "fail") and "create-only" in blobs["what"]


async def test_the_same_bucket_with_its_condition_is_taken(tmp_path: Path, moto: str) -> None:
    """So it was the condition alone that the other test is about."""
    code, found = await on_bucket(tmp_path, moto, "lowtide").doctor()
    assert (code, found["blobs"][0]["verdict"]) == (0, "ok")


async def test_a_bucket_that_is_not_there_is_named(tmp_path: Path, moto: str) -> None:
    site = on_bucket(tmp_path, moto, "elsewhere")
    reported = await refusal(site, "serve")
    assert "s3://elsewhere does not exist" in reported and "Create the bucket" in reported
    code, found = await site.doctor()
    assert code == 1 and "server.blob_url" in found["blobs"][0]["remedy"]


async def test_a_schema_that_needs_newer_code_is_refused(
    tmp_path: Path, postgres: PostgresServer, postgres_url: str
) -> None:
    postgres.sql(
        "UPDATE alembic_version SET version_num = '9999'",
        "UPDATE schema_compatibility SET least_code = '9999'",
        database=urlsplit(postgres_url).path.removeprefix("/"),
    )
    site = Site(tmp_path, [], database_url=postgres_url)
    for words in (("serve",), ("worker",)):
        reported = await refusal(site, *words)
        assert "9999" in reported and "nstall" in reported
    code, found = await site.doctor()
    assert (code, found["store"][0]["verdict"]) == (1, "fail")
