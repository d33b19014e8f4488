"""One guest as the hypervisor holds it: its machine, its drivers and its counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from iovirt_dist.hypervisor import privilege
from iovirt_dist.hypervisor.host_drivers import HostDrivers
from iovirt_dist.hypervisor.intercept import operation
from iovirt_dist.hypervisor.intercept.interceptor import Interceptor, Outgoing
from iovirt_dist.hypervisor.machines.machine import Machine, MachineParts
from iovirt_dist.hypervisor.machines.registry import build_machine
from iovirt_dist.hypervisor.plan import GuestPlan
from iovirt_dist.hypervisor.prefetch import Prefetch
from iovirt_dist.step import Tracer
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.messages import (
    GuestState,
    Message,
    Power,
    PowerAction,
    PrefetchRead,
    Report,
    Trap,
    TrapKind,
    TrapReply,
)
from iovirt_dist.wire.queue_messages import Doorbell
from iovirt_dist.wire.syscall_messages import Disposition, SystemCall, SystemCallReply

_NO_FAULT = -1


@dataclass(slots=True)
class Counts:
    """What the hypervisor counts of one guest since the guest started.

    Attributes:
        traps: By `TrapKind` value; index 0 is unused.
        touched: By name of the device that answered; ``-`` where nothing did.
    """

    traps: list[int] = field(default_factory=lambda: [0] * (len(TrapKind) + 1))
    touched: dict[str, int] = field(default_factory=dict)
    bytes_in: int = 0
    bytes_out: int = 0
    refused: int = 0
    malformed: int = 0
    reported: Report | None = None
    at_report: tuple[int, ...] = ()


class VirtualMachine:
    """A guest's machine, rebuilt at every power-on, and the drivers behind its devices.

    Args:
        plan: What the topology says.
        terminal_instance: Instance number under which the terminal driver, which outlives the machine, submits.
    """

    def __init__(self, plan: GuestPlan, terminal_instance: int) -> None:
        self.plan = plan
        self.counts = Counts()
        self.machine: Machine | None = None
        self.instance = 0
        self.power: Power | None = None
        """What a device of the machine asked for and nobody carried out yet."""
        self.terminal_instance = terminal_instance
        self.drivers = HostDrivers(plan, terminal_instance)
        self.tracer = Tracer(plan.name)
        self._interceptors: tuple[Interceptor, ...] = ()
        self._interceptor_of: dict[type[Message], Interceptor] = {}
        self._refusals: list[Outgoing] = []
        self._next_generation = count(1).__next__
        self._power_on_ns = 0
        self._prefetch = Prefetch()
        self._interrupts_raised = 0
        self._stopped = False

    def power_on(self, instance: int, wall_ns: int, now_ns: int) -> None:
        """Build the machine anew; all its units must have been identified.

        Args:
            instance: Number for the request ids of this life of the machine.
            wall_ns: Wall clock now.
            now_ns: Monotonic time now.

        Raises:
            ConfigError: The disk is none that the machine can have; there is no machine now.
        """
        self.power_off()
        self.instance = instance
        self._power_on_ns = now_ns
        self._stopped = False
        plan, drivers = self.plan, self.drivers
        drivers.power_on(instance)
        parts = MachineParts(
            guest=plan.name,
            memory_bytes=plan.memory_bytes,
            disk=drivers.disk,
            terminal=drivers.serial,
            wall_ns=wall_ns,
            power=self._ask_power,
            level=plan.level,
            console=drivers.virtio_terminal,
            entropy=drivers.entropy,
            abi=plan.abi,
            files=plan.files,
            next_generation=self._next_generation,
            tracer=self.tracer,
            network=drivers.network,
            disk_queues=plan.disk_queues,
            terminal_connected=drivers.terminal is not None,
        )
        self.machine = machine = build_machine(plan.machine, parts)
        self._intercept(machine.interceptors)
        drivers.attach(machine.disk, machine.terminal, machine.console, machine.entropy, machine.network, now_ns)
        drivers.flush(now_ns)

    def power_off(self) -> None:
        """Take the machine down; requests that are on their way complete into nothing."""
        if self.machine is not None:
            self._interrupts_raised += self.machine.lines.raised()
        self.drivers.power_off(self.instance)
        self.machine = None
        self._intercept(())
        self.power = None
        self._prefetch.withdraw()

    def remove(self) -> None:
        """The guest is served no more; nothing of it stays."""
        self.drivers.remove(self.terminal_instance)

    def forget_counts(self) -> None:
        """Count from 0: another life of the guest begins."""
        self.counts = Counts()
        self._interrupts_raised = 0

    @property
    def interrupts_raised(self) -> int:
        """How often an interrupt input of the CPU rose since the guest started."""
        return self._interrupts_raised + (self.machine.lines.raised() if self.machine else 0)

    def deadline_ns(self) -> int | None:
        """When `advance` must be called next, monotonic."""
        machine, retry = self.machine, self.drivers.retry_ns
        due = machine.deadline_ns() if machine is not None and not self._stopped else None
        if due is None:
            return retry
        due += self._power_on_ns
        return due if retry is None else min(due, retry)

    def advance(self, now_ns: int) -> None:
        """Let the machine's timers run up to now, and try again what failed at the console."""
        if self.machine is not None and not self._stopped:
            self.machine.advance(now_ns - self._power_on_ns)
        self.drivers.flush(now_ns)

    def trap(self, trap: Trap, payload: Sequence[Buffer], now_ns: int) -> tuple[TrapReply | None, bytes]:
        """Walk one trap through privilege, address map, interception and virtual device.

        Returns:
            The reply, None for a posted store, with the interrupt lines that changed; the data of a string input, or
            what is sent ahead.
        """
        machine, counts, kind = self.machine, self.counts, trap.kind
        assert machine is not None, "traps wait until the machine is built"
        counts.traps[kind] += 1
        self._prefetch.withdraw()
        if kind is TrapKind.INTERRUPT_ACKNOWLEDGE:
            vector = machine.acknowledge() if machine.acknowledge else 0
            return TrapReply(trap.number, vector, _NO_FAULT, 0, machine.lines.take_changes()), b""
        data: Buffer = payload[0] if payload else b""
        if len(payload) > 1 or not operation.is_well_formed(trap, data):
            counts.malformed += 1
            return TrapReply(trap.number, 0), b""
        fault = privilege.refusal(trap)
        if fault != privilege.ALLOWED:
            counts.refused += 1
            return TrapReply(trap.number, 0, fault), b""
        value, read, touched = operation.perform(machine.address_map, trap, data, now_ns - self._power_on_ns)
        name = touched.name if touched else "-"
        self._count(kind, trap.width * trap.count, name, now_ns)
        if self.tracer.on:
            self._trace_trap(trap, name)
        if kind is TrapKind.MMIO_STORE:
            return None, b""
        if kind is TrapKind.PORT_IN and trap.count == 1 and self.plan.prefetch:
            read = self._prefetch.offer(trap, touched)
        return TrapReply(trap.number, value, _NO_FAULT, 0, machine.lines.take_changes()), read

    def message(self, body: Message, payload: Sequence[Buffer], now_ns: int) -> None:
        """Take a message that is no single operation: a doorbell, a system call, what belongs to them."""
        interceptor = self._interceptor_of.get(type(body))
        self.count_raised(body)
        if isinstance(body, SystemCall):
            self.tracer.number = body.number
        if interceptor is None or not interceptor.message(body, payload, now_ns - self._power_on_ns):
            self.counts.malformed += 1
            if isinstance(body, SystemCall):  # the caller waits
                self._refusals.append(Outgoing(SystemCallReply(body.number, Disposition.PASS)))
        self.drivers.flush(now_ns)

    def outgoing(self, now_ns: int) -> list[Outgoing]:
        """Return what the interceptors have for the guest now."""
        machine_ns = now_ns - self._power_on_ns
        messages = [message for interceptor in self._interceptors for message in interceptor.flush(machine_ns)]
        if self._refusals:
            messages += self._refusals
            self._refusals.clear()
        return messages

    def hold_completions(self, hold: bool) -> None:
        """Say whether requests of its queues that are done stay there for now; rings bound their number."""
        if self.machine is not None and self.machine.driver_level is not None:
            self.machine.driver_level.hold = hold

    def count_raised(self, body: Message) -> None:
        """Count the traps that a message stands for.

        It is all that is done with what the guest raised for a machine that is gone: it had not heard yet that it was
        switched off.
        """
        traps = self.counts.traps
        if isinstance(body, Trap):
            traps[body.kind] += 1
        elif isinstance(body, PrefetchRead):
            traps[TrapKind.PORT_IN] += body.elements
        elif isinstance(body, Doorbell):
            traps[TrapKind.DOORBELL] += body.notifications
        elif isinstance(body, SystemCall):
            traps[TrapKind.SYSTEM_CALL] += 1

    def prefetch_read(self, message: PrefetchRead, now_ns: int) -> None:
        """The guest has executed INs that were answered from data sent ahead: each was a trap, and they count."""
        taken, width, name = self._prefetch.read(message.elements, now_ns - self._power_on_ns)
        counts = self.counts
        counts.malformed += taken != message.elements
        counts.traps[TrapKind.PORT_IN] += taken
        counts.bytes_in += taken * width
        if taken:
            counts.touched[name] = counts.touched.get(name, 0) + taken

    def reported(self, report: Report) -> None:
        """Keep a guest's own counts next to ours at the same point of the channel.

        While its CPU is stopped the machine's timers rest: they would interrupt nobody.
        """
        self.counts.reported = report
        self.counts.at_report = tuple(self.counts.traps)
        self._stopped = report.state is GuestState.STOPPED

    def _count(self, kind: TrapKind, size: int, touched: str, now_ns: int) -> None:
        counts = self.counts
        if kind is TrapKind.PORT_IN or kind is TrapKind.MMIO_LOAD:
            counts.bytes_in += size
        else:
            counts.bytes_out += size
        counts.touched[touched] = counts.touched.get(touched, 0) + 1
        if self.machine is not None and touched == self.machine.terminal_name:
            self.drivers.flush(now_ns)

    def _trace_trap(self, trap: Trap, device: str) -> None:
        """All that the hypervisor knows at the operation level."""
        self.tracer.number = trap.number
        self.tracer.point(
            "trap",
            kind=trap.kind.name.lower(),
            address=trap.address,
            width=trap.width,
            count=trap.count,
            value=trap.value,
            device=device,
        )

    def _intercept(self, interceptors: tuple[Interceptor, ...]) -> None:
        self._interceptors = interceptors
        self._interceptor_of = {kind: interceptor for interceptor in interceptors for kind in interceptor.takes}

    def _ask_power(self, action: PowerAction, reason: str) -> None:
        self.power = Power(action, reason)
