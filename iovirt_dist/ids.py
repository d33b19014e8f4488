"""Names and numbers that travel end to end."""

from __future__ import annotations

from typing import NamedTuple, NewType

GuestName = NewType("GuestName", str)
"""A guest's name as in the topology, e.g. ``alice`` or ``alice-2``."""

ProcessName = NewType("ProcessName", str)
"""Any process of the topology: guest, hypervisor or controller."""

Epoch = NewType("Epoch", int)
"""Which life of a process this is: the wall clock at its start in ns, 1..2**63-1. An older epoch is fenced, so a clock
that is set back between two lives of a process keeps the later one out."""

TrapNumber = NewType("TrapNumber", int)
"""Monotone count of one guest's traps in one epoch, from 1: the causal id of everything the trap leads to."""


class RequestId(NamedTuple):
    """Identity of one device request from the guest's register write to the controller's completion.

    Attributes:
        guest: Instance number that the hypervisor gave the guest, 0..2**32-1; new for every guest epoch.
        queue: Virtual queue of the guest's device, 0..2**32-1.
        sequence: Count within the queue, 0..2**64-1.
    """

    guest: int
    queue: int
    sequence: int
