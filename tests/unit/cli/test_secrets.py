"""No secret of the settings is in anything that a command says, however it fails.

Recognisable secrets are planted in every place of the settings that can hold one, and all that is
printed is searched for every part of them: as text, as JSON, and with tracebacks asked for.
"""

import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from prompt import Run

WORDS = ("Hidden1", "Hidden2")
"""The parts of each secret, on either side of a character that is odd in an address."""
DATABASES = [
    "postgresql://me:Hidden1{odd}Hidden2@127.0.0.1:{port}/db",
    "postgresql://me:Hidden1{odd}Hidden2@127.0.0.1:many/db",
    "postgresql://127.0.0.1:{port}/db?user=me&password=Hidden1{odd}Hidden2",
    "postgresql+psycopg2://me:Hidden1{odd}Hidden2@h/db",
    "postgres//me:Hidden1{odd}Hidden2@h/db",
    "mysql://me:Hidden1{odd}Hidden2@h/db",
    "Hidden1{odd}Hidden2",
]
REPLICA = 'models = ["m"]\n[[replica]]\nurl = "http://127.0.0.1:{port}/v1"\n'
REPLICAS = [
    'url = "http://me:Hidden1{odd}Hidden2@127.0.0.1:{port}/v1"',
    'url = "http://127.0.0.1:{port}/v1?key=Hidden1{odd}Hidden2"',
    'url = "http://127.0.0.1:{port}/v1#Hidden1{odd}Hidden2"',
    'url = "ftp://me:Hidden1{odd}Hidden2@127.0.0.1/v1"',
    'url = "Hidden1{odd}Hidden2"',
    'url = ["Hidden1{odd}Hidden2"]',
]
MORE = [
    'api_key = "Hidden1{odd}Hidden2\\nX: y"',
    'api_key = ["Hidden1{odd}Hidden2"]',
    'api_key = "Hidden1{odd}Hidden2"\napi_key_env = "NAME"',
    'headers = {{ "x-team" = "Hidden1{odd}Hidden2\\n" }}',
    'headers = {{ authorization = "Hidden1{odd}Hidden2" }}\napi_key = "Hidden1{odd}Hidden2"',
    'headers = "Hidden1{odd}Hidden2"',
    'query = {{ key = "Hidden1{odd}Hidden2" }}\nwindow = 0',
    'query = "Hidden1{odd}Hidden2"',
    'proxy = "http://me:Hidden1{odd}Hidden2@127.0.0.1:many"',
    'proxy = "https://me:Hidden1{odd}Hidden2@127.0.0.1:{port}"',
    'proxy = "Hidden1{odd}Hidden2"',
]
BUCKETS = [
    "s3://me:Hidden1{odd}Hidden2@bucket/x",
    "http://me:Hidden1{odd}Hidden2@bucket",
    "Hidden1{odd}Hidden2",
]
ODD = ["-", "/", "#", "?", "%", ":", "@", "[", "]"]
UNREACHABLE = [
    'api_key = "Hidden1{odd}Hidden2"',
    'headers = {{ "x-key" = "Hidden1{odd}Hidden2" }}',
    'query = {{ key = "Hidden1{odd}Hidden2" }}',
    'proxy = "http://me:Hidden1%20Hidden2@127.0.0.1:{port}"',
]


@pytest.fixture
def refused() -> Iterator[int]:
    """A port of this machine where nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture(autouse=True)
def restored_log() -> Iterator[None]:
    """Servers that are started here lead the log to this test's own standard error."""
    handlers = list(logging.getLogger().handlers)
    yield
    logging.getLogger().handlers = handlers
    structlog.reset_defaults()


class Searching:
    """Runs commands and searches all that they print."""

    def __init__(self, run: Run, folder: Path) -> None:
        self._run = run
        self._file = folder / "lowtide.toml"

    def __call__(self, toml: str, *commands: str) -> None:
        self._file.write_text(toml)
        for command in commands:
            for more in ((), ("--json",)):
                outcome = self._run(*command.split(), *more)
                assert outcome.code != 0, (command, toml)
                printed = outcome.out + outcome.err
                assert printed, command
                found = [word for word in WORDS if word.lower() in printed.lower()]
                assert not found, (command, toml, printed)
                if more:
                    json.loads(outcome.out)


