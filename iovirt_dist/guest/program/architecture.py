"""What differs between the architectures that programs are made for, apart from the CPU itself."""

from __future__ import annotations

from typing import Final, NamedTuple

from iovirt_dist.abi.registry import ABIS


class Architecture(NamedTuple):
    """One architecture's program layout, as Linux lays programs out with randomization off.

    Attributes:
        abi: Name of the system-call interface.
        word_bytes: Size of a pointer.
        map_top: Address below which memory is mapped; far enough below the stack.
        position_independent_base: Where an ET_DYN program is loaded.
        platform: AT_PLATFORM; empty for none.
        capabilities: AT_HWCAP, as the engines' CPUs have them.
    """

    abi: str
    word_bytes: int
    map_top: int
    position_independent_base: int
    platform: str
    capabilities: int

    @property
    def user_end(self) -> int:
        """First address behind what a program may use; the stack ends a page below."""
        return ABIS[self.abi].user_end


_X86_FEATURES: Final = 0x078B_FBFD  # CPUID.1:EDX of Unicorn's CPU
_RISCV_IMAFDC: Final = 0x112D  # bit per letter of the extensions

X86_64: Final = Architecture("linux_x86_64", 8, 0x7FFF_F7FF_F000, 0x5555_5555_4000, "x86_64", _X86_FEATURES)
I386: Final = Architecture("linux_i386", 4, 0xB7FF_F000, 0x5655_5000, "i686", _X86_FEATURES)
RISCV64: Final = Architecture("linux_riscv64", 8, 0x3F_F7FF_F000, 0x2A_AAAA_A000, "", _RISCV_IMAFDC)

BY_ELF_MACHINE: Final = {("EM_X86_64", 64): X86_64, ("EM_386", 32): I386, ("EM_RISCV", 64): RISCV64}
"""By ``e_machine`` and class."""
