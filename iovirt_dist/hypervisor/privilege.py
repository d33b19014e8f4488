"""First room: may this instruction complete, or must it fault inside the guest?

I/O instructions are sensitive and, because they trap, not critical: the check needs nothing but what the trap
carries. On x86 IN, OUT, INS and OUTS are allowed when CPL <= IOPL or the TSS I/O permission bitmap allows every port
touched; otherwise they raise #GP(0) (Intel SDM volume 1, sections 19.5.1 and 19.5.2). Loads and stores were checked by
the guest's own page tables before they left the CPU, so they always pass.
"""

from __future__ import annotations

from iovirt_dist.wire.messages import Trap, TrapKind

GENERAL_PROTECTION = 13
"""x86 vector #GP."""

ALLOWED = -1

_PORT_KINDS = frozenset({TrapKind.PORT_IN, TrapKind.PORT_OUT})


def refusal(trap: Trap) -> int:
    """Return the exception vector that the guest must take, or `ALLOWED`.

    Args:
        trap: A decoded trap; `privilege`, `iopl` and `permitted` are the facts that the guest's CPU reported.
    """
    if trap.privilege <= trap.iopl or trap.kind not in _PORT_KINDS or trap.permitted:
        return ALLOWED
    return GENERAL_PROTECTION
