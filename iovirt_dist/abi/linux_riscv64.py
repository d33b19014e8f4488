"""Linux on RISC-V with 64 bits: the generic numbers and two of its own.

The number is in a7, arguments in a0 to a5; ECALL enters.
"""

from __future__ import annotations

from iovirt_dist.abi import layouts
from iovirt_dist.abi.linux_generic import NAMES as _GENERIC
from iovirt_dist.abi.linux_signatures import build_calls, signatures
from iovirt_dist.abi.table import Abi

LAYOUTS = layouts.RISCV64

NAMES = {number: name for number, name in _GENERIC.items() if name != "renameat"} | {
    258: "riscv_hwprobe",
    259: "riscv_flush_icache",
}

_CALLS, _OTHERS = build_calls(NAMES, signatures(LAYOUTS))

ABI = Abi("linux_riscv64", word_bytes=8, machine=243, user_end=0x40_0000_0000, calls=_CALLS, names=_OTHERS)
