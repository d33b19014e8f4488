"""What a guest's own status file tells, whatever kind of guest it is."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from iovirt_dist.guest.core import GuestCore
from iovirt_dist.runtime.session_status import session_status
from iovirt_dist.wire.messages import TrapKind


def own_status(core: GuestCore) -> dict[str, Any]:
    """Return the guest's state and its own counts: traps, its session, bytes, armed queues, rejected messages."""
    return {
        "state": core.state.name.lower(),
        "reason": core.reason,
        "traps": {kind.name.lower(): core.counts.traps[kind] for kind in TrapKind},
        **session_status(core.opener.stream),
        "bytes_in": core.bytes_in,
        "bytes_out": core.bytes_out,
        "queues": asdict(core.queues.counts),
        "rejects": dict(core.opener.rejects),
    }
