"""Network namespaces: hosts of a test, with a network between them that can be cut."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

_CLONE_NEWNET = 0x40000000
"""linux/sched.h."""


def _call(function: str, *arguments: int) -> None:
    """Call the C library; Python has these functions from 3.12 on.

    Raises:
        OSError: The call failed.
    """
    if getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), function)


@contextlib.contextmanager
def own_network() -> Iterator[None]:
    """Give this thread, and the processes that it starts, a network of their own that ends with the block.

    Raises:
        OSError: It is not permitted.
    """
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call("unshare", _CLONE_NEWNET)
        try:
            yield
        finally:
            _call("setns", before, _CLONE_NEWNET)
    finally:
        os.close(before)


class Networks:
    """A network namespace for each host, all plugged into a wire: a bridge in a namespace of its own.

    Host number N from 1 has the address ``10.77.0.N`` at its interface ``net0``. Nothing of the machine's own network
    is reachable from there, nor the other way round. Use it in a ``with`` statement, which removes everything.

    Args:
        hosts: Their names.
    """

    _made = itertools.count()

    def __init__(self, hosts: Sequence[str]) -> None:
        self.hosts = tuple(hosts)
        self._prefix = f"iovirt-{os.getpid()}-{next(self._made)}"
        self._wire = f"{self._prefix}-wire"

    def __enter__(self) -> Networks:
        _remove_forgotten()
        try:
            self._make(self._wire)
            ip("-n", self._wire, *["link", "add", "bridge", "type", "bridge"])
            ip("-n", self._wire, *["link", "set", "bridge", "up"])
            for number, host in enumerate(self.hosts, 1):
                self._plug_in(host, number)
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    @staticmethod
    def address(number: int) -> str:
        """The address of a host, the first being 1."""
        return f"10.77.0.{number}"

    def namespace(self, host: str) -> str:
        """The host's name for ip(8)."""
        return f"{self._prefix}-{host}"

    def enter(self, host: str) -> tuple[str, ...]:
        """What stands in front of a command that shall run on a host; it replaces itself with the command."""
        return ("ip", "netns", "exec", self.namespace(host))

    def cut(self) -> None:
        """Let the wire lose everything from now on; no host is told."""
        ip("-n", self._wire, *["link", "set", "bridge", "down"])

    def heal(self) -> None:
        """Let the wire carry again."""
        ip("-n", self._wire, *["link", "set", "bridge", "up"])

    def unplug(self, host: str) -> None:
        """Pull a host's cable: its interface has no carrier."""
        ip("-n", self._wire, "link", "set", "dev", host, "down")

    def plug(self, host: str) -> None:
        """Put it in again."""
        ip("-n", self._wire, "link", "set", "dev", host, "up")

    def remove(self) -> None:
        """End all namespaces that there are; interfaces end with them."""
        for name in (*map(self.namespace, self.hosts), self._wire):
            if Path("/run/netns", name).exists():
                ip("netns", "del", name)

    def _make(self, name: str) -> None:
        ip("netns", "add", name)
        ip("-n", name, *["link", "set", "lo", "up"])

    def _plug_in(self, host: str, number: int) -> None:
        inside = self.namespace(host)
        self._make(inside)
        ip(*f"link add net0 netns {inside} type veth peer name {host} netns {self._wire}".split())
        ip("-n", self._wire, *f"link set dev {host} master bridge up".split())
        ip("-n", inside, *f"address add {self.address(number)}/24 dev net0".split())
        ip("-n", inside, *["link", "set", "net0", "up"])


def _remove_forgotten() -> None:
    """End namespaces of test runs that were killed."""
    for path in Path("/run/netns").glob("iovirt-*-*-*"):
        if not Path("/proc", path.name.split("-")[1]).exists():
            subprocess.run(["ip", "netns", "del", path.name], capture_output=True, timeout=30, check=False)


def ip(*arguments: str) -> str:
    """Run the command `ip`; returns what it prints.

    Raises:
        AssertionError: It fails; the text is what it says.
    """
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def _why_not_permitted() -> str:
    """Say why tests cannot have networks of their own; empty if they can."""
    if not Path("/dev/net/tun").exists():
        return "no /dev/net/tun"
    for command, package in (("ip", "iproute2"), ("ping", "iputils-ping")):
        if shutil.which(command) is None:
            return f"no {command}: install the Debian package {package}"
    try:
        with own_network():
            return ""
    except OSError as error:
        return f"no network namespaces: {error.strerror} (needs root)"


NOT_PERMITTED = _why_not_permitted()
"""Why tests that need networks of their own are skipped; empty if they can run."""
