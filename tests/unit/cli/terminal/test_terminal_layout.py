"""What a person sees on a terminal of some width: where lines break, and what never does."""

import io

import pytest

from lowtide.api.objects.batches import CountsObject, LineErrorObject, WaitingReason
from lowtide.cli.batches.batch_report import counts_of, line_error_markup, show_batch
from lowtide.cli.batches.batches import show_list
from lowtide.cli.client.objects import BatchView
from lowtide.cli.suggestions import suggestion
from lowtide.cli.terminal import console, table, units

FILE_ID = "file-out-f089fe04c91a8d9fb7a4f2d4"


class Screen:
    """A terminal of some width, and the lines on it."""

    def __init__(self, width: int) -> None:
        self._shown = io.StringIO()
        self.console = console._Console(
            file=self._shown, force_terminal=True, width=width, color_system=None, highlight=False
        )

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self._shown.getvalue().splitlines()]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    return _shown_on(60, monkeypatch)


def _shown_on(width: int, monkeypatch: pytest.MonkeyPatch) -> Screen:
    made = Screen(width)
    monkeypatch.setattr(console, "OUT", made.console)
    monkeypatch.setattr(console, "_words_to", made.console)
    monkeypatch.setattr(table, "OUT", made.console)
    return made


def test_long_lines_break_between_words_and_go_on_further_right(screen: Screen) -> None:
    console.write("  line 4: invalid_request: 'body.temperature' must be a number from 0 up")
    assert screen.lines == [
        "  line 4: invalid_request: 'body.temperature' must be a",
        "    number from 0 up",
    ]


def test_a_label_keeps_its_column_to_itself(screen: Screen) -> None:
    console.write(f"  results  {'word ' * 13}{FILE_ID}", hanging=11)
    first, *others = screen.lines
    assert first.startswith("  results  word")
    assert all(line[:12].strip() == line[11:12] for line in others)
    assert others[-1].endswith(FILE_ID)


def test_what_fits_is_left_as_it_is(screen: Screen) -> None:
    console.write("[bold]a[/]\n  b")
    assert screen.lines == ["a", "  b"]


def test_names_are_cut_where_ids_and_numbers_need_the_room(screen: Screen) -> None:
    columns = (table.whole("id"), table.name("name"), table.number("size"))
    table.show_table(columns, [(FILE_ID, "reviews of the third quarter.jsonl", "40.1 MiB")])
    heading, row = screen.lines
    assert row.startswith(FILE_ID)
    assert row.endswith("40.1 MiB")
    assert "…" in row
    assert heading.endswith("size")


def test_an_empty_table_says_so(screen: Screen) -> None:
    table.show_table((table.whole("id"),), [])
    assert screen.lines == ["id", "none"]


def test_a_narrow_terminal_shows_ages_for_instants(screen: Screen) -> None:
    assert screen.console.width < console.NARROW_COLUMNS
    column, shown = table.created()
    assert (column.heading, shown) == ("age", units.human_age)


def test_off_a_terminal_instants_are_whole() -> None:
    column, shown = table.created()
    assert (column.heading, shown) == ("created", units.human_instant)


def test_counts_say_what_succeeded_failed_and_never_ran() -> None:
    counts = CountsObject(total=200, completed=190, failed=7)
    over = BatchView(id="b", status="expired", request_counts=counts)
    assert counts_of(over) == "200: [green]190 succeeded[/], [red]7 failed[/], 3 not run"
    told = CountsObject(total=200, completed=190, failed=10)
    over = BatchView(id="b", status="cancelled", request_counts=told, not_run_count=10)
    assert counts_of(over) == "200: [green]190 succeeded[/], none failed, 10 not run"
    running = BatchView(id="b", status="in_progress", request_counts=counts)
    assert counts_of(running).endswith("3 to go")


def test_a_batch_shows_all_that_holds_it_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    reported = [WaitingReason(kind=kind, reason=f"{kind}.") for kind in ("storage", "model")]
    reported.insert(0, WaitingReason(kind="paused", reason="paused.", since=1_800_000_000))
    show_batch(
        BatchView(id="b", status="in_progress", reason="paused.", waiting_reasons=tuple(reported))
    )
    shown = capsys.readouterr().out.splitlines()
    lines = [line for line in shown if " for: " in line]
    since = units.human_instant(1_800_000_000)
    paused = f"waits for: paused. Since {since}."
    assert lines == [paused, "and for: storage.", "and for: model."]


def test_lines_with_the_same_error_are_named_together() -> None:
    error = LineErrorObject("invalid_request", "Too hot.", 3, None)
    words = line_error_markup(error, list(range(3, 12)))
    assert words == "[bold]lines 3, 4, 5, 6, 7 and 4 more:[/] [red]invalid_request:[/] Too hot."


@pytest.mark.parametrize(
    ("seconds", "age"), [(5, "5 s"), (59, "59 s"), (150, "2 min"), (7300, "2 h"), (200_000, "2 d")]
)
def test_ages_have_one_unit(monkeypatch: pytest.MonkeyPatch, seconds: int, age: str) -> None:
    monkeypatch.setattr(units.time, "time", lambda: 1_000_000.0)
    assert units.human_age(1_000_000 - seconds) == age


def test_instants_have_their_zone() -> None:
    assert len(units.human_instant(1_800_000_000).split(" ")) == 3
    assert units.human_instant(None) == "-"


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("show", "get"),
        ("lst", "list"),
        ("cancle", "cancel"),
        ("version", "--version"),
        ("xyzzy", None),
    ],
)
def test_a_wrong_word_finds_the_command_that_was_meant(word: str, meant: str | None) -> None:
    known = ("create", "list", "get", "watch", "results", "cancel")
    assert suggestion(f"No such command '{word}'.", known) == meant


@pytest.mark.parametrize(
    ("cautious_eta_seconds", "shown"),
    [(None, "11 min 00 s"), (840, "11 min 00 s, at a slow pace 14 min 00 s")],
)
def test_a_batch_is_done_in_a_usual_time_or_a_longer_one(
    screen: Screen, cautious_eta_seconds: int | None, shown: str
) -> None:
    show_batch(
        BatchView(
            id="batch_1",
            status="in_progress",
            eta_seconds=660,
            cautious_eta_seconds=cautious_eta_seconds,
        )
    )
    (line,) = (each for each in screen.lines if each.startswith("done in about"))
    assert line.removeprefix("done in about").strip() == shown


def test_a_list_of_batches_shows_whole_names_on_120_columns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = _shown_on(120, monkeypatch)
    batch = BatchView(
        id="batch_bcc5318273f9c1cbc53817fb",
        status="in_progress",
        model="Qwen/Qwen3-8B",
        created_at=1_795_000_000,
        metadata={"team": "evals", "name": "Corpus embeddings"},
    )
    show_list([batch])
    assert "Corpus embeddings" in screen.lines[1]
    assert " Qwen3-8B " in screen.lines[1]


def test_a_batch_tells_its_priority(screen: Screen) -> None:
    show_batch(BatchView(id="b", status="in_progress", priority=7))
    assert [line.split() for line in screen.lines if "priority" in line] == [["priority", "7"]]
