"""The pages: links lead somewhere, the codes are those of the code, the commands are there."""

import ast
import re
from hashlib import sha256
from pathlib import Path
from typing import get_args

import pytest
from tree import ROOT, SRC, modules, pages, shown

from lowtide import config
from lowtide.api.http.errors import STATUS_OF
from lowtide.core.batches.line import UnexecutedCode
from lowtide.core.errors import ErrorCode
from lowtide.core.faults.fault import FAULTS

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^( *)```.*?^\1```$", re.M | re.S)


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", pages(), ids=shown)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        assert place.exists(), f"{shown(page)}: {target}"
        assert place.is_relative_to(ROOT), f"{shown(page)}: {target} leads out of the tree"
        if anchor:
            assert anchor in anchors(place), f"{shown(page)}: {target} has no such heading"


def test_the_index_names_every_page() -> None:
    docs = ROOT / "docs"
    named = {(docs / target).resolve() for target in LINK.findall((docs / "README.md").read_text())}
    assert {shown(p) for p in docs.rglob("*.md")} - {shown(p) for p in named if p.is_file()} == {
        "docs/README.md"
    }


def test_the_architecture_page_says_what_each_loop_does() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    reported = {
        name for row in re.findall(r"^\| ([a-z, -]+) \|", text, re.M) for name in row.split(", ")
    }
    code = "\n".join(path.read_text() for path in (SRC / "loops").rglob("*.py"))
    names = set(re.findall(r'^    name = "([a-z_-]+)"$', code, re.M))
    assert len(names) > 20
    assert names - reported == set()


def test_the_first_screen_of_the_readme_has_both_commands() -> None:
    first_screen = (ROOT / "README.md").read_text().splitlines()[:24]
    assert any(line.startswith("make run ") for line in first_screen)
    assert any(line.startswith("make test ") for line in first_screen)


def test_every_make_target_that_a_page_names_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for page in pages():
        named = set(re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), re.M))
        assert named <= targets, shown(page)


def test_every_key_of_the_example_settings_is_one_and_has_its_default() -> None:
    settings = config.load(ROOT / "lowtide.example.toml", {})
    plain = config.Settings()
    for section in ("server", "auth", "catalogue", "limits", "dispatch", "scale"):
        assert getattr(settings, section) == getattr(plain, section)
    (replica,), (source,), (model,) = settings.replica, settings.source, settings.model
    assert replica == config.ReplicaSettings(url=replica.url, models=replica.models)
    assert source == config.SourceSettings(kind="file", path=source.path)
    assert model.batch_discount == config.ModelSettings(id="m").batch_discount


def by_kind_of_source(text: str) -> str:
    """The settings with a table more for each kind of source, which has the keys of its kind."""
    before, header, rest = text.partition("\n[[source]]\n")
    source, after, models = rest.partition("\n# What starts and stops the engines")
    kinds = {
        "dns": ("name", "nameserver", "port"),
        "kubernetes": ("namespace", "service", "api_url", "token_file", "api_ca_file"),
        "ray": ("dashboard", "application"),
    }
    more = ""
    for kind, keys in kinds.items():
        own = rf"^# (?:{'|'.join(keys)}) = .*\n"
        more += f'\n[[source]]\nkind = "{kind}"\n' + "".join(re.findall(own, source, re.M))
        source = re.sub(own, "", source, flags=re.M)
    return before + header + source + more + after + models


def by_kind_of_scaler(text: str) -> str:
    """The settings with a table more for each kind of scaler, which has the keys of its kind."""
    before, header, rest = text.partition("\n[[scaler]]\n")
    scaler, after, models = rest.partition("\n# Optional: what is known about a model.")
    kinds = {"ray": ("dashboard", "application"), "command": ("start", "stop", "folder")}
    more = ""
    for kind, keys in kinds.items():
        own = rf"^# (?:{'|'.join(keys)}) = .*\n"
        deployment = 'deployment = "Engine"\n' if kind == "ray" else ""
        more += f'\n[[scaler]]\nkind = "{kind}"\nmodels = ["for {kind}"]\n{deployment}'
        more += "".join(re.findall(own, scaler, re.M))
        scaler = re.sub(own, "", scaler, flags=re.M)
    return before + header + scaler + more + after + models


def test_every_commented_line_of_the_example_settings_would_be_accepted(tmp_path: Path) -> None:
    text = (ROOT / "lowtide.example.toml").read_text()
    live = tmp_path / "lowtide.toml"
    text = re.sub(r"^# api_key_(file|env) = .*\n", "", text, flags=re.M)  # in place of api_key
    text = re.sub(r'^(# )?url = "http:', r'\1url = "https:', text, flags=re.M)  # for `ca_file`
    secret = sha256(text.encode()).hexdigest()  # everybody knows that of the example
    text = re.sub(r"^# upload_secret = .*$", f'# upload_secret = "{secret}"', text, flags=re.M)
    text = text.replace('\nurl = "http://', '\nurl = "https://')  # as a ca_file wants
    text = text.replace('\nscheme = "http"', '\nscheme = "https"')
    text = by_kind_of_scaler(by_kind_of_source(text))
    live.write_text(re.sub(r"^# (\w+ = )", r"\1", text, flags=re.M))
    settings = config.load(live, {})
    assert settings.server.public_url
    assert settings.replica[0].headers
    assert settings.source[0].headers
    assert [each.kind for each in settings.source] == ["file", "dns", "kubernetes", "ray"]
    assert [each.kind for each in settings.scaler] == ["kubernetes", "ray", "command"]
    assert settings.model[0].aliases


# ---- error codes ---------------------------------------------------------------------------------


def tables() -> dict[str, dict[str, list[str]]]:
    """`heading -> code -> the rest of its row`, of the page of error codes."""
    text = (ROOT / "docs" / "reference" / "errors.md").read_text()
    found: dict[str, dict[str, list[str]]] = {}
    for part in text.split("\n## ")[1:]:
        rows = re.findall(r"^\| `(\w+)` \|(.+)\|$", part, re.M)
        assert len(dict(rows)) == len(rows), "a code is there twice"
        found[part.splitlines()[0]] = {code: rest.split(" | ") for code, rest in rows}
    return found


def codes_given_to(*names: str) -> set[str]:
    """First arguments of calls to these, where they are written out, in the core and the loops."""
    found: set[str] = set()
    for path in modules("src"):
        if path.is_relative_to(SRC / "core") or path.is_relative_to(SRC / "loops"):
            for node in ast.walk(ast.parse(path.read_text())):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Name)
                    and node.func.id in names
                    and node.args
                    and isinstance(node.args[0], ast.Constant)
                ):
                    found.add(str(node.args[0].value))
    return found


def test_the_codes_of_answers_are_those_of_the_code_with_their_status() -> None:
    documented = {code: int(rest[0]) for code, rest in tables()["In an HTTP answer"].items()}
    assert documented == dict(STATUS_OF)
    assert set(documented) == set(get_args(ErrorCode))


def test_the_codes_of_failed_validation_are_those_of_the_code() -> None:
    documented = tables()
    failed = set(documented["In a batch that failed validation"])
    warned = set(documented["Warnings of validation"])
    lost = set(documented["In a batch that lost data"])
    assert not failed & lost
    assert failed | warned | lost == codes_given_to("BatchError", "_Problem", "BatchError")


def test_the_codes_of_error_files_are_those_of_the_code() -> None:
    never_run = set(get_args(UnexecutedCode))
    assert set(tables()["In an error file"]) == (
        codes_given_to("Rejected") | {fault.code for fault in FAULTS.values()} | never_run
    )
