"""I/O-related instructions of both architectures: which trap by themselves, which do not, what each does here.

The table shows why the operation level needs no scanning and no patching of guest code: every instruction that signals
a device is privileged, none is critical. Each row is run on the real virtual CPU by a test.
"""

from iovirt_dist.hypervisor.instructions.riscv import RISCV
from iovirt_dist.hypervisor.instructions.row import Effect, Grant, Instruction, Kind, Outcome
from iovirt_dist.hypervisor.instructions.x86 import X86

__all__ = ["RISCV", "X86", "Effect", "Grant", "Instruction", "Kind", "Outcome"]
