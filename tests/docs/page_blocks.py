"""The blocks of code on a Markdown page, and the marks that say what a test does with them.

`page_session` runs them; every test that follows a page reads it here. A block without a mark runs
if its language is shell or Python. A mark is an HTML comment on the line before the block, which a
reader of the rendered page does not see:

    <!-- page: in the background -->           a command that does not return, such as a server
    <!-- page: exits with 1 -->                run, and its last line ends with this code
    <!-- page: not run, WHY -->                WHY is a key of `EVIDENCE`, and the block shows it
    <!-- page: excerpt of PATH -->             not run: these lines stand in that file of the tree
    <!-- page: file NAME -->                   saved under that name in the page's folder
    <!-- page: prints -->                      what the block before printed; `...` is any text
    <!-- page: prints with the demo model -->  the same, where the real model answers
    <!-- page: prints, for example -->         times, ids and the like: a reader's will differ

Invariant: `blocks_of` refuses a mark that it does not know, or that has no block.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

EXITS_WITH: Final = "exits with "
SHELL: Final = frozenset({"", "sh", "bash"})
PYTHON: Final = frozenset({"python"})
EVIDENCE: Final = {
    "needs root": r"\b(sudo|apt-get)\b",
    "needs systemd": r"\b(systemctl|journalctl|systemd-run)\b",
    "needs PostgreSQL": r"\b(psql|pg_dump|pg_restore|dropdb|createdb)\b|postgresql://",
    "needs several machines": r"--role api|\blowtide worker\b|--config lowtide\.toml",
    "needs a cluster": r"\b(kubectl|helm|docker)\b",
    "needs a cloud": r"\b(s3|gs|az)://|\baws\b|\bgcloud\b|api\.openai\.com|api\.together\.",
    "needs a network": r"\b(pip install|git clone|brew install)\b"
    r"|https?://(?!127\.0\.0\.1|localhost)",
    "needs an engine of yours": r"YOUR-MODEL|\b(vllm|sglang|ollama) ",
    "needs a file of yours": r"\bfile-abc123\b",
    "needs a server of yours": r"\bbatch\.example\.org\b",
    "needs a webhook of yours": r"\bwh_\.\.\.",
    "needs a person": r"Ctrl-C",
    "is this test run": r"\bmake (run|test[a-z-]*)\b",
}
"""Why a block does not run, and what such a block has in it."""

_BLOCK: Final = re.compile(
    r"(?:^ *<!-- page: (?P<mark>[^\n]+?) -->\n\n?)?"
    r"^(?P<indent> *)```(?P<language>[\w-]*)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_MARK: Final = re.compile(r"<!-- page: [^\n]*-->")
_KINDS: Final = ("excerpt of ", "file ", "not run, ", EXITS_WITH)
_FIXED: Final = (
    "in the background",
    "prints",
    "prints with the demo model",
    "prints, for example",
)


class PageError(Exception):
    """A page that cannot be followed: where, and what to write instead."""


@dataclass(frozen=True, slots=True)
class Block:
    """One block of code, without the indentation of its list item. `line` is its fence's."""

    line: int
    language: str
    text: str
    mark: str = ""

    @property
    def is_shell(self) -> bool:
        return self.language in SHELL

    @property
    def runs(self) -> bool:
        """Whether a follower of the page runs it and waits for its end."""
        unmarked = not self.mark or self.mark.startswith(EXITS_WITH)
        return unmarked and (self.is_shell or self.language in PYTHON)

    @property
    def exit_code(self) -> int:
        """The one that it must end with."""
        return int(self.after(EXITS_WITH) or 0)

    def after(self, kind: str) -> str | None:
        """What the mark says after `kind`, for example a file's name; None for other marks."""
        return self.mark.removeprefix(kind) if self.mark.startswith(kind) else None


def blocks_of(page: str) -> list[Block]:
    """All blocks of a page, in order. Raises PageError."""
    found = []
    for match in _BLOCK.finditer(page):
        line = page.count("\n", 0, match.start("language")) + 1
        text = re.sub(rf"^{match['indent']}", "", match["text"], flags=re.MULTILINE)
        found.append(_checked(Block(line, match["language"], text, match["mark"] or "")))
    marks = len(_MARK.findall(page))
    if marks != sum(1 for block in found if block.mark):
        raise PageError(f"{marks} marks, of which some do not stand directly before a block")
    return found


def blocks_that(page: Path, wanted: str) -> list[Block]:
    """The blocks of a page that have these words in them. Raises PageError."""
    return [block for block in blocks_of(page.read_text()) if wanted in block.text]


def _checked(block: Block) -> Block:
    known = not block.mark or block.mark in _FIXED or block.mark.startswith(_KINDS)
    if not known:
        raise PageError(f"line {block.line}: unknown mark {block.mark!r}")
    code = block.after(EXITS_WITH)
    if code is not None and not (code.isdecimal() and block.is_shell):
        raise PageError(f"line {block.line}: only a shell block exits with a number: {code!r}")
    reason = block.after("not run, ")
    if reason is not None:
        if reason not in EVIDENCE:
            raise PageError(f"line {block.line}: {reason!r} is no reason; one of {[*EVIDENCE]}")
        if not re.search(EVIDENCE[reason], block.text):
            raise PageError(f"line {block.line}: nothing in this block {reason}: remove the mark")
    return block


def matches(printed: str, shown: str) -> bool:
    """Whether `printed` is what the page shows, where a `...` stands for any text."""
    pattern = ".*?".join(re.escape(part) for part in _plain(shown).split("..."))
    return re.fullmatch(pattern, _plain(printed), re.DOTALL) is not None


def _plain(text: str) -> str:
    """Without spaces at the ends of lines and of the whole."""
    return "\n".join(line.rstrip() for line in text.strip().splitlines())
