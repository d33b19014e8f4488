"""What the CPUs in user mode share."""

from __future__ import annotations

from typing import Any, NoReturn

from unicorn.unicorn_const import UC_CTL_IO_WRITE, UC_CTL_TLB_FLUSH

from iovirt_dist.errors import GuestFault
from iovirt_dist.guest.engine import Callbacks


def flush_tlb(uc: Any) -> None:
    """Make Unicorn forget all translations of addresses."""
    uc.ctl(UC_CTL_TLB_FLUSH, UC_CTL_IO_WRITE)


def no_devices(vector: int) -> Callbacks:
    """Return the callbacks of an engine without devices: what would be an I/O access raises this exception."""

    def refuse(*_arguments: object) -> NoReturn:
        raise GuestFault(vector)

    return Callbacks(refuse, refuse, refuse, refuse)
