"""Linux on AArch64: the generic numbers, none of its own.

The number is in X8, arguments in X0 to X5; SVC #0 enters.
"""

from __future__ import annotations

from iovirt_dist.abi import layouts
from iovirt_dist.abi.linux_generic import NAMES
from iovirt_dist.abi.linux_signatures import build_calls, signatures
from iovirt_dist.abi.table import Abi

LAYOUTS = layouts.AARCH64

_CALLS, _OTHERS = build_calls(NAMES, signatures(LAYOUTS))

ABI = Abi("linux_aarch64", word_bytes=8, machine=183, user_end=0x1_0000_0000_0000, calls=_CALLS, names=_OTHERS)