@pytest.fixture
def searching(run_main: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Searching:
    monkeypatch.setenv("AWS_ENDPOINT", "http://me:Hidden1Hidden2@")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "Hidden1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "Hidden2")
    return Searching(run_main, tmp_path)


def planted(text: str, odd: str, port: int) -> str:
    return text.format(odd=odd, port=port)


@pytest.mark.parametrize("odd", ODD)
def test_no_part_of_a_database_address_is_told(
    searching: Searching, refused: int, odd: str
) -> None:
    for address in DATABASES:
        toml = f"[server]\ndatabase_url = {json.dumps(planted(address, odd, refused))}\n"
        searching(toml, "serve --port 0", "doctor --quick", "keys list")


@pytest.mark.parametrize("odd", ODD)
def test_no_part_of_a_replicas_settings_is_told(
    searching: Searching, refused: int, odd: str
) -> None:
    for text in REPLICAS:
        searching(f'[[replica]]\nmodels = ["m"]\n{planted(text, odd, refused)}', "doctor --quick")
    for text in MORE:
        head = f'[[replica]]\nmodels = ["m"]\nurl = "http://127.0.0.1:{refused}/v1"\n'
        searching(head + planted(text, odd, refused), "doctor --quick", "serve --port 0")


@pytest.mark.parametrize("odd", ODD)
def test_no_part_of_a_buckets_address_or_credentials_is_told(
    searching: Searching, refused: int, odd: str
) -> None:
    for address in BUCKETS:
        toml = f"[server]\nblob_url = {json.dumps(planted(address, odd, refused))}\n"
        searching(toml, "doctor --quick", "serve --port 0")


def test_an_engine_that_is_away_is_told_without_its_key(searching: Searching, refused: int) -> None:
    for text in UNREACHABLE:
        head = f'[[replica]]\nmodels = ["m"]\nurl = "http://127.0.0.1:{refused}/v1"\n'
        searching(head + planted(text, "-", refused), "doctor --quick")


def test_a_short_upload_secret_is_refused_without_being_told(searching: Searching) -> None:
    searching('[server]\nupload_secret = "Hidden1Hidden2"', "serve", "doctor --quick", "keys list")


def test_tracebacks_that_were_asked_for_have_no_secret_either(
    run_main: Run, tmp_path: Path, refused: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOWTIDE_DEBUG", "1")
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr("traceback.print_exception", lambda error: printed.append(reported(error)))
        for odd in ODD:
            for address in DATABASES:
                url = planted(address, odd, refused)
                (tmp_path / "lowtide.toml").write_text(
                    f"[server]\ndatabase_url = {json.dumps(url)}\n"
                )
                run_main("serve", "--port", "0")
    assert printed
    assert not [text for text in printed if any(word in text for word in WORDS)]


def reported(error: BaseException | None) -> str:
    """The texts of an error and of all that it came from."""
    if error is None:
        return ""
    inner = "".join(map(reported, getattr(error, "exceptions", ())))
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return f"{error}\n{inner}{reported(before)}"


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize(
    "command",
    [
        "files list --server {url}",
        "keys list --server {url}",
        "batches list --server {url} --json",
        "run b.jsonl -o o.jsonl --url {url}",
    ],
)
def test_no_password_in_the_address_of_a_server_or_an_engine_is_told(
    run_main: Run, tmp_path: Path, refused: int, odd: str, command: str
) -> None:
    (tmp_path / "b.jsonl").write_text(
        '{"custom_id": "a", "body": {"model": "m", "messages": []}}\n'
    )
    for url in (
        f"http://me:Hidden1{odd}Hidden2@127.0.0.1:{refused}/v1",
        f"http://me:Hidden1{odd}Hidden2@127.0.0.1:many/v1",
        f"ftp://me:Hidden1{odd}Hidden2@127.0.0.1",
    ):
        outcome = run_main(*command.format(url=url).split())
        assert outcome.code != 0
        printed = outcome.out + outcome.err
        assert not [word for word in WORDS if word in printed], printed
