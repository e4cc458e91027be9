"""What is printed: values in human units, tables that can be cut, addresses as people paste."""

from pathlib import Path

import pytest

from lowtide.api.objects.batches import CountsObject
from lowtide.cli.batches.batch_report import error_reasons, exit_code_of, sentence
from lowtide.cli.batches.outputs import errors_beside
from lowtide.cli.client.address import is_this_machine, server_address
from lowtide.cli.client.objects import BatchView
from lowtide.cli.client.stopped import hint_on_stop
from lowtide.cli.terminal import console, table, units
from lowtide.cli.terminal.command_errors import CommandError


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (100 * 2**20, "100.0 MiB"),
        (2**50, "1024.0 TiB"),
    ],
)
def test_bytes_are_shown_in_the_unit_that_fits(count: int, text: str) -> None:
    assert units.human_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.25, "250 ms"),
        (12.34, "12.3 s"),
        (245, "4 min 05 s"),
        (12000, "3 h 20 min"),
        (187200, "2 d 4 h"),
    ],
)
def test_durations_are_shown_in_the_units_that_fit(seconds: float, text: str) -> None:
    assert units.human_seconds(seconds) == text


def test_a_table_off_a_terminal_is_tab_separated_and_never_cut(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table.show_table((table.whole("id"), table.name("name")), [("x" * 300, "[bold]odd[/bold]")])
    assert capsys.readouterr().out == "id\tname\n" + "x" * 300 + "\t[bold]odd[/bold]\n"


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://h:1/", "http://h:1"),
        ("http://h:1/v1", "http://h:1"),
        ("http://h:1/openai/v1/", "http://h:1"),
        ("https://h/batch/together/v1", "https://h/batch"),
        ("[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_addresses_as_people_paste_them(given: str, address: str) -> None:
    assert server_address(given) == address


@pytest.mark.parametrize("given", ["", "ftp://h", "http://", "http://h:port", "http://h:0"])
def test_what_is_no_address(given: str) -> None:
    with pytest.raises(CommandError):
        server_address(given)


def test_a_proxy_is_never_asked_for_this_machine() -> None:
    assert is_this_machine("http://127.0.0.1:8000")
    assert is_this_machine("http://[::1]:8000")
    assert is_this_machine("http://localhost:8000")
    assert not is_this_machine("http://10.0.0.1:8000")


@pytest.mark.parametrize(
    ("output", "errors"),
    [
        ("a/out.jsonl", "a/out.errors.jsonl"),
        ("out", "out.errors.jsonl"),
        ("o.txt", "o.txt.errors.jsonl"),
    ],
)
def test_errors_go_beside_the_output(output: str, errors: str) -> None:
    assert errors_beside(Path(output)) == Path(errors)


@pytest.mark.parametrize(
    ("status", "failed", "code"),
    [
        ("completed", 0, 0),
        ("completed", 1, 1),
        ("failed", 0, 3),
        ("expired", 2, 3),
        ("cancelled", 0, 3),
    ],
)
def test_exit_codes_follow_the_batch(status: str, failed: int, code: int) -> None:
    counts = CountsObject(total=3, completed=1, failed=failed)
    assert exit_code_of(BatchView(id="b", status=status, request_counts=counts)) == code


def test_reasons_are_counted_in_every_shape_of_error_line(tmp_path: Path) -> None:
    path = tmp_path / "errors.jsonl"
    path.write_text(
        '{"custom_id":"a","response":null,"error":{"code":"batch_expired","message":"Too late."}}\n'
        '{"custom_id":"b","error":{"message":"Bad model","code":"invalid_model"}}\n'
        '{"custom_id":"c","error":{"message":"Bad model","code":"invalid_model"}}\n'
        '{"custom_id":"d","response":{"status_code":400,"body":{"error":{"message":"Long"}}}}\n'
    )
    assert error_reasons(path) == [
        "2 x invalid_model: Bad model (custom_id b)",
        "1 x batch_expired: Too late. (custom_id a)",
        "1 x HTTP 400: Long (custom_id d)",
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("over\rwritten", "over\\rwritten"),
        ("bell\x07 null\x00 c1\x9b", "bell\\x07 null\\x00 c1\\x9b"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("half \ud83d", "half \\ud83d"),
        ("line\nand\ttab, é 潮 🌊", "line\nand\ttab, é 潮 🌊"),
    ],
)
def test_what_would_steer_a_terminal_is_written_out(text: str, shown: str) -> None:
    assert console.printable(text) == shown


def test_everything_that_is_printed_is_written_out(capsys: pytest.CaptureFixture[str]) -> None:
    foul = "a\x1b]0;title\x07b\tc\nd"
    console.write(foul)
    console.info(foul)
    table.show_fields([("name", foul)])
    table.show_table((table.whole("one"), table.name("two")), [(foul, "x")])
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    assert "\x07" not in printed.out + printed.err
    assert printed.out.splitlines()[-1] == "a\\x1b]0;title\\x07b\\tc\\nd\tx"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("completed", "Batch b [green]completed[/] after 40 s"),
        ("failed", "Batch b [red]failed[/] after 40 s"),
        ("cancelled", "Batch b [yellow]was cancelled[/] after 40 s"),
        ("validating", "Batch b is [cyan]being checked[/]"),
        ("in_progress", "Batch b is [cyan]running[/]"),
        ("cancelling", "Batch b is [yellow]being cancelled[/]"),
    ],
)
def test_where_a_batch_stands_is_a_sentence(status: str, words: str) -> None:
    ended = 1040 if not words.startswith("Batch b is") else None
    batch = BatchView(id="b", status=status, created_at=1000, completed_at=ended)
    assert sentence(batch) == words


def test_whoever_stops_waiting_is_told_that_the_batch_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(KeyboardInterrupt), hint_on_stop("http://here", "watches it"):
        raise KeyboardInterrupt
    said = " ".join(capsys.readouterr().err.split())
    assert said == "The batch goes on at http://here. The same command watches it."
    with pytest.raises(KeyboardInterrupt), hint_on_stop("http://here", "watches it", "batch_1"):
        raise KeyboardInterrupt
    said = " ".join(capsys.readouterr().err.split())
    assert said.endswith("The same command watches it, `lowtide batches cancel batch_1` ends it.")
