"""Reports which part of each module of the product the tests run. Part of `make coverage`.

Reads what `coverage json` wrote. A module below `LEAST` percent needs a reason in
`tests/uncovered.toml`, and a reason goes once its module is above: either fault ends it with 1.
"""

import json
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REASONS = ROOT / "tests" / "uncovered.toml"
LEAST = 85.0  # percent of a module's statements


def shares(report: Mapping[str, object]) -> dict[str, float]:
    """The percentage of statements that ran, by the module's path below `src/lowtide/`."""
    files: object = report["files"]
    assert isinstance(files, dict)
    return {
        name.partition("src/lowtide/")[2]: float(each["summary"]["percent_covered"])
        for name, each in files.items()
        if each["summary"]["num_statements"] and "src/lowtide/" in name
    }


def faults(measured: Mapping[str, float], reasons: Iterable[str]) -> list[str]:
    """A sentence for each module that is low without a reason, or has one that it needs no more."""
    reported = set(reasons)
    low = {name for name, share in measured.items() if share < LEAST}
    return [
        *(f"{name}: {measured[name]:.1f} %, and no reason" for name in sorted(low - reported)),
        *(f"{name}: has a reason but is at least {LEAST:.0f} %" for name in sorted(reported - low)),
    ]


def main(arguments: list[str]) -> int:
    report = json.loads(Path(arguments[0]).read_text())
    measured = shares(report)
    reasons: dict[str, str] = tomllib.loads(REASONS.read_text())
    for name, share in sorted(measured.items(), key=lambda each: each[1]):
        if share < LEAST:
            print(f"{share:5.1f} %  {name}  {reasons.get(name, '')}".rstrip())
    total = report["totals"]["percent_covered"]
    print(f"{total:5.1f} %  of {len(measured)} modules, each in {arguments[0]}")
    found = faults(measured, reasons)
    print(*found, sep="\n" if found else "")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
