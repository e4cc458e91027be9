"""The child's log: bounded on disk, its last lines at hand."""

from pathlib import Path

import pytest

from lowtide.engines.embedded.bounded_log import BoundedLog


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "engine.log"


def test_what_is_written_is_in_the_file(path: Path) -> None:
    log = BoundedLog(path)
    log.write(b"one\ntw")
    log.write(b"o\n")
    log.close()
    assert path.read_bytes() == b"one\ntwo\n"


def test_a_second_log_goes_on_where_the_first_stopped(path: Path) -> None:
    for word in (b"first\n", b"second\n"):
        log = BoundedLog(path)
        log.write(word)
        log.close()
    assert path.read_bytes() == b"first\nsecond\n"


def test_both_files_together_stay_under_the_bound_and_keep_the_end(path: Path) -> None:
    log = BoundedLog(path, bytes_max=1000)
    for number in range(500):
        log.write(b"line %04d\n" % number)
    log.close()
    older = path.with_name("engine.log.1")
    assert path.stat().st_size + older.stat().st_size <= 1000
    kept = (older.read_bytes() + path.read_bytes()).splitlines()
    assert len(kept) >= 50
    assert kept == [b"line %04d" % number for number in range(500 - len(kept), 500)]


def test_the_complaint_is_the_first_error_line(path: Path) -> None:
    log = BoundedLog(path)
    log.write(b"0.00.001.1 W srv: careful\n0.00.002.2 E load: magic is wrong\n")
    log.write(b"0.00.003.3 E exiting\n")
    assert log.complaint == "load: magic is wrong"
    log.close()


def test_without_an_error_line_the_complaint_is_the_last_line(path: Path) -> None:
    log = BoundedLog(path)
    assert log.complaint == ""
    log.write(b"loading\nGGML_ASSERT(n > 0) failed\n")
    assert log.complaint == "GGML_ASSERT(n > 0) failed"
    log.close()


def test_a_new_child_is_not_blamed_for_the_last_one(path: Path) -> None:
    log = BoundedLog(path)
    log.write(b"0.00.001.1 E out of memory\nhalf a li")
    log.forget()
    log.write(b"hello\n")
    assert log.complaint == "hello"
    log.close()


def test_writing_goes_on_when_the_file_cannot_be_rotated(path: Path) -> None:
    log = BoundedLog(path, bytes_max=100)
    path.with_name("engine.log.1").mkdir()  # the rename fails with this in its way
    for _ in range(20):
        log.write(b"0.00.001.1 E still here\n")
    assert log.complaint == "still here"
    assert path.stat().st_size <= 100
    log.close()
