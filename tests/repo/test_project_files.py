"""What stands around the code agrees with it: build jobs, metadata, hooks."""

import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PYTHON = "Programming Language :: Python :: 3."


def loaded(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


def project() -> Any:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_each_python_that_is_promised_is_tested() -> None:
    promised = [c.removeprefix(PYTHON) for c in project()["classifiers"] if c.startswith(PYTHON)]
    jobs = loaded(".github/workflows/ci.yml")["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == [f"3.{minor}" for minor in promised]
    assert project()["requires-python"] == f">=3.{promised[0]}"


def test_the_required_job_waits_for_every_other() -> None:
    jobs = loaded(".github/workflows/ci.yml")["jobs"]
    required = jobs["required"]
    assert set(required["needs"]) == jobs.keys() - {"required"}
    succeeded = " ".join(["success"] * len(required["needs"]))
    assert f'"{succeeded}"' in required["steps"][0]["run"]


def test_jobs_end_by_themselves_and_may_only_read() -> None:
    for name in ("ci", "release"):
        workflow = loaded(f".github/workflows/{name}.yml")
        assert workflow["permissions"] == {"contents": "read"}
        assert all(job["timeout-minutes"] for job in workflow["jobs"].values())


def test_what_jobs_and_hooks_run_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = {
        word
        for name in ("ci", "release")
        for job in loaded(f".github/workflows/{name}.yml")["jobs"].values()
        for step in job["steps"]
        if (word := " ".join(step.get("run", "").split()[:2])).startswith("make ")
    }
    assert targets == {"make check", "make wheel", "make test"}
    assert all(f"\n{target.split()[1]}:" in makefile for target in targets)
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["dev"]
    installed = {group.split(">")[0] for group in groups}
    for repository in loaded(".pre-commit-config.yaml")["repos"]:
        for hook in repository["hooks"]:
            assert hook["entry"].split()[0].removeprefix(".venv/bin/") in installed


def test_forms_ask_for_what_they_say() -> None:
    for form in sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")):
        fields = loaded(str(form.relative_to(ROOT))).get("body", [])
        ids = [field["id"] for field in fields if field["type"] != "markdown"]
        assert len(ids) == len(set(ids)), form.name
