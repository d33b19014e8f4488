"""Unmodified U-Boot as a guest of a running topology: how soon it is at its prompt, how long it reads a disk."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from iovirt_dist.bench.processes import LOOK_INTERVAL_S, Processes
from iovirt_dist.bench.report import Result, Target
from iovirt_dist.bench.sampling import Effort, Figures, summarise
from iovirt_dist.bench.uboot_stubs import PROMPT, STOP_AUTOBOOT, LocalFirmware
from iovirt_dist.errors import LocalError

ROM = Path("/usr/lib/u-boot/qemu-x86/u-boot.rom")
PACKAGE = "u-boot-qemu"
TOPOLOGY = f"""
[topology]
name = "bench-uboot"
run_dir = "run"
[hypervisor.hv0]
[controller.disk0]
kind = "block"
image = "disk.img"
size = "1MiB"
[controller.tty0]
kind = "console"
[guest.uboot]
kind = "machine"
hypervisor = "hv0"
memory = "64MiB"
image = "{ROM}"
format = "rom"
restart = "never"
devices.disk = "disk0"
devices.console = "tty0"
"""
GUEST = "uboot"
DISK_BYTES = 1 << 20
READ_BLOCKS = 0x100
"""128 KiB of 512-byte blocks, as U-Boot wants it: hexadecimal."""
ANSWER_WITHIN_S = 60.0

_POWER_ON = "power on"
_BOOT = ("uboot_prompt", "U-Boot prompt : plain Unicorn", "s", Target(3.0))
_READ = ("uboot_ide_read", "U-Boot ide read, 128 KiB", "s", Target(3.0))


def measure_uboot(effort: Effort, tell: Callable[[str], None]) -> list[Result]:
    """Boot as often as the effort has rounds, in turns with the bare side, and read the disk in each life.

    Args:
        effort: Its rounds.
        tell: Gets a line of progress.

    Raises:
        LocalError: U-Boot does not answer, or says that it could not read.
    """
    if not ROM.is_file():
        reason = f"package {PACKAGE} is not installed"
        return [Result(*_BOOT, base_name="plain Unicorn", skipped=reason), Result(*_READ, skipped=reason)]
    rom = ROM.read_bytes()
    boots: list[float] = []
    bare: list[float] = []
    reads: list[float] = []
    with Processes(TOPOLOGY) as ring:
        (ring.folder / "disk.img").write_bytes(os.urandom(DISK_BYTES))
        ring.start("disk0", "tty0", "hv0")
        for number in range(effort.rounds):
            tell(f"U-Boot: boot and read, round {number + 1} of {effort.rounds}")
            console = _Console(ring)
            ring.launch(GUEST)
            boots.append(console.boot_s())
            reads.append(console.read_s())
            ring.stop(GUEST)
            bare.append(LocalFirmware(rom).boot_s())
    boot: tuple[Figures, Figures] = summarise([boots]), summarise([bare])
    return [Result(*_BOOT, *boot, "plain Unicorn"), Result(*_READ, summarise([reads]))]


class _Console:
    """The guest's terminal as files: what it prints is appended to a log, keys go to a PTY.

    Args:
        ring: Where the guest will run; what its terminal shows already is passed over.
    """

    def __init__(self, ring: Processes) -> None:
        self._ring = ring
        self._path = ring.run_dir.console_log(GUEST)
        self._start = self._path.stat().st_size if self._path.exists() else 0
        self._earlier_lives = ring.log(GUEST).count(_POWER_ON)

    def boot_s(self) -> float:
        """Seconds from power-on to the prompt.

        The run begins with the line that the guest process logs at power-on.
        """
        ring = self._ring
        lives = self._earlier_lives
        ring.wait_for(lambda: ring.log(GUEST).count(_POWER_ON) > lives, "U-Boot's power-on", ANSWER_WITHIN_S)
        started_ns = time.perf_counter_ns()
        self._expect(STOP_AUTOBOOT)
        self._type(b"\n")
        self._expect(PROMPT)
        return (time.perf_counter_ns() - started_ns) / 1e9

    def read_s(self) -> float:
        """Seconds from the command to the prompt behind it."""
        self._type(b"ide reset\n")
        self._expect(PROMPT)
        self._type(b"ide read 1000000 0 %x" % READ_BLOCKS)
        started_ns = time.perf_counter_ns()
        self._type(b"\n")
        answer = self._expect(PROMPT)
        taken_s = (time.perf_counter_ns() - started_ns) / 1e9
        if b"%d blocks read: OK" % READ_BLOCKS not in answer:
            raise LocalError("U-Boot could not read the disk", GUEST, answer.decode("utf-8", "replace")[-200:])
        return taken_s

    def _expect(self, text: bytes) -> bytes:
        """Wait until the guest has printed a text behind what was expected last; returns all up to its end."""
        found = b""

        def there() -> bool:
            nonlocal found
            found = self._path.read_bytes()[self._start :] if self._path.exists() else b""
            return text in found

        self._ring.wait_for(there, f"U-Boot to print {text!r}", ANSWER_WITHIN_S)
        end = found.index(text) + len(text)
        self._start += end
        return found[:end]

    def _type(self, keys: bytes) -> None:
        tty = os.open(self._ring.run_dir.console_tty(GUEST), os.O_WRONLY | os.O_NOCTTY)
        try:
            os.write(tty, keys)
        finally:
            os.close(tty)
        time.sleep(LOOK_INTERVAL_S)
