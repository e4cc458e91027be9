"""Pages are read and followed as the marks say, and a page that is wrong is refused."""

from pathlib import Path

import pytest
from page_blocks import EVIDENCE, PageError, blocks_of, matches
from page_session import Session


def page(*parts: str) -> str:
    return "\n\n".join(["# Title", *parts]) + "\n"


def block(text: str, language: str = "sh", mark: str = "") -> str:
    head = f"<!-- page: {mark} -->\n" if mark else ""
    return f"{head}```{language}\n{text}\n```"


def follow_in(folder: Path, *parts: str) -> Path:
    path = folder / "page.md"
    path.write_text(page(*parts))
    return path


async def followed(folder: Path, *parts: str) -> None:
    async with Session(folder, "random") as session:
        await session.follow(follow_in(folder, *parts))


def test_blocks_are_found_with_their_line_language_and_mark() -> None:
    text = page(block("echo 1"), "Words.", block("x", "text", "prints"), block("{}", "json"))
    first, second, third = blocks_of(text)
    assert (first.line, first.language, first.text, first.runs) == (3, "sh", "echo 1\n", True)
    assert (second.mark, second.runs) == ("prints", False)
    assert (third.language, third.runs) == ("json", False)


def test_a_block_in_a_list_loses_the_indentation_of_its_item() -> None:
    (found,) = blocks_of("1. Do this:\n\n   ```sh\n   if true; then\n     ls\n   fi\n   ```\n")
    assert found.text == "if true; then\n  ls\nfi\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (page(block("ls", mark="when it rains")), "unknown mark"),
        (page(block("ls", mark="not run, because")), "is no reason"),
        (page(block("ls", mark="not run, needs root")), "nothing in this block needs root"),
        (page(block("ls", mark="exits with an error")), "only a shell block exits"),
        (page(block("1", "python", "exits with 1")), "only a shell block exits"),
        (page("<!-- page: prints -->", "Words.", block("ls")), "directly before a block"),
    ],
)
def test_a_mark_that_says_nothing_true_is_refused(text: str, words: str) -> None:
    with pytest.raises(PageError, match=words):
        blocks_of(text)


@pytest.mark.parametrize(
    ("reason", "command"),
    [
        ("needs root", "sudo useradd lowtide"),
        ("needs systemd", "systemctl reload lowtide"),
        ("needs PostgreSQL", "pg_dump -Fc lowtide > lowtide.dump"),
        ("needs several machines", "lowtide serve --role api"),
        ("needs a cluster", "kubectl apply -f lowtide.yaml"),
        ("needs a cloud", "lowtide run s3://bucket/rows.parquet -o out.parquet"),
        ("needs a network", "pip install openai"),
        ("needs an engine of yours", "vllm serve YOUR-MODEL"),
        ("needs a file of yours", "curl -d {file-abc123}"),
        ("needs a server of yours", "lowtide limits --server https://batch.example.org"),
        ("needs a webhook of yours", "lowtide webhooks replay wh_..."),
        ("needs a person", "# press Ctrl-C"),
        ("is this test run", "make test"),
    ],
)
def test_a_block_that_cannot_run_here_is_marked_and_shows_why(reason: str, command: str) -> None:
    (found,) = blocks_of(page(block(command, mark=f"not run, {reason}")))
    assert not found.runs


def test_every_reason_not_to_run_a_block_has_an_example_above() -> None:
    marks = test_a_block_that_cannot_run_here_is_marked_and_shows_why.pytestmark  # type: ignore[attr-defined]
    assert {reason for reason, _ in marks[0].args[1]} == set(EVIDENCE)


@pytest.mark.parametrize(
    ("printed", "shown", "is_one"),
    [
        ("a\nb\n", "a\nb", True),
        ("a \nb", "a\nb", True),
        ("a\nb\nc", "a\n...\nc", True),
        ("took 3 s", "took ... s", True),
        ("a\nb", "a", False),
        ("a+b", "a.b", False),
    ],
)
def test_an_output_is_compared_line_by_line(printed: str, shown: str, is_one: bool) -> None:
    assert matches(printed, shown) is is_one


async def test_blocks_of_one_language_share_their_names(tmp_path: Path) -> None:
    await followed(
        tmp_path,
        block("export NAME=tide; cd examples"),
        block("import os\nn = 6", "python"),
        block('echo "$NAME" in $(basename "$PWD")'),
        block("tide in examples", "text", "prints"),
        block("print(n * 7)", "python"),
        block("42", "text", "prints"),
    )


async def test_a_block_may_end_with_the_code_that_its_mark_names(tmp_path: Path) -> None:
    await followed(tmp_path, block("exit 3", mark="exits with 3"), block("echo more"))


async def test_a_backup_goes_into_the_folder_of_the_page(tmp_path: Path) -> None:
    await followed(tmp_path, block("mkdir -p /backup/lowtide"), block("ls -d backup/lowtide"))


async def test_a_file_of_a_page_is_there_for_its_commands(tmp_path: Path) -> None:
    toml = block('[server]\npath_prefix = "/b"', "toml", "file lowtide.toml")
    await followed(tmp_path, toml, block("grep -c prefix lowtide.toml"))


async def test_a_port_of_a_page_is_one_that_is_free_here(tmp_path: Path) -> None:
    serve = (
        "import sys, http.server as h; h.test(h.SimpleHTTPRequestHandler, port=int(sys.argv[2]))"
    )
    fetch = "import urllib.request as u\nurl = 'http://127.0.0.1:9001/examples/'\n"
    fetch += "print(b'batch.jsonl' in u.urlopen(url).read())"
    await followed(
        tmp_path,
        block(f'python -c "{serve}" --port 9001', mark="in the background"),
        block(fetch, "python"),
        block("True", "text", "prints"),
    )


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ((block("echo so; false"),), r"line 3: exit code 1:\nso"),
        ((block("false | cat"),), "exit code 1"),
        ((block("true", mark="exits with 1"),), "exit code 1"),
        ((block("exit 3", mark="exits with 1"),), "exit code 1"),
        ((block("echo $UNSET_NAME"),), "UNSET_NAME"),
        ((block("print(1)\n1 / 0", "python"),), "(?s)exit code 1.*ZeroDivisionError"),
        ((block("echo 1"), block("2", "text", "prints")), "line 8: this was printed instead:\n1"),
        ((block("x = 1", "python", "excerpt of examples/run_demo.py"),), "do not stand in"),
    ],
)
async def test_a_page_that_is_wrong_fails_with_its_line(
    tmp_path: Path, parts: tuple[str, ...], words: str
) -> None:
    with pytest.raises(PageError, match=words):
        await followed(tmp_path, *parts)
