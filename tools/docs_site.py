"""Makes the site out of the Markdown pages, for people and for agents.

    python tools/docs_site.py SITE_FOLDER

`make docs-site` runs it. Pages of docs/ and a few others are copied to a folder beside, links
between them are rewritten, links to code become plain words, and mkdocs renders them, strictly: a
link that leads nowhere ends it. Beside each page stands its Markdown, and llms.txt lists them all.
Invariant: the site asks nothing of another host.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

ROOT: Final = Path(__file__).parent.parent
_OTHER_PAGES: Final = {
    "README.md": "index.md",
    "examples/README.md": "examples.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CODE_OF_CONDUCT.md": "code-of-conduct.md",
    "bench/RESULTS.md": "bench/results.md",
    "bench/LONG_RUNS.md": "bench/long-runs.md",
    "lowtide.example.toml": "reference/example-settings.md",
    "LICENSE": "license.md",
}
"""Pages outside docs/, and where they stand in the site. What is no Markdown is shown as text."""

_SECTIONS: Final = (
    ("Cookbook", ("cookbook/README.md", "cookbook/*.md")),
    ("Start", ("index.md", "how-to/install.md", "examples.md", "faq.md")),
    ("How to", ("how-to/*.md",)),
    ("Reference", ("reference/*.md",)),
    ("Explanation", ("architecture.md", "live-traffic*.md", "simulator.md", "invariants/*.md")),
    ("Decisions", ("decisions/*.md",)),
    ("Measurements", ("bench/*.md",)),
    ("Project", ("*.md",)),
)
"""The navigation, in its order: a page is in the first section that has a pattern for it."""

_LINK: Final = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
_FENCE: Final = re.compile(r"^(\s*)(```|~~~)")
_OTHER_HOST: Final = re.compile(rb'(?:src|href)="(?:https?:)?//[^"]+\.(?:js|css|woff2?)[^"]*"')


def main(site: Path) -> int:
    """Builds the site into `site`; the exit code of mkdocs."""
    staged = site.parent / f"{site.name}-pages"
    shutil.rmtree(staged, ignore_errors=True)
    places = _places()
    for source, page in places.items():
        target = staged / page
        target.parent.mkdir(parents=True, exist_ok=True)
        if page.endswith(".md"):
            target.write_text(_page(source, page, places), encoding="utf-8")
        else:
            target.write_bytes((ROOT / source).read_bytes())
    config = staged.parent / "mkdocs.json"
    config.write_bytes(msgspec.json.format(msgspec.json.encode(_config(staged, site)), indent=2))
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--clean", "-f", str(config)],
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"},
        check=False,
    )
    if done.returncode:
        return done.returncode
    _for_agents(staged, site)
    foreign = [str(page) for page in site.rglob("*.html") if _OTHER_HOST.search(page.read_bytes())]
    if foreign:
        print(f"These pages ask another host for something: {', '.join(foreign[:5])}")
        return 1
    print(f"{len(places)} pages in {site}; open {site / 'index.html'}")
    return 0


def _places() -> dict[str, str]:
    """Where each file of the tree stands in the site; paths with slashes, from either root."""
    places = dict(_OTHER_PAGES)
    for path in sorted((ROOT / "docs").rglob("*")):
        if path.suffix in (".md", ".png"):
            page = path.relative_to(ROOT / "docs").as_posix()
            places[f"docs/{page}"] = "contents.md" if page == "README.md" else page
    return places


def _page(source: str, page: str, places: dict[str, str]) -> str:
    text = (ROOT / source).read_text(encoding="utf-8")
    if not source.endswith(".md"):
        kind = "toml" if source.endswith(".toml") else "text"
        return f"# {Path(source).name}\n\n```{kind}\n{text}```\n"
    return "\n".join(_rewritten(text, source, page, places)) + "\n"


def _rewritten(text: str, source: str, page: str, places: dict[str, str]) -> Iterator[str]:
    """The lines with their links as the site has them; code blocks as they are."""

    def link(found: re.Match[str]) -> str:
        bang, words, target = found.groups()
        path, hash_mark, anchor = target.partition("#")
        if "://" in target or target.startswith(("mailto:", "#")):
            return found[0]
        wanted = os.path.normpath((Path(source).parent / path).as_posix())
        if (there := places.get(wanted) or places.get(f"{wanted}/README.md")) is None:
            return words  # code, or a folder: a reader of the site does not have it
        here = os.path.relpath(there, Path(page).parent.as_posix())
        return f"{bang}[{words}]({here}{hash_mark}{anchor})"

    fence = ""
    for line in text.splitlines():
        mark = _FENCE.match(line)
        if mark and (not fence or mark[2] == fence):
            fence = "" if fence else mark[2]
        yield line if fence or mark else _LINK.sub(link, line)


def _config(staged: Path, site: Path) -> dict[str, Any]:
    return {
        "site_name": "Lowtide",
        "site_description": "A Batch API for the models you already serve",
        "docs_dir": str(staged.resolve()),
        "site_dir": str(site.resolve()),
        "use_directory_urls": False,
        "theme": {
            "name": "material",
            "font": False,
            "features": ["navigation.top", "navigation.indexes", "content.code.copy", "toc.follow"],
            "palette": [
                {
                    "media": "(prefers-color-scheme: light)",
                    "scheme": "default",
                    "toggle": {"icon": "material/weather-night", "name": "Dark"},
                },
                {
                    "media": "(prefers-color-scheme: dark)",
                    "scheme": "slate",
                    "toggle": {"icon": "material/weather-sunny", "name": "Light"},
                },
            ],
        },
        "plugins": ["material/search", "material/offline"],  # so that search works from disk
        "markdown_extensions": [
            "tables",
            "admonition",
            "sane_lists",
            {"toc": {"permalink": True}},
            "pymdownx.superfences",
            "pymdownx.highlight",
        ],
        "validation": {
            "links": {"not_found": "warn", "anchors": "warn", "unrecognized_links": "warn"},
            "nav": {"omitted_files": "warn"},
        },
        "nav": _navigation(staged),
    }


def _navigation(staged: Path) -> list[dict[str, Any]]:
    taken: set[str] = set()
    nav: list[dict[str, Any]] = []
    for section, patterns in _SECTIONS:
        pages = []
        for pattern in patterns:
            for path in sorted(staged.glob(pattern)):
                page = path.relative_to(staged).as_posix()
                if page not in taken:
                    taken.add(page)
                    pages.append({_title(path): page})
        if pages:
            nav.append({section: pages})
    rest = sorted(path.relative_to(staged).as_posix() for path in staged.rglob("*.md"))
    nav[-1]["Project"] += [{_title(staged / page): page} for page in rest if page not in taken]
    return nav


def _title(page: Path) -> str:
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            return line[2:].replace("`", "").strip()
    return page.stem


def _summary(page: Path) -> str:
    """The first paragraph of prose, in one line."""
    for block in page.read_text(encoding="utf-8").split("\n\n"):
        words = " ".join(block.split())
        if words and words[0] not in "#<|`-!>[{":
            return words[:200]
    return ""


def _for_agents(staged: Path, site: Path) -> None:
    """The Markdown of each page beside it, and llms.txt (llmstxt.org), which lists them."""
    lines = ["# Lowtide", "", "> A Batch API for the models you already serve.", ""]
    for entry in _navigation(staged):
        for section, pages in entry.items():
            lines += [f"## {section}", ""]
            for page in (page for each in pages for page in each.values()):
                source = staged / page
                target = site / page
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read_bytes())
                summary = _summary(source)
                lines.append(f"- [{_title(source)}]({page})" + (f": {summary}" if summary else ""))
            lines.append("")
    (site / "llms.txt").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tools/docs_site.py SITE_FOLDER")
    sys.exit(main(Path(sys.argv[1])))
