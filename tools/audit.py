"""Are versions that we pin known to be vulnerable? Part of `make lint`.

    python tools/audit.py [REQUIREMENTS...]

Asks the advisory services of pip-audit, one after the other, about every pinned version. A service
that cannot be reached, or a mirror that has packages and no advisories, must not pass for a clean
bill: an old version of a well-known package, about which every advisory service has something to
say, is asked about along with ours, and without that answer the verdict is "not checked". Exit code
1 only for a known vulnerability, so that `make lint` works offline.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
CONTROL: Final = ("django", "2.2")  # never ours; many advisories, in every database
SERVICES: Final = ("pypi", "osv")
SOCKET_S: Final = 10
AUDIT_S: Final = 180.0  # about sixty small answers
_PIN: Final = re.compile(r"^([\w.-]+)(?:\[[\w,-]+\])?==([^\s;\\]+)", re.M)
_OUT_OF_REACH: Final = re.compile(r"ConnectionError|ServiceError|Could not connect|Timeout")
Json = dict[str, Any]
Pin = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`failed`: a pinned version is known to be vulnerable. `final`: no other service is asked."""

    text: str
    final: bool = False
    failed: bool = False


def pins(text: str) -> frozenset[Pin]:
    """Names and versions of a requirement file."""
    return frozenset((name.lower(), version) for name, version in _PIN.findall(text))


def verdict(wanted: int, answer: Json | None) -> Verdict:
    """`answer` is pip-audit's JSON, None when it gave none."""
    rows = [row for row in (answer or {}).get("dependencies", ()) if "vulns" in row]
    known = {(row["name"].lower(), row["version"]): row["vulns"] for row in rows}
    is_trusted = bool(known.pop(CONTROL, None))
    found = [_reported(name, version, vulns) for (name, version), vulns in known.items() if vulns]
    if found:
        return Verdict("\n".join(found), final=True, failed=True)
    if not is_trusted:
        return Verdict("dependency audit: not checked: no advisory service reachable")
    unknown = f", {wanted - len(known)} not known to the service" if len(known) < wanted else ""
    return Verdict(
        f"dependency audit: {len(known)} versions, no known vulnerability{unknown}", final=True
    )


def _reported(name: str, version: str, vulns: Sequence[Mapping[str, Any]]) -> str:
    ids = ", ".join(str(each["id"]) for each in vulns)
    fixed = sorted({fix for each in vulns for fix in each.get("fix_versions", ())})
    mend = f"; mended in {', '.join(fixed)}" if fixed else ""
    return f"dependency audit: {name} {version} is vulnerable: {ids}{mend}"


def rounds(wanted: Iterable[Pin]) -> list[list[Pin]]:
    """Lists in which each package is there once: markers pin some of them in two versions."""
    found: list[list[Pin]] = []
    for pin in sorted(wanted):
        for each in found:
            if pin[0] not in (name for name, _ in each):
                each.append(pin)
                break
        else:
            found.append([pin])
    return found


def ask(service: str, wanted: Iterable[Pin]) -> Json | None:
    """pip-audit's answer about these and the control; None when the service is out of reach."""
    rows: list[Json] = []
    for each in rounds(wanted):
        answer = _ask_once(service, [*each, CONTROL])
        if answer is None:
            return None
        rows += answer["dependencies"]
    return {"dependencies": rows}


def _ask_once(service: str, wanted: Sequence[Pin]) -> Json | None:
    """Raises SystemExit when pip-audit fails of anything but the network."""
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "pins.txt"
        listed.write_text("".join(f"{name}=={version}\n" for name, version in wanted))
        command = [
            *(sys.executable, "-m", "pip_audit", "--requirement", str(listed)),
            *("--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"),
            *("--timeout", str(SOCKET_S), "--vulnerability-service", service),
        ]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=AUDIT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return None
    if done.stdout.strip():
        return dict(json.loads(done.stdout))
    if _OUT_OF_REACH.search(done.stderr):
        return None
    raise SystemExit(f"dependency audit: pip-audit failed:\n{done.stderr}")


def main(arguments: Sequence[str]) -> int:
    files = [Path(name) for name in arguments] or [ROOT / "requirements.txt"]
    wanted = frozenset[Pin]().union(*(pins(file.read_text()) for file in files))
    found = verdict(len(wanted), None)
    for service in SERVICES:
        found = verdict(len(wanted), ask(service, wanted))
        if found.final:
            break
    print(found.text)
    return int(found.failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
