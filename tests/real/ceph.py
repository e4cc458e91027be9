"""A Ceph of one's own with its S3 gateway: real daemons, in memory, on loopback, gone afterwards.

One monitor, one storage daemon that keeps everything in memory, one gateway; no manager, which only
observes. Needs the programs of Debian's ceph-mon, ceph-osd and radosgw (each has its siblings with
it). Runs as whoever starts it.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

PROGRAMS: Final = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph", "monmaptool")
KEY: Final = "test"
"""Access key and secret key of the one user."""
START_S: Final = 120.0
STOP_S: Final = 20.0

# Deleted objects would hold their memory for two hours by default.
_CONFIG = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = {folder}/keyring
run dir = {folder}
log file =
admin socket =
mon data = {folder}/mon
mon data avail crit = 0
mon data avail warn = 0
mon allow pool size one = true
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 4294967296
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
rgw data = {folder}/rgw
rgw gc obj min wait = 60
rgw gc processor period = 30
rgw gc processor max time = 30
"""
_IDENTITIES: Final = {
    "mon.": ("mon", "allow *"),
    "client.admin": ("mon", "allow *", "osd", "allow *", "mgr", "allow *"),
    "osd.0": ("mon", "allow profile osd", "osd", "allow *"),
}


@dataclass(frozen=True, slots=True)
class Ceph:
    endpoint: str
    version: str


@contextmanager
def running_ceph() -> Iterator[Ceph]:
    """A fresh one. Raises RuntimeError with what its daemons said when it does not start."""
    folder = Path(tempfile.mkdtemp(prefix="lowtide-ceph-"))
    try:
        with ExitStack() as stack:
            port = _start(folder, stack)
            version = _run(folder, "ceph", "--version").split()[2]
            yield Ceph(f"http://127.0.0.1:{port}", version)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, stack: ExitStack) -> int:
    fsid, osd = str(uuid.uuid4()), str(uuid.uuid4())
    v1, v2, port = _free_ports(3)
    (folder / "ceph.conf").write_text(_CONFIG.format(fsid=fsid, v1=v1, v2=v2, folder=folder))
    for part in ("mon", "osd", "rgw"):
        (folder / part).mkdir()
    (folder / "keyring").touch(0o600)
    for name, caps in _IDENTITIES.items():
        words = [word for kind, cap in zip(caps[::2], caps[1::2], strict=True)
                 for word in ("--cap", kind, cap)]  # fmt: skip
        _run(folder, "ceph-authtool", "keyring", "--gen-key", "-n", name, *words)
    place = f"[v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]"
    _run(folder, "monmaptool", "--create", "--fsid", fsid, "--addv", "a", place, "monmap")
    _run(folder, "ceph-mon", "-i", "a", "--mkfs", "--monmap", "monmap", "--keyring", "keyring")
    stack.enter_context(_daemon(folder, "ceph-mon", "-i", "a"))
    _run(folder, "ceph", "osd", "new", osd)
    _run(folder, "ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
    stack.enter_context(_daemon(folder, "ceph-osd", "-i", "0"))
    gateway = ("--id", "admin", f"--rgw-frontends=beast endpoint=127.0.0.1:{port}")
    radosgw = stack.enter_context(_daemon(folder, "radosgw", *gateway))
    _until_it_answers(folder, port, radosgw)
    who = ("--uid=lowtide", "--display-name=lowtide", f"--access-key={KEY}", f"--secret-key={KEY}")
    _run(folder, "radosgw-admin", "user", "create", *who)
    return port


def _run(folder: Path, *command: str) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=_environment(folder),
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}\n{_said(folder)}")
    return done.stdout


@contextmanager
def _daemon(folder: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / f"{command[0]}.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "-f"], cwd=folder, env=_environment(folder), stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_S)


def _until_it_answers(folder: Path, port: int, gateway: subprocess.Popen[bytes]) -> None:
    give_up_at = time.monotonic() + START_S
    while gateway.poll() is None and time.monotonic() < give_up_at:
        try:
            urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
        except HTTPError:
            return
        except (URLError, OSError):
            time.sleep(0.2)
        else:
            return
    raise RuntimeError(f"the gateway did not start\n{_said(folder)}")


def _said(folder: Path) -> str:
    """The last words of each daemon."""
    return "\n".join(f"{log.name}: {log.read_text()[-2000:]}" for log in folder.glob("*.log"))


def _environment(folder: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "LC_ALL": "C", "CEPH_CONF": f"{folder}/ceph.conf"}


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        bound = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in bound]
