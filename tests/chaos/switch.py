"""A network of hosts on one machine: namespaces, joined by a switch that this process is.

Each host has a TAP device in a namespace of its own; its frames arrive here, and are passed on, or
not, or later. So a link can be cut, slow, lossy, or open in one direction only, whatever the
kernel's traffic control knows. Needs root and iproute2. Invariant: the namespaces, and with them
the devices, are gone when the context is left.
"""

import asyncio
import errno
import fcntl
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from mounts import NotPossible, command

_TUNSETIFF: Final = 0x400454CA
_TAP_WITHOUT_HEADER: Final = 0x0002 | 0x1000
_FRAME_BYTES: Final = 65536
NETWORK: Final = "198.18.77"
"""Of the range that is set aside for such tests (RFC 2544)."""

HERE: Final = "client"
"""The host that is this machine's own namespace."""

Pair = tuple[str, str]
"""From a host to a host."""


@dataclass(slots=True)
class Switch:
    """`cut`, `delays_s` and `losses` hold for one direction of a pair each."""

    names: Sequence[str]
    random: Random = field(default_factory=Random)
    cut: set[Pair] = field(default_factory=set)
    delays_s: dict[Pair, float] = field(default_factory=dict)
    losses: dict[Pair, float] = field(default_factory=dict)
    dropped: int = 0
    _devices: dict[str, int] = field(default_factory=dict)

    def address(self, name: str) -> str:
        return f"{NETWORK}.{self.names.index(name) + 1}"

    def namespace(self, name: str) -> str:
        return f"lowtide-{os.getpid()}-{name}"

    def inside(self, name: str) -> tuple[str, ...]:
        """What to put before a command to run it on that host."""
        return () if name == HERE else ("ip", "netns", "exec", self.namespace(name))

    def pairs(self, name: str, others: Sequence[str] = ()) -> set[Pair]:
        """Both directions between a host and others, all others by default."""
        peers = [other for other in others or self.names if other != name]
        return {(name, peer) for peer in peers} | {(peer, name) for peer in peers}

    def heal(self) -> None:
        self.cut.clear()
        self.delays_s.clear()
        self.losses.clear()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Make the hosts and join them. Raises NotPossible."""
        if os.geteuid() != 0:
            raise NotPossible("network namespaces need root")
        loop = asyncio.get_running_loop()
        try:
            for name in self.names:
                self._join(name)
                loop.add_reader(self._devices[name], self._read, name)
            yield
        finally:
            for name, device in self._devices.items():
                loop.remove_reader(device)
                os.close(device)
                if name != HERE:
                    with suppress(NotPossible):
                        command("ip", "netns", "del", self.namespace(name))
            self._devices.clear()

    def _join(self, name: str) -> None:
        number = self.names.index(name) + 1
        device = f"lt{os.getpid() % 100_000}x{number}"
        self._devices[name] = _tap(device)
        inside: tuple[str, ...] = ("ip",)
        if name != HERE:
            command("ip", "netns", "add", self.namespace(name))
            command("ip", "link", "set", device, "netns", self.namespace(name))
            inside = ("ip", "-n", self.namespace(name))
            command(*inside, "link", "set", "lo", "up")
        command(*inside, "link", "set", device, "address", f"02:00:00:00:00:{number:02x}")
        command(*inside, "address", "add", f"{NETWORK}.{number}/24", "dev", device)
        command(*inside, "link", "set", device, "up")

    def _read(self, sender: str) -> None:
        """Pass on what a host has sent: to whom it is addressed, a broadcast to all."""
        with suppress(BlockingIOError):
            while True:
                frame = os.read(self._devices[sender], _FRAME_BYTES)
                number = frame[5]
                is_for_one = frame[:5] == b"\x02\0\0\0\0" and 0 < number <= len(self.names)
                for name in [self.names[number - 1]] if is_for_one else self.names:
                    if name != sender:
                        self._pass(frame, (sender, name))

    def _pass(self, frame: bytes, pair: Pair) -> None:
        if pair in self.cut or self.random.random() < self.losses.get(pair, 0.0):
            self.dropped += 1
        elif delay_s := self.delays_s.get(pair, 0.0):
            asyncio.get_running_loop().call_later(delay_s, self._write, frame, pair[1])
        else:
            self._write(frame, pair[1])

    def _write(self, frame: bytes, name: str) -> None:
        device = self._devices.get(name)
        if device is None:
            return  # a late frame: the network is gone
        try:
            os.write(device, frame)
        except OSError as error:
            if error.errno not in (errno.EIO, errno.EAGAIN, errno.ENOBUFS):  # down, or full
                raise
            self.dropped += 1


def _tap(name: str) -> int:
    """The descriptor of a new device; the device lasts as long. Raises NotPossible."""
    if not Path("/dev/net/tun").exists():
        raise NotPossible("there is no /dev/net/tun")
    try:
        handle = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(handle, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TAP_WITHOUT_HEADER))
    except OSError as error:
        raise NotPossible(f"no TAP device: {error}") from error
    return handle
