"""Lowtide below a path of a host: `server.path_prefix`."""

from pathlib import Path

import pytest
from api_server import open_api_server

from lowtide import config
from lowtide.api.middleware.paths import without_prefix
from lowtide.cli.client.address import server_address
from lowtide.config import ServerSettings, Settings
from lowtide.config.sources import ConfigError

LINE = b'{"custom_id": "a", "body": {"model": "m", "messages": []}}\n'


@pytest.mark.parametrize(
    ("path", "prefix", "below"),
    [
        ("/batch/v1/files", "/batch", "/v1/files"),
        ("//batch//v1/files", "/batch", "/v1/files"),
        ("/batch", "/batch", "/"),
        ("/a/b/v1/files", "/a/b", "/v1/files"),
        ("/v1/files", "/batch", "/v1/files"),
        ("/batches", "/batch", "/batches"),
        ("/v1/batch/v1", "/batch", "/v1/batch/v1"),
        ("/batch/v1/files", "", "/batch/v1/files"),
    ],
)
def test_the_prefix_is_taken_away_once_and_only_as_whole_segments(
    path: str, prefix: str, below: str
) -> None:
    assert without_prefix(path, prefix) == below


@pytest.mark.parametrize("address", ["http://h/batch", "http://h/batch/", "http://h/batch/v1"])
def test_the_command_line_takes_a_server_with_a_path(address: str) -> None:
    assert server_address(address) == "http://h/batch"


@pytest.mark.parametrize(
    ("public_url", "base"),
    [
        (None, None),
        ("https://h.example", "https://h.example/batch"),
        ("https://h.example/batch/", "https://h.example/batch"),
    ],
)
def test_a_file_goes_up_and_down_below_the_prefix(
    tmp_path: Path, public_url: str | None, base: str | None
) -> None:
    server = ServerSettings(data_dir=tmp_path, path_prefix="/batch", public_url=public_url)
    with open_api_server(tmp_path, Settings(server=server)) as http_api:
        announced = http_api.ask("POST", "/batch/v1/files?purpose=batch-api&file_name=x")
        address = announced.headers["location"]
        here = base or f"{http_api.url}/batch"
        assert address.startswith(f"{here}/v1/uploads/signed/file-")
        assert http_api.ask("PUT", f"/batch{address.removeprefix(here)}", LINE).status == 200
        file_id = announced.headers["x-together-file-id"]
        for prefix in ("/batch", "/batch/openai", ""):
            content = http_api.ask("GET", f"{prefix}/v1/files/{file_id}/content")
            assert (content.status, content.body) == (200, LINE)
        for path in ("/batch/health", "/health", "/batch/ready"):
            assert http_api.ask("GET", path).status == 200
        assert http_api.ask("GET", "/other/health").status == 404


@pytest.mark.parametrize("prefix", ["batch", "/batch/", "/", "/a b", "/v1", "/openai/x", "/../x"])
def test_a_prefix_that_is_no_path_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigError, match=r"server\.path_prefix: must be empty, or a path"):
        config.load(None, {"LOWTIDE_SERVER__PATH_PREFIX": prefix})
