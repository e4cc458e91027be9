"""The suites that matter for many machines, on Debian's PostgreSQL and on Ceph's S3 gateway.

    python tests/real/run.py

Installs both with apt where it may (root on Debian or Ubuntu), otherwise says what to install.
Starts them on loopback in folders of their own, runs each row of `runs`, and prints a table. Exit
code 1 if a test failed, 2 if something is missing.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import botocore.session  # type: ignore[import-untyped]
from ceph import KEY, PROGRAMS, Ceph, running_ceph
from real_places import BUCKET

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = ("postgresql", "ceph-mon", "ceph-osd", "radosgw")
INSTALL_S: Final = 900.0
RUN_S: Final = 3600.0  # the store takes minutes on a quiet machine, and half an hour on a busy one


@dataclass(frozen=True, slots=True)
class Run:
    """One call of pytest."""

    name: str
    arguments: tuple[str, ...]
    is_real_e2e: bool = False


RUNS: Final = (
    Run(
        "store contract, and what only PostgreSQL does, on Debian's PostgreSQL",
        ("tests/contract", "tests/unit/store", "tests/property/test_store_properties.py",
         "-k", "postgres"),
    ),
    Run("processes on Debian's PostgreSQL and a folder", ("tests/e2e/test_many_processes.py",)),
    Run("what Ceph's gateway does with conditions", ("tests/real/bucket_facts.py",)),
    Run(
        "blobs contract on Ceph",
        ("tests/contract/test_blobs_contract.py", "-k", "s3-by-put"),
    ),
    Run(
        "life of a batch on Debian's PostgreSQL and Ceph",
        ("tests/e2e/test_batch_life.py",),
        is_real_e2e=True,
    ),
    Run(
        "processes on Debian's PostgreSQL and Ceph",
        ("tests/e2e/test_many_processes.py",),
        is_real_e2e=True,
    ),
)  # fmt: skip


def binaries() -> Path | None:
    """Of the newest PostgreSQL that Debian has installed here."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    return max(found, key=lambda path: int(path.parent.name), default=None)


def is_complete() -> bool:
    return binaries() is not None and all(shutil.which(name) for name in PROGRAMS)


def install() -> None:
    """Raises SystemExit with what to do where this may not or cannot install."""
    command = ["apt-get", "install", "-y", "--no-install-recommends", *PACKAGES]
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        print(f"make test-real needs: {' '.join(PACKAGES)}\n  sudo {' '.join(command)}")
        raise SystemExit(2)
    print(f"Installing {' '.join(PACKAGES)}", flush=True)
    # Debian would start a cluster of its own for what it installs; ours is made by the tests.
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for step in (["apt-get", "update", "-q"], command):
        done = subprocess.run(
            step, env=environment, timeout=INSTALL_S, check=False, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if done.returncode != 0:
            print(f"{' '.join(step)} failed:\n{done.stdout[-2000:]}")
            raise SystemExit(2)


def make_bucket(ceph: Ceph) -> None:
    client = botocore.session.get_session().create_client(
        "s3", endpoint_url=ceph.endpoint, region_name="us-east-1",
        aws_access_key_id=KEY, aws_secret_access_key=KEY,
    )  # fmt: skip
    client.create_bucket(Bucket=BUCKET)


def play(run: Run, ceph: Ceph, postgres: Path, more: Sequence[str]) -> tuple[bool, str]:
    """Whether all passed, and pytest's own count."""
    search = (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))
    environment = os.environ | {
        "POSTGRES_BIN": str(postgres),
        "S3_ENDPOINT": ceph.endpoint,
        "PYTHONPATH": os.pathsep.join(path for path in search if path),
        "E2E_PLACES": "real" if run.is_real_e2e else "",
    }
    command = [sys.executable, "-m", "pytest", "-p", "real_places", "-q", *run.arguments, *more]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, timeout=RUN_S, check=False, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False, f"not done within {RUN_S:g} s"
    (count,) = re.findall(r"^.*\d+ \w+.* in [\d.]+s.*$", done.stdout, re.M)[-1:] or ["no count"]
    if done.returncode != 0:
        print(done.stdout[-6000:])
    return done.returncode == 0, count.strip("= ")


def main(more: Sequence[str]) -> int:
    if not is_complete():
        install()
    postgres = binaries()
    assert postgres is not None
    begun = time.monotonic()
    failed = 0
    with running_ceph() as ceph:
        make_bucket(ceph)
        print(f"PostgreSQL {postgres.parent.name}, Ceph {ceph.version}", flush=True)
        for run in RUNS:
            passed, count = play(run, ceph, postgres, more)
            failed += not passed
            print(f"{'ok    ' if passed else 'FAILED'} {run.name}: {count}", flush=True)
    print(f"{len(RUNS) - failed} of {len(RUNS)} passed in {time.monotonic() - begun:.0f} s")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
