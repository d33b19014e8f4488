"""What a hypervisor's status file tells of its guests and controllers."""

from __future__ import annotations

from typing import Any

from iovirt_dist.drivers.queue_pair import QueuePair
from iovirt_dist.hypervisor.guest import Guest
from iovirt_dist.hypervisor.intercept.driver import DriverInterception
from iovirt_dist.hypervisor.intercept.syscall import SystemCallInterception
from iovirt_dist.wire.messages import GuestState, TrapKind
from iovirt_dist.wire.stream import Stream


def guest_status(guest: Guest, stream: Stream | None) -> dict[str, Any]:
    """One guest with both sides' counts; `stream` is its session, None before the first."""
    vm, counts = guest.vm, guest.vm.counts
    report = counts.reported
    disk, terminal = vm.drivers.disk, vm.drivers.terminal
    return {
        "connected": guest.connected,
        "waiting": guest.waiting,
        "state": (report.state if report else GuestState.STARTING).name.lower(),
        "reason": report.reason if report else "",
        "traps": {kind.name.lower(): counts.traps[kind] for kind in TrapKind},
        "traps_at_report": {kind.name.lower(): n for kind, n in zip(TrapKind, counts.at_report[1:], strict=False)},
        "guest_traps": {kind.name.lower(): n for kind, n in zip(TrapKind, report.traps[1:], strict=False)}
        if report
        else {},
        "touched": dict(counts.touched),
        "refused": counts.refused,
        "malformed": counts.malformed,
        "messages_in": stream.last_in if stream else 0,
        "messages_out": stream.last_out if stream else 0,
        "message_bytes_out": stream.bytes_out if stream else 0,
        "bytes_in": counts.bytes_in,
        "bytes_out": counts.bytes_out,
        "interrupts_raised": vm.interrupts_raised,
        "interrupts_taken": report.interrupts if report else 0,
        "faults_taken": report.faults if report else 0,
        "disk_requests": disk.requests if disk else 0,
        "disk_bytes_read": disk.bytes_read if disk else 0,
        "disk_bytes_written": disk.bytes_written if disk else 0,
        "console_bytes_out": terminal.bytes_out if terminal else 0,
        "console_bytes_in": terminal.bytes_in if terminal else 0,
        "queues": _queue_status(vm.machine.driver_level) if vm.machine and vm.machine.driver_level else {},
        "system_calls": _call_status(vm.machine.syscall_level) if vm.machine and vm.machine.syscall_level else {},
    }


def _queue_status(level: DriverInterception) -> dict[str, Any]:
    """What passed the guest's virtqueues since its machine was built."""
    return {
        "doorbells": level.doorbells,
        "notifications": level.notifications,
        "requests": level.requests,
        "completions": level.completions,
        "batches": level.batches,
        "interrupts": level.interrupts,
        "late_interrupts": level.late_interrupts,
        "stale": level.stale,
        "malformed": level.malformed,
        "faults": dict(level.faults),
        "last_fault": level.last_fault,
    }


def _call_status(level: SystemCallInterception) -> dict[str, Any]:
    """System calls by name since the machine was built: all, those left to the kernel, those that nothing does."""
    return {"calls": dict(level.calls), "passed": dict(level.passed), "unknown": dict(level.unknown)}


def pair_status(pair: QueuePair) -> dict[str, Any]:
    """One controller's queue pair."""
    return {
        "connected": pair.connected,
        "submitted": pair.submitted,
        "completed": pair.completed,
        "resubmitted": pair.resubmitted,
        "in_flight": pair.in_flight,
        "batches": pair.batches,
        "interrupts": pair.interrupts,
    }
