"""The system-call interfaces that exist, by name."""

from __future__ import annotations

from iovirt_dist.abi import linux_aarch64, linux_i386, linux_riscv64, linux_x86_64
from iovirt_dist.abi.layouts import Layouts
from iovirt_dist.abi.table import Abi

_MODULES = (linux_aarch64, linux_i386, linux_riscv64, linux_x86_64)

ABIS: dict[str, Abi] = {module.ABI.name: module.ABI for module in _MODULES}
"""Tables by name, such as ``linux_x86_64``."""

LAYOUTS: dict[str, Layouts] = {module.ABI.name: module.LAYOUTS for module in _MODULES}
"""Structures of the same."""
