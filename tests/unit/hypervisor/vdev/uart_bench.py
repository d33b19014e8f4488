"""A UART on a wire, for its tests."""

from __future__ import annotations

from iovirt_dist.hypervisor.vdev.uart16550 import Uart16550

RBR = THR = DLL = 0
IER = DLM = 1
IIR = FCR = 2
LCR, MCR, LSR, MSR, SCR = 3, 4, 5, 6, 7
CHARACTER_NS = 10 * 1_000_000_000 * 16 // 1_843_200
"""8N1 at divisor 1 (115,200 baud): ten bits."""


class Wire:
    """A terminal backend with a settable space, and the interrupt line."""

    def __init__(self, space: int = 1 << 20) -> None:
        self.free = space
        self.calls: list[bytes] = []
        self.edges: list[bool] = []

    def transmit(self, data: bytes) -> None:
        """Take bytes."""
        self.calls.append(data)
        self.free -= len(data)

    def space(self) -> int:
        """Bytes that are free."""
        return self.free

    def irq(self, level: bool) -> None:
        """Record a level."""
        self.edges.append(level)

    @property
    def level(self) -> bool:
        """The line now."""
        return bool(self.edges) and self.edges[-1]

    @property
    def sent(self) -> bytes:
        """All bytes in order."""
        return b"".join(self.calls)


class Bench:
    """A UART on a wire, programmed 8N1 at divisor 1, with short register accesses."""

    def __init__(self, space: int = 1 << 20, fcr: int = 0) -> None:
        self.wire = Wire(space)
        self.uart = Uart16550(self.wire.irq, self.wire)
        for register, value in ((LCR, 0x83), (DLL, 1), (DLM, 0), (LCR, 0x03), (FCR, fcr)):
            self.out(register, value)

    def out(self, register: int, value: int, now_ns: int = 0) -> None:
        """OUT of a byte."""
        self.uart.write(register, 1, value, now_ns)

    def inp(self, register: int, now_ns: int = 0) -> int:
        """IN of a byte."""
        return self.uart.read(register, 1, now_ns)
