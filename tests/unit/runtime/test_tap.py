"""A TAP interface of the kernel, in a network of the test's own."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import subprocess
from collections.abc import Callable, Iterator

import pytest

from iovirt_dist.errors import EndpointError
from iovirt_dist.runtime import tap
from iovirt_dist.runtime.tap import TapInterface, open_tap
from tests.hosts.networks import NOT_PERMITTED, own_network

FRAME = b"\xff" * 6 + bytes((2, 0, 0, 0, 0, 1)) + b"\x88\xb5" + bytes(46)

pytestmark = [
    pytest.mark.firmware,
    pytest.mark.skipif(bool(NOT_PERMITTED), reason=NOT_PERMITTED),
    pytest.mark.usefixtures("network"),
]


@pytest.fixture
def network() -> Iterator[None]:
    """A network in which only loopback is."""
    with own_network():
        yield


@pytest.fixture
def interface() -> Iterator[TapInterface]:
    """One that was made."""
    made = open_tap("tap7", 1400)
    yield made
    made.close()


def ip(arguments: str) -> str:
    """What the command `ip` prints."""
    return subprocess.run(["ip", *arguments.split()], check=True, capture_output=True, text=True).stdout


def packets(name: str) -> socket.socket:
    """A socket for whole frames at an interface of the host."""
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5))
    raw.bind((name, 0x88B5))
    raw.settimeout(10)
    return raw


def next_of_type(interface: TapInterface, kind: bytes) -> bytes:
    """The next frame of an EtherType; the host sends others of its own accord."""
    while True:
        frame = interface.read()
        if frame is not None and frame[12:14] == kind:
            return frame


def test_tap_is_made_up_and_with_its_mtu(interface: TapInterface) -> None:
    """Nothing else has to be done to it."""
    assert "UP" in ip("link show tap7")
    assert "mtu 1400" in ip("link show tap7")
    assert interface.made


def test_tap_passes_frames_both_ways(interface: TapInterface) -> None:
    """As they are: no header in front, no check sequence behind."""
    with packets("tap7") as host:
        interface.write(FRAME)
        received = host.recv(2000)
        host.send(FRAME[::-1][:12] + FRAME[12:])
        sent = next_of_type(interface, b"\x88\xb5")
    assert received == FRAME
    assert sent == FRAME[::-1][:12] + FRAME[12:]


def test_tap_that_was_made_ends_with_its_descriptor() -> None:
    """Nothing is left behind."""
    open_tap("tap7", 1500).close()
    assert not tap.exists("tap7")


def test_tap_that_exists_stays_and_keeps_its_state(caplog: pytest.LogCaptureFixture) -> None:
    """It is somebody else's; that it is down is said."""
    ip("tuntap add dev tap7 mode tap")
    with caplog.at_level(logging.WARNING):
        attached = open_tap("tap7", 1500)
    attached.close()
    assert tap.exists("tap7")
    assert not attached.made
    assert "uplink tap7 is down: ip link set tap7 up" in caplog.text


def test_tap_that_is_down_takes_no_frames(interface: TapInterface) -> None:
    """Linux says EIO."""
    ip("link set tap7 down")
    with pytest.raises(OSError, match="output error") as refused:
        interface.write(FRAME)
    assert refused.value.errno == errno.EIO


def test_tap_that_was_deleted_says_so_to_who_reads(interface: TapInterface) -> None:
    """Not that there is no frame."""
    ip("link del tap7")
    with pytest.raises(OSError, match="bad state") as gone:
        interface.read()
    assert gone.value.errno == errno.EBADFD


def test_tap_that_was_not_ours_is_not_made_again() -> None:
    """Whoever had made it may do so."""
    with pytest.raises(EndpointError, match="uplink tap7: there is no such interface"):
        open_tap("tap7", 1500, make=False)
    assert not tap.exists("tap7")


def test_tap_of_another_process_is_refused(interface: TapInterface) -> None:
    """One line with what to do."""
    with pytest.raises(EndpointError, match=r"tap7: another process is attached.*; stop the other") as refused:
        open_tap("tap7", 1500)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["tun0", "lo"])
def test_interface_that_is_no_tap_is_refused(name: str) -> None:
    """It exists, and is something else."""
    ip("tuntap add dev tun0 mode tun")
    with pytest.raises(EndpointError, match=f"{name}: the interface is no TAP interface"):
        open_tap(name, 1500)


def refuse(number: int) -> Callable[..., int]:
    """A system call that fails."""

    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES])
def test_user_who_may_not_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Tests run as root, so the kernel's answer is made up."""
    monkeypatch.setattr(fcntl, "ioctl", refuse(number))
    with pytest.raises(EndpointError, match="this user may not; run as root, or once: sudo ip tuntap add dev tap7"):
        open_tap("tap7", 1500)
    assert tap.may_make_taps() is not None


def test_machine_without_the_device_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container often has none."""
    monkeypatch.setattr(tap, "DEVICE", "/dev/net/none")
    with pytest.raises(EndpointError, match="cannot open /dev/net/none: No such file or directory; load the kernel's"):
        open_tap("tap7", 1500)
    assert tap.may_make_taps() is not None


def test_tap_may_be_made_here() -> None:
    """And none is left of the trial."""
    before = ip("link show")
    assert tap.may_make_taps() is None
    assert ip("link show") == before
