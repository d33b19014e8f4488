"""A bus of small local devices, enough for firmware of the `virt` machine: 16550, CLINT, PLIC, test device, RTC.

It stands in for the hypervisor and answers in the vCPU's thread. Time is the host's: firmware waits for it.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from iovirt_dist.guest.bus import IoPrivilege, WithoutSystemCalls
from iovirt_dist.guest.riscv.traps import MSIP, MTIP
from iovirt_dist.guest.riscv.vcpu import RiscvCpu
from iovirt_dist.guest.vcpu import ExitReason
from iovirt_dist.platform.virt import CLINT_BASE, TEST_BASE, TIMEBASE_HZ, UART_BASE, VIRTIO_BASE

_NEVER = (1 << 64) - 1
_MTIMECMP, _MTIME = CLINT_BASE + 0x4000, CLINT_BASE + 0xBFF8


@dataclass
class LocalBoard(WithoutSystemCalls):
    """The devices, and a loop that runs a CPU on them.

    Attributes:
        output: What the guest printed.
        typed: What it will read.
        powered_off: Value written to the test device; 0 before.
    """

    output: bytearray = field(default_factory=bytearray)
    typed: bytearray = field(default_factory=bytearray)
    powered_off: int = 0
    accesses: int = 0
    cpu: RiscvCpu | None = None
    expected: bytes = b""
    _start_s: float = field(default_factory=time.monotonic)
    _line_control: int = 0
    _mtimecmp: int = _NEVER
    _msip: int = 0

    def run_until(self, cpu: RiscvCpu, expected: bytes, timeout_s: float) -> float:
        """Run until the guest has printed `expected`, has switched itself off, or time is up; return the seconds."""
        self.cpu, self.expected = cpu, expected
        begin = time.monotonic()
        guard = threading.Timer(timeout_s, cpu.kick)
        guard.start()
        try:
            while not self._done() and time.monotonic() - begin < timeout_s:
                if cpu.run().reason is ExitReason.HALTED:
                    time.sleep(0.001)
        finally:
            guard.cancel()
            guard.join()
        return time.monotonic() - begin

    def _done(self) -> bool:
        return self.powered_off != 0 or self.expected in self.output

    def ticks(self) -> int:
        """Return mtime."""
        return int((time.monotonic() - self._start_s) * TIMEBASE_HZ)

    def load(self, address: int, width: int, privilege: IoPrivilege) -> int:
        """Answer a load."""
        self.accesses += 1
        if UART_BASE <= address < UART_BASE + 8:
            return self._uart_read(address - UART_BASE)
        if VIRTIO_BASE <= address < VIRTIO_BASE + 0x8000:
            return {0: 0x7472_6976, 4: 2}.get(address & 0xFFF, 0)  # magic, version; device id 0: empty slot
        if address in (_MTIME, _MTIME + 4):
            return (self.ticks() >> (8 * (address - _MTIME))) & ((1 << 8 * width) - 1)
        return self._msip if address == CLINT_BASE else 0

    def store(self, address: int, width: int, value: int, privilege: IoPrivilege) -> None:
        """Take a store."""
        self.accesses += 1
        if address == UART_BASE + 3:
            self._line_control = value
        elif address == UART_BASE and not self._line_control & 0x80:
            self.output.append(value)
            self._kick_if_done()
        elif address == _MTIMECMP:
            self._mtimecmp = value if width == 8 else self._mtimecmp & ~0xFFFF_FFFF | value
            self._arm()
        elif address == _MTIMECMP + 4:
            self._mtimecmp = self._mtimecmp & 0xFFFF_FFFF | value << 32
            self._arm()
        elif address == CLINT_BASE:
            self._msip = value & 1
            self._kick()
        elif address == TEST_BASE:
            self.powered_off = value
            self._kick()

    def lines(self) -> int:
        """Return MTIP and MSIP."""
        return (MTIP if self.ticks() >= self._mtimecmp else 0) | (MSIP if self._msip else 0)

    def port_in(self, port: int, width: int, count: int, privilege: IoPrivilege) -> bytes:
        """RISC-V has no ports."""
        raise AssertionError

    def port_out(self, port: int, width: int, data: bytes, privilege: IoPrivilege) -> None:
        """RISC-V has no ports."""
        raise AssertionError

    def acknowledge_interrupt(self) -> int:
        """RISC-V has no INTA cycle."""
        raise AssertionError

    def _uart_read(self, register: int) -> int:
        if register == 5:
            return 0x60 | bool(self.typed)
        return self.typed.pop(0) if register == 0 and self.typed else 0

    def _arm(self) -> None:
        self._kick()
        wait_s = (self._mtimecmp - self.ticks()) / TIMEBASE_HZ
        if 0 < wait_s < 60:
            timer = threading.Timer(wait_s, self._kick)
            timer.daemon = True
            timer.start()

    def _kick_if_done(self) -> None:
        if self._done():
            self._kick()

    def _kick(self) -> None:
        assert self.cpu is not None
        self.cpu.kick()
