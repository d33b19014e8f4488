"""SIGKILL of any one process while a disk is read at the driver or the system-call level, or by a program guest.

A controller that returns costs a pause: the requests in flight are submitted again, and the checksum is right. With the
hypervisor the guest's devices are gone, and with the guest its memory: it is powered on afresh and reads all again.
Whatever happens, both sides count the same.
"""

from __future__ import annotations

import hashlib
import random
import signal
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from iovirt_dist.runtime.status import ProcessStatus
from iovirt_dist.testing.live import LiveTopology, TopologyFactory
from tests.processes.test_program_guest import BUFFER, program
from tests.processes.test_script_guest import LOAD

DISK_BYTES = 2 << 20
NOTICE_S = 10.0
READ_S = 90.0
BUSY = 20
"""Requests of a life after which the reading is under way: far from done."""

_BUFFER = struct.pack("<I", BUFFER).hex()
CHECKSUM = f"""
    48 c7 c0 02 00 00 00            # rax = open
    48 c7 c7 {{path}}               # rdi = path
    48 31 f6                        # rsi = O_RDONLY
    0f 05
    48 89 c5                        # rbp = fd
    48 31 db                        # rbx = 0
    48 31 c0                        # again: rax = read
    48 89 ef                        # rdi = fd
    48 c7 c6 {_BUFFER}              # rsi = buffer
    48 c7 c2 00 02 00 00            # rdx = 512
    0f 05
    48 85 c0                        # nothing read?
    7e 1d                           # then done
    48 89 c1                        # rcx = bytes read
    48 c7 c6 {_BUFFER}              # rsi = buffer
    48 c1 c3 01                     # word: rbx rolls left by 1
    48 33 1e                        # rbx ^= [rsi]
    48 83 c6 08                     # rsi += 8
    48 83 e9 08                     # rcx -= 8
    7f ef                           # word, while rcx > 0
    eb c8                           # again
    48 c7 c1 10 00 00 00            # done: rcx = 16 digits
    48 c7 c7 {_BUFFER}              # rdi = buffer
    48 c1 c3 04                     # digit: rbx rolls left by 4
    88 d8                           # al = bl
    24 0f                           # al &= 15
    04 61                           # al += 'a'
    aa                              # [rdi++] = al
    48 ff c9                        # rcx -= 1
    75 f0                           # digit, while rcx != 0
    c6 07 0a                        # a line's end
    48 c7 c0 01 00 00 00            # rax = write
    48 c7 c7 01 00 00 00            # rdi = stdout
    48 c7 c6 {_BUFFER}              # rsi = buffer
    48 c7 c2 11 00 00 00            # rdx = 17
    0f 05
    48 c7 c0 3c 00 00 00            # rax = exit
    48 31 ff                        # rdi = 0
    0f 05
"""
"""x86-64: print a 64-bit checksum of the disk, read in sectors, as 16 letters from a to p."""


class Reading(NamedTuple):
    """Something that reads the disk.

    Attributes:
        guest: Its table, without devices.
        shows: What its terminal shows at the end, with the checksum as its first group.
        checksum: Of what it reads, from the disk's content.
    """

    guest: Callable[[Path], dict[str, Any]]
    shows: str
    checksum: Callable[[bytes], str]


def _job(level: str, read_bytes: int) -> Callable[[Path], dict[str, Any]]:
    command_line = f"run=job kib={read_bytes >> 10} bs=1024 result=none"
    machine = {"kind": "machine", "machine": "pc", "image": "bundled:guestos"}
    return lambda _: {**machine, "level": level, "command_line": command_line}


def _program(folder: Path) -> dict[str, Any]:
    return {"kind": "program", "image": str(program(folder / "checksum", CHECKSUM))}


def _sha256(read_bytes: int) -> Callable[[bytes], str]:
    return lambda disk: hashlib.sha256(disk[:read_bytes]).hexdigest()


def _letters(disk: bytes) -> str:
    """What the assembled program computes."""
    value, mask = 0, (1 << 64) - 1
    for (word,) in struct.iter_unpack("<Q", disk):
        value = ((value << 1 | value >> 63) & mask) ^ word
    return "".join(chr(ord("a") + (value >> shift & 15)) for shift in range(60, -1, -4))


