"""What guest code between traps costs on our CPU, against plain Unicorn with nothing around it: processor time."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

from unicorn.unicorn_const import UC_ARCH_X86, UC_MODE_32
from unicorn.unicorn_py3 import Uc

from iovirt_dist.bench.report import Result, Target
from iovirt_dist.bench.sampling import Effort, in_turns
from iovirt_dist.errors import LocalError
from iovirt_dist.guest.bus import IoPrivilege, WithoutSystemCalls
from iovirt_dist.guest.loader.image import ImageFormat, LoadedImage, Segment
from iovirt_dist.guest.unicorn.x86 import UnicornX86
from iovirt_dist.guest.vcpu import ExitReason
from iovirt_dist.guest.x86.vcpu import X86Cpu

MEMORY_BYTES = 4 << 20
CODE = 0x10_0000
ITERATIONS = 10_000_000

# mov ecx, ITERATIONS; 1: add eax, ecx; dec ecx; jnz 1b; hlt
_COUNT = b"\xb9" + struct.pack("<I", ITERATIONS) + bytes.fromhex("01c8 49 75fb f4")
# mov ecx, ITERATIONS; 1: mov edx, ecx; and edx, 0ffffh; add dword [edx*4+200000h], ecx; dec ecx; jnz 1b; hlt
_MEMORY = (
    b"\xb9"
    + struct.pack("<I", ITERATIONS // 4)
    + bytes.fromhex("89ca 81e2ffff0000 010c95")
    + struct.pack("<I", 0x20_0000)
    + bytes.fromhex("49 75ee f4")
)
LOOPS = {
    "count_loop": ("counting : plain Unicorn", _COUNT, 3 * ITERATIONS + 2),
    "memory_loop": ("memory : plain Unicorn", _MEMORY, 5 * ITERATIONS // 4 + 2),
}
"""By key: title, code, instructions that it executes."""


class _SilentBus(WithoutSystemCalls):
    """A bus that nobody uses."""

    def port_in(self, port: int, width: int, count: int, privilege: IoPrivilege) -> bytes:  # noqa: ARG002 - Bus
        return b"\xff" * (width * count)

    def port_out(self, port: int, width: int, data: bytes, privilege: IoPrivilege) -> None:
        pass

    def load(self, address: int, width: int, privilege: IoPrivilege) -> int:  # noqa: ARG002 - Bus
        return (1 << 8 * width) - 1

    def store(self, address: int, width: int, value: int, privilege: IoPrivilege) -> None:
        pass

    def acknowledge_interrupt(self) -> int:
        return 0

    def lines(self) -> int:
        return 0


def measure_guest_code(effort: Effort, tell: Callable[[str], None]) -> list[Result]:
    """Measure each loop.

    Args:
        effort: For each of them.
        tell: Gets a line of progress.

    Raises:
        LocalError: The CPU did not run the loop to its end.
    """
    results = []
    for key, (title, code, instructions) in LOOPS.items():
        tell(f"guest code: {key.replace('_', ' ')}")
        ours, base = in_turns(_on_our_cpu(code, instructions), _on_plain_unicorn(code, instructions), effort)
        results.append(Result(key, title, "MIPS", Target(0.80, at_most=False), ours, base, "plain Unicorn"))
    return results


def _on_our_cpu(code: bytes, instructions: int) -> Callable[[], float]:
    """A sample on the CPU of a machine guest: million instructions per second of processor time."""
    image = LoadedImage(ImageFormat.MULTIBOOT, (Segment(CODE, code),), CODE)
    cpu = X86Cpu(UnicornX86, _SilentBus(), image, MEMORY_BYTES)

    def sample() -> float:
        cpu.reset()
        started_ns = time.process_time_ns()
        outcome = cpu.run()
        taken_ns = time.process_time_ns() - started_ns
        if outcome.reason is not ExitReason.HALTED:
            raise LocalError(f"guest code ended with {outcome.reason.name}: {outcome.detail}")
        return instructions * 1000 / taken_ns

    return sample


def _on_plain_unicorn(code: bytes, instructions: int) -> Callable[[], float]:
    """The same on Unicorn as it comes, stopped by the address of the HLT."""
    uc = Uc(UC_ARCH_X86, UC_MODE_32)
    uc.mem_map(0, MEMORY_BYTES)
    uc.mem_write(CODE, code)

    def sample() -> float:
        started_ns = time.process_time_ns()
        uc.emu_start(CODE, CODE + len(code) - 1)
        return instructions * 1000 / (time.process_time_ns() - started_ns)

    return sample
