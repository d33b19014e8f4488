"""What a hypervisor's status file tells of its guests and controllers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from iovirt_dist.drivers.network import NetworkDriver
from iovirt_dist.drivers.queue_pair import QueuePair
from iovirt_dist.drivers.terminal import TerminalDriver
from iovirt_dist.hypervisor.guest import Guest
from iovirt_dist.hypervisor.intercept.driver import DriverInterception
from iovirt_dist.hypervisor.intercept.syscall import SystemCallInterception
from iovirt_dist.hypervisor.linux.tree import DISK_PATH
from iovirt_dist.hypervisor.machines.machine import Machine
from iovirt_dist.hypervisor.plan import Attachment
from iovirt_dist.hypervisor.virtual_machine import VirtualMachine
from iovirt_dist.runtime.session_status import session_status
from iovirt_dist.topology.qos import DEVICES, describe_qos
from iovirt_dist.wire.messages import GuestState, TrapKind
from iovirt_dist.wire.stream import Stream


def guest_status(guest: Guest, stream: Stream | None) -> dict[str, Any]:
    """One guest with both sides' counts; `stream` is its session, None before the first."""
    vm, machine, counts = guest.vm, guest.vm.machine, guest.vm.counts
    report = counts.reported
    disk, terminal = vm.drivers.disk, vm.drivers.terminal
    return {
        "connected": guest.connected,
        "epoch": guest.epoch,
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
        **session_status(stream),
        "bytes_in": counts.bytes_in,
        "bytes_out": counts.bytes_out,
        "interrupts_raised": vm.interrupts_raised,
        "interrupts_taken": report.interrupts if report else 0,
        "faults_taken": report.faults if report else 0,
        "disk": _disk_status(vm),
        "devices": device_status(vm),
        "qos": {device: words for device in DEVICES if (words := _qos_status(vm, device))},
        "disk_requests": disk.requests if disk else 0,
        "disk_bytes_read": disk.bytes_read if disk else 0,
        "disk_bytes_written": disk.bytes_written if disk else 0,
        "console_bytes_out": terminal.bytes_out if terminal else 0,
        "console_bytes_in": terminal.bytes_in if terminal else 0,
        "network": _network_status(vm.drivers.network),
        "queues": _queue_status(machine.driver_level) if machine and machine.driver_level else {},
        "system_calls": _call_status(machine.syscall_level, vm.plan.abi) if machine and machine.syscall_level else {},
    }


def device_status(vm: VirtualMachine) -> dict[str, dict[str, Any]]:
    """Of each device of a guest, by the topology's word for it: its controller, what waits and flies, bytes both ways.

    ``requests``, ``waiting`` and ``in_flight`` are those of the guest at that controller; two terminals at one
    controller share them, and the first one has them. ``bytes_in`` came from the device, ``bytes_out`` went there.
    """
    found: dict[str, dict[str, Any]] = {}
    counted: set[str] = set()
    for name, attachment, moved in _devices(vm):
        pair = attachment.queue_pair
        flow = None if pair.controller in counted else pair.queue.flow(vm.plan.name)
        counted.add(pair.controller)
        found[name] = {
            "controller": pair.controller,
            "requests": flow.requests if flow else 0,
            "waiting": len(flow.items) if flow else 0,
            "in_flight": flow.in_flight if flow else 0,
            "bytes_in": moved[0],
            "bytes_out": moved[1],
        }
    return found


def _devices(vm: VirtualMachine) -> Iterator[tuple[str, Attachment, tuple[int, int]]]:
    """Give each device with what is behind it, and its bytes in and out so far."""
    plan, drivers = vm.plan, vm.drivers
    disk, entropy, network = drivers.disk, drivers.entropy, drivers.network
    if plan.disk is not None:
        yield "disk", plan.disk, (disk.bytes_read, disk.bytes_written) if disk else (0, 0)
    if plan.console is not None:
        yield "console", plan.console, _terminal_bytes(drivers.terminal)
    if plan.virtio_console is not None:
        yield "virtio_console", plan.virtio_console, _terminal_bytes(drivers.virtio_terminal)
    if plan.rng is not None:
        yield "rng", plan.rng, (entropy.bytes_in if entropy else 0, 0)
    if plan.net is not None:
        yield "net", plan.net.attachment, (network.bytes_in, network.bytes_out) if network else (0, 0)


def _terminal_bytes(driver: TerminalDriver | None) -> tuple[int, int]:
    """What was typed and what was printed."""
    return (driver.bytes_in, driver.bytes_out) if driver else (0, 0)


def _network_status(driver: NetworkDriver | None) -> dict[str, Any]:
    """What passed the guest's network card, counted by the host-side driver."""
    if driver is None:
        return {}
    return {
        "mac": driver.mac.hex(":"),
        "link_up": driver.link_up,
        "frames_out": driver.frames_out,
        "bytes_out": driver.bytes_out,
        "frames_in": driver.frames_in,
        "bytes_in": driver.bytes_in,
        "dropped_out": driver.dropped_out,
        "dropped_in": driver.dropped_in,
        "errors": driver.errors,
    }


def _qos_status(vm: VirtualMachine, device: str) -> dict[str, Any]:
    """What the guest may have of a device, and what it has had; {} without such a device."""
    attachment = vm.plan.shared(device)
    if attachment is None:
        return {}
    queue = attachment.queue_pair.queue
    flow = queue.flow(vm.plan.name)
    return {
        "scheduler": queue.kind.value,
        **describe_qos(queue.qos(vm.plan.name), queue.kind),
        "requests": flow.requests if flow else 0,
        "waiting": len(flow.items) if flow else 0,
        "in_flight": flow.in_flight if flow else 0,
        "throttled": flow.throttled if flow else 0,
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


def _call_status(level: SystemCallInterception, abi: str) -> dict[str, Any]:
    """System calls by name since the machine was built: all, those left to the kernel, those that nothing does."""
    return {"abi": abi, "calls": dict(level.calls), "passed": dict(level.passed), "unknown": dict(level.unknown)}


def _disk_status(vm: VirtualMachine) -> dict[str, Any]:
    """What the guest's disk is made of here: virtual device, by class and by the name in its trace points; driver."""
    machine, driver, attachment = vm.machine, vm.drivers.disk, vm.plan.disk
    if machine is None or driver is None or attachment is None:
        return {}
    return {
        "virtual_device": type(machine.disk).__name__,
        "traced_as": _traced_disk(machine),
        "host_driver": type(driver).__name__,
        "controller": attachment.queue_pair.controller,
    }


def _traced_disk(machine: Machine) -> str | int:
    """How the disk is called in the trace points of the level at which it is intercepted."""
    disk: object = machine.disk
    if disk is machine.syscall_level:
        return DISK_PATH
    transports = machine.driver_level.devices if machine.driver_level else {}
    for number, transport in transports.items():
        if transport.function is disk:
            return number
    return next((name for name, device in machine.devices.items() if device is disk), "")


def pair_status(pair: QueuePair, stream: Stream) -> dict[str, Any]:
    """One controller's queue pair and its session."""
    return {
        **session_status(stream),
        "connected": pair.connected,
        "submitted": pair.submitted,
        "completed": pair.completed,
        "resubmitted": pair.resubmitted,
        "merged": pair.merged,
        "in_flight": pair.in_flight,
        "credits": pair.credits,
        "waiting": len(pair.queue),
        "batches": pair.batches,
        "interrupts": pair.interrupts,
    }