_JOB = r"job: read \d+ KiB in \d+ requests, sha256 ([0-9a-f]{64})"
READINGS = {
    "driver": Reading(_job("driver", DISK_BYTES // 2), _JOB, _sha256(DISK_BYTES // 2)),  # a request takes longer there
    "syscall": Reading(_job("syscall", DISK_BYTES), _JOB, _sha256(DISK_BYTES)),
    "program": Reading(_program, "^([a-p]{16})$", _letters),
}


class Scene(NamedTuple):
    """A topology in which a disk is being read.

    Attributes:
        topology: Its processes.
        reading: Who reads.
        truth: Checksum of the disk, as the host computes it.
    """

    topology: LiveTopology
    reading: Reading
    truth: str

    async def busy(self) -> None:
        """Wait until the disk is being read in this life of hypervisor and guest."""
        await self.topology.hypervisor().wait_status(lambda status: _of_guest(status)["disk_requests"] > BUSY)
        assert self.topology.console().text.count("sha256 ") == 0, "the reading is over too soon to disturb it"

    async def end(self) -> str:
        """Wait for the checksum that the guest prints, then until both sides have told their counts."""
        shown = await self.topology.console().expect(self.reading.shows, READ_S)
        await self.topology.hypervisor().wait_status(_counts_agree, what="counts that are equal on both sides")
        return shown[1]


@pytest.fixture(params=list(READINGS))
async def scene(request: pytest.FixtureRequest, iovirt: TopologyFactory, tmp_path: Path) -> Scene:
    """A guest that reads a disk of random content, started."""
    reading = READINGS[request.param]
    disk = random.Random(0).randbytes(DISK_BYTES)
    image = tmp_path / "disk.img"
    image.write_bytes(disk)
    topology = await iovirt.up(
        {
            "topology": {"lease": "1s"},
            "hypervisor": {"hv0": {}},
            "controller": {"disk0": {"kind": "block", "image": str(image)}, "tty0": {"kind": "console"}},
            "guest": {
                "guest": {
                    **reading.guest(tmp_path),
                    "hypervisor": "hv0",
                    "devices": {"disk": "disk0", "console": "tty0"},
                }
            },
        }
    )
    return Scene(topology, reading, reading.checksum(disk))


def _of_guest(hypervisor: ProcessStatus) -> dict[str, Any]:
    guest: dict[str, Any] = hypervisor.content["guests"]["guest"]
    return guest


def _counts_agree(hypervisor: ProcessStatus) -> bool:
    """Whether the guest's last report has the same traps as the hypervisor had counted when it came."""
    guest = _of_guest(hypervisor)
    busy = guest["state"] not in ("halted", "stopped")
    return (
        not busy and bool(guest["guest_traps"]) and guest["guest_traps"] == guest["traps_at_report"] == guest["traps"]
    )


async def test_kill_of_the_block_controller_pauses_the_reading(scene: Scene) -> None:
    """What was in flight is submitted again; the guest runs on and its checksum is right."""
    await scene.busy()

    scene.topology.controller("disk0").kill()
    await scene.topology.hypervisor().wait_log("controller disk0 lost: silent", NOTICE_S)
    await scene.topology.controller("disk0").restart()

    assert await scene.end() == scene.truth
    assert scene.topology.guest().log.count("power on:") == 1


async def test_kill_of_the_hypervisor_powers_the_reader_on_afresh(scene: Scene) -> None:
    """The requests and the call that waited are void; everything is read again."""
    await scene.busy()

    scene.topology.hypervisor().kill()
    await scene.topology.guest().wait_log("hypervisor hv0 lost", NOTICE_S)
    await scene.topology.hypervisor().restart()

    assert await scene.end() == scene.truth
    assert scene.topology.guest().log.count("power on:") == 2


async def test_kill_of_the_guest_leaves_nothing_of_its_life(scene: Scene) -> None:
    """Its next life gets a new machine; completions for the earlier one reach nobody."""
    await scene.busy()

    scene.topology.guest().kill()
    await scene.topology.guest().restart()

    assert await scene.end() == scene.truth
    assert _of_guest(await scene.topology.hypervisor().wait_running())["malformed"] == 0


async def test_guest_that_hangs_at_depth_loses_no_completion(iovirt: TopologyFactory) -> None:
    """SIGSTOP for longer than the lease, with 128 requests in flight: all of them end when it goes on."""
    load = {"kind": "script", "script": LOAD, "hypervisor": "hv0", "devices": {"disk": "disk0"}}
    parameters = {"depth": 128, "requests": 20_000, "warm_up_seconds": 0.0, "seconds": READ_S}
    topology = await iovirt.up(
        {
            "topology": {"lease": "1s"},
            "hypervisor": {"hv0": {}},
            "controller": {"disk0": {"kind": "block", "image": "disk.img", "size": "1MiB"}},
            "guest": {"guest": {**load, "parameters": parameters}},
        }
    )
    await topology.hypervisor().wait_status(lambda status: _of_guest(status)["disk_requests"] > BUSY)

    topology.guest().send_signal(signal.SIGSTOP)
    await topology.hypervisor().wait_log("guest guest lost: silent", NOTICE_S)
    topology.guest().send_signal(signal.SIGCONT)
    status = await topology.guest().wait_state("stopped", READ_S)
    await topology.hypervisor().wait_status(_counts_agree, what="counts that are equal on both sides")

    assert (status.content["results"]["requests"], status.content["results"]["failed"]) == (20_000, 0)
