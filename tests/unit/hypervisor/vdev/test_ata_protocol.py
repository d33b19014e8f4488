"""The transition table of an ATA device."""

from __future__ import annotations

from iovirt_dist.hypervisor.vdev.ata_protocol import STATUS, TRANSITIONS


def test_ata_transition_table_names_a_status_for_every_phase() -> None:
    """No phase is without a Status value, and no move leads to an unknown one."""
    reached = {phase for phase, _ in TRANSITIONS.values()} | {phase for phase, _ in TRANSITIONS}

    assert reached == set(STATUS)
