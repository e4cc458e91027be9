"""Would those who read deploy/ take it, by their own schemas? Part of `make lint`.

    python tools/check_deploy.py

Kubernetes manifests against the schemas of two versions, compose.yaml against the compose
specification, systemd units by systemd itself where that is installed, the Dockerfile as a builder
would read it; likewise what the how-to pages show of nginx and Prometheus, where these are
installed. No engine and no cluster is needed, and nothing is fetched. That names, ports and
times agree with the code is for tests/repo/test_deploy.py.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import kubernetes_validate  # type: ignore[import-untyped]
import yaml
from dockerfile_parse import DockerfileParser  # type: ignore[import-untyped]

DEPLOY: Final = Path(__file__).parents[1] / "deploy"
HOW_TO: Final = Path(__file__).parents[1] / "docs" / "how-to"
KUBERNETES: Final = ("1.30", "1.37")
"""The oldest that we say works, and the newest that the package knows."""
EXPOSURE_MAX: Final = 20
"""Of 100, as `systemd-analyze security` counts; a unit without any hardening has 96."""
TOOL_S: Final = 60.0
_INSTRUCTIONS: Final = frozenset(
    {
        *("ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL"),
        *("RUN", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
    }
)


class Wrong(Exception):
    """Something in deploy/ would not be taken; the message says what."""


def kubernetes() -> str:
    checked = 0
    folder = DEPLOY / "kubernetes"
    found = DEPLOY / "kubernetes-discovery"  # beside it there is a patch, which is no whole object
    scaled = DEPLOY / "kubernetes-scaler"
    roles = (found / "role.yaml", scaled / "role.yaml")
    for path in (*sorted(folder.glob("*.yaml")), *roles):
        if path.name == "kustomization.yaml":
            continue
        for document in yaml.safe_load_all(path.read_text()):
            for version in KUBERNETES:
                _fits(document, version, path.name)
            checked += 1
    named = yaml.safe_load((folder / "kustomization.yaml").read_text())
    generated = [name for each in named["configMapGenerator"] for name in each["files"]]
    for name in (*named["resources"], *generated):
        if not (folder / name).is_file():
            raise Wrong(f"kustomization.yaml names {name}, which is not there")
    for place in (found, scaled):
        overlay = yaml.safe_load((place / "kustomization.yaml").read_text())
        patches = [each["path"] for each in overlay.get("patches", ())]
        for name in (*overlay["resources"], *patches, *overlay["configMapGenerator"][0]["files"]):
            if not (place / name).exists():
                raise Wrong(f"{place.name} names {name}, which is not there")
    return f"{checked} objects fit Kubernetes {' and '.join(KUBERNETES)}"


def _fits(document: Any, version: str, name: str) -> None:
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        where = ".".join(map(str, error.path))
        raise Wrong(f"{name}, {document['kind']} at {where}: {error.message}") from None


def compose() -> str:
    command = ["--builtin-schema", "vendor.compose-spec", str(DEPLOY / "compose.yaml")]
    _tool([sys.executable, "-m", "check_jsonschema", *command])
    return "compose.yaml fits the compose specification"


def dockerfile() -> str:
    with tempfile.TemporaryDirectory() as folder:  # the parser keeps its caches there
        parser = DockerfileParser(path=folder)
        parser.content = (DEPLOY / "Dockerfile").read_text()
        steps = [step for step in parser.structure if step["instruction"] != "COMMENT"]
    for step in steps:
        name, value = step["instruction"], step["value"]
        if name not in _INSTRUCTIONS:
            raise Wrong(f"Dockerfile:{step['startline'] + 1}: {name} is no instruction that we use")
        if name == "FROM" and not re.fullmatch(r"[\w/-]+:[\w.-]+( AS \w+)?", value):
            raise Wrong(f"Dockerfile: FROM {value}: give an image and its tag, and no registry")
        if name in ("CMD", "ENTRYPOINT", "HEALTHCHECK"):
            _is_exec_form(name, value.rpartition(" CMD ")[2] if name == "HEALTHCHECK" else value)
    return f"{len(steps)} instructions of the Dockerfile read well"


def _is_exec_form(name: str, value: str) -> None:
    """The other form starts a shell, which would take the signals to stop and keep them."""
    try:
        words = json.loads(value)
    except ValueError:
        words = None
    if not (isinstance(words, list) and words and all(isinstance(word, str) for word in words)):
        raise Wrong(f"Dockerfile: {name} must be a JSON list of words: {value}")


def systemd() -> str:
    if shutil.which("systemd-analyze") is None:
        return "systemd units: not checked: systemd-analyze is not installed"
    with tempfile.TemporaryDirectory() as name:
        units = list(_units(Path(name)))
        _tool(["systemd-analyze", "verify", "--man=no", *map(str, units)])
        for unit in units:
            security = ["security", "--offline=true", f"--threshold={EXPOSURE_MAX}", "--no-pager"]
            _tool(["systemd-analyze", *security, str(unit)])
    return f"{len(units)} systemd units verified, exposure at most {EXPOSURE_MAX} of 100"


def _units(folder: Path) -> Iterator[Path]:
    """Copies whose program is there: that of a real installation is not, on this machine."""
    for unit in sorted((DEPLOY / "systemd").glob("*.service")):
        text = re.sub(r"^(ExecStart=)\S+", r"\1/bin/true", unit.read_text(), flags=re.M)
        copy = folder / unit.name
        copy.write_text(text)
        yield copy


def nginx() -> str:
    """The server of docs/how-to/deploy.md, with a certificate and at a port of this machine."""
    (shown,) = re.findall(r"^```nginx\n(.*?)^```$", (HOW_TO / "deploy.md").read_text(), re.M | re.S)
    if shutil.which("nginx") is None or shutil.which("openssl") is None:
        return "nginx on the pages: not checked: nginx or openssl is not installed"
    with tempfile.TemporaryDirectory() as name:
        names = ["-subj", "/CN=batch.example.org", "-keyout", f"{name}/key", "-out", f"{name}/pem"]
        _tool(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *names])
        keys = f"ssl_certificate {name}/pem; ssl_certificate_key {name}/key;"
        server = re.sub("# ssl_certificate .*", keys, shown).replace("443", "127.0.0.1:4443", 1)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        folders = "".join(f"{kind}_temp_path {name}/{kind};\n" for kind in kinds)
        file = Path(name) / "nginx.conf"
        http = f"access_log off;\n{folders}{server}"
        file.write_text(f"pid {name}/pid;\nevents {{}}\nhttp {{\n{http}}}\n")
        _tool(["nginx", "-t", "-q", "-e", f"{name}/log", "-p", name, "-c", str(file)])
    return "nginx takes the server of deploy.md"


def alerts() -> str:
    """The alert rules of deploy/, and the scrape configuration of docs/how-to/monitoring.md."""
    page = (HOW_TO / "monitoring.md").read_text()
    scrapes, rules = re.findall(r"^```yaml\n(.*?)^```$", page, re.M | re.S)
    if shutil.which("promtool") is None:
        return "alert rules on the pages: not checked: promtool is not installed"
    with tempfile.TemporaryDirectory() as name:
        for kind, text in (("config", scrapes), ("rules", rules)):
            path = Path(name) / f"{kind}.yml"
            path.write_text(text.replace("/etc/prometheus/lowtide.key", str(path)))
            _tool(["promtool", "check", kind, str(path)])
    _tool(["promtool", "check", "rules", str(DEPLOY / "prometheus" / "lowtide.rules.yaml")])
    return "Prometheus takes the rules of deploy/, and rules and configuration of monitoring.md"


def _tool(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_S, check=False)
    if done.returncode != 0:
        raise Wrong(f"{' '.join(command[:4])}:\n{done.stdout}{done.stderr}")


CHECKS: Final[tuple[Callable[[], str], ...]] = (
    kubernetes,
    compose,
    dockerfile,
    systemd,
    nginx,
    alerts,
)


def main() -> int:
    failed = False
    for check in CHECKS:
        try:
            print(f"deploy: {check()}")
        except Wrong as wrong:
            failed = True
            print(f"deploy: {wrong}", file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
