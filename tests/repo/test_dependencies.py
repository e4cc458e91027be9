"""What Lowtide is installed with: licences that let everybody use it, and an honest audit."""

import importlib.util
import re
import subprocess
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from tree import ROOT

PERMISSIVE = {
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC", "MIT", "PSF-2.0", "Zlib"
}  # fmt: skip
# Weak copyleft, unmodified, and each for a reason. Nothing of it reaches our own code's licence.
EXCEPTIONS = {
    "certifi": "MPL-2.0: a list of certificates, not code; httpx and requests read it",
    "tqdm": "MPL-2.0 AND MIT: only with the extra `hub`, whose download bar it is",
    "pathspec": "MPL-2.0: only hatchling's, while this tree is installed",
}
SPELLINGS = {
    "MIT License": "MIT",
    "ISC License": "ISC",
    "Apache Software License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}


def runtime() -> list[Requirement]:
    """What is installed on this machine with every extra; requirements.txt is a part of it."""
    text = (ROOT / "requirements-tables.txt").read_text().replace("\\\n", "")
    lines = [re.split(r"\s--hash=", line)[0].strip() for line in text.splitlines()]
    found = [Requirement(line) for line in lines if line]
    return [each for each in found if each.marker is None or each.marker.evaluate()]


def test_a_server_and_a_submitter_with_tables_have_the_same_versions() -> None:
    def pins(name: str) -> set[str]:
        return set(re.findall(r"^\S+==\S+", (ROOT / name).read_text(), re.M))

    more = pins("requirements-tables.txt") - pins("requirements.txt")
    assert pins("requirements.txt") < pins("requirements-tables.txt")
    assert {pin.partition("==")[0] for pin in more} == {"pyarrow"}


def licences(of: Distribution) -> set[str]:
    """All that hold together (AND); of alternatives (OR) the permissive ones. Empty: none named."""
    expression = of.metadata.get("License-Expression") or of.metadata.get("License") or ""
    if not expression or len(expression) > 80:  # a whole licence text
        trove = [c for c in of.metadata.get_all("Classifier") or [] if c.startswith("License ::")]
        expression = " AND ".join(c.rpartition(" :: ")[2] for c in trove)
    named = set()
    for part in expression.split(" AND "):
        choices = {SPELLINGS.get(c.strip(), c.strip(" ()")) for c in part.split(" OR ")}
        named |= (choices & PERMISSIVE) or choices
    return named - {""}


@pytest.mark.parametrize("requirement", runtime(), ids=lambda each: each.name)
def test_a_runtime_dependency_has_a_permissive_licence(requirement: Requirement) -> None:
    try:
        found = licences(distribution(requirement.name))
    except PackageNotFoundError:
        pytest.fail(f"{requirement.name} is pinned for this machine and not installed")
    if requirement.name in EXCEPTIONS:
        assert "MPL-2.0" in found
    else:
        assert found, "it names no licence"
        assert found <= PERMISSIVE


def test_every_exception_is_still_needed() -> None:
    assert EXCEPTIONS.keys() <= {requirement.name for requirement in runtime()}


# ---- the audit ----------------------------------------------------------------------------------


def load() -> ModuleType:
    """tools/audit.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("audit", ROOT / "tools" / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["audit"] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


audit = load()
CONTROL = {"name": "django", "version": "2.2", "vulns": [{"id": "PYSEC-1", "fix_versions": []}]}
SOUND = {"name": "a", "version": "1", "vulns": []}


def test_a_known_vulnerability_fails_the_audit_and_says_what_mends_it() -> None:
    ill = {"name": "a", "version": "1", "vulns": [{"id": "PYSEC-2", "fix_versions": ["1.1"]}]}
    found = audit.verdict(1, {"dependencies": [CONTROL, ill]})
    assert found.failed
    assert "a 1" in found.text
    assert "PYSEC-2; mended in 1.1" in found.text


def test_a_clean_answer_counts_only_from_a_service_that_knows_the_control() -> None:
    trusted = audit.verdict(2, {"dependencies": [CONTROL, SOUND]})
    assert (trusted.failed, "1 versions, no known" in trusted.text) == (False, True)
    assert trusted.text.endswith("1 not known to the service")
    mirror = {**CONTROL, "vulns": []}
    assert "not checked" in audit.verdict(1, {"dependencies": [mirror, SOUND]}).text


@pytest.mark.parametrize(
    "answer", [None, {}, {"dependencies": [{"name": "a", "skip_reason": "not found"}]}]
)
def test_without_a_service_the_audit_says_that_nothing_was_checked(answer: object) -> None:
    found = audit.verdict(1, answer)
    assert not found.failed
    assert found.text == "dependency audit: not checked: no advisory service reachable"


def test_the_audit_asks_about_every_pinned_version() -> None:
    text = (ROOT / "requirements.txt").read_text()
    assert len(audit.pins(text)) == len(re.findall(r"^\S+==", text, re.M))
    assert audit.pins("SQLAlchemy[asyncio]==2.0.1 \\\n    --hash=x\n") == {("sqlalchemy", "2.0.1")}


def test_a_package_that_is_pinned_twice_is_asked_about_twice() -> None:
    """pip-audit takes no list that names a package in two versions."""
    wanted = [("a", "1"), ("b", "1"), ("a", "2"), ("c", "3")]
    asked = audit.rounds(wanted)
    assert sorted(pin for each in asked for pin in each) == sorted(wanted)
    assert all(len({name for name, _ in each}) == len(each) for each in asked)
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("said", "is_network"),
    [("requests.exceptions.ConnectionError: no route", True), ("No module named pip_audit", False)],
)
def test_only_the_network_may_be_the_reason_for_no_answer(
    monkeypatch: pytest.MonkeyPatch, said: str, is_network: bool
) -> None:
    done = subprocess.CompletedProcess([], 1, "", said)
    monkeypatch.setattr(audit.subprocess, "run", lambda *_, **__: done)
    if is_network:
        assert audit.ask("osv", [("a", "1")]) is None
    else:
        with pytest.raises(SystemExit, match="No module named"):
            audit.ask("osv", [("a", "1")])
