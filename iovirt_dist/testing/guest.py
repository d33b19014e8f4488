"""A guest of a rig: its core, its way to the hypervisor, and its instructions as method calls.

The handle is what a vCPU calls its bus, so a test can execute single I/O instructions itself, or attach a CPU that runs
machine code (`iovirt_dist.testing.vcpu`).
"""

from __future__ import annotations

from collections.abc import Callable

from iovirt_dist.errors import GuestFault, LocalError
from iovirt_dist.guest import core as gc
from iovirt_dist.guest.bus import BusClosedError, IoPrivilege, SystemCallOutcome
from iovirt_dist.testing.nodes import Node, World
from iovirt_dist.transport.port import ONLY_PEER
from iovirt_dist.virtio.memory import ByteMemory, GuestMemory
from iovirt_dist.wire.messages import Role, TrapKind
from iovirt_dist.wire.session import SessionConfig

SYSTEM = IoPrivilege(0)
"""Ring 0 or M mode: every I/O instruction may complete."""

USER = IoPrivilege(3)
"""Ring 3 with IOPL 0 and no permission bitmap: port I/O must fault."""

TRAP_LIMIT_NS = 600_000_000_000
"""Ten virtual minutes: a trap that takes longer waits for something that never comes."""

_CROWDED = 3072
"""Posted stores that may be unacknowledged, below the session's window of 4096."""


class RigGuest(Node):
    """A guest; implements `iovirt_dist.guest.bus.Bus`.

    Each method that waits drives the whole rig in virtual time until the trap completes. It raises `GuestFault` when
    the instruction must fault in the guest and `BusClosedError` when the machine was powered on, reset or switched off
    meanwhile (see `take_power_on`).

    Args:
        name: Its name.
        world: What it shares with the other nodes.
        hypervisor: Name of its hypervisor.
        drive: Runs the rig until a condition holds: condition, most virtual ns, what is awaited.
        memory_bytes: Size of its RAM while no CPU brings its own.
        memory_base: Guest physical address of that RAM.

    Attributes:
        completion: Outcome of the last trap that was to be waited for; None while it is under way.
        line_changes: Grows with every change of an interrupt line.
        powered: Whether the machine is on, as far as `take_power_on` and `take_power_off` have told.
        after_trap: Called when a trap has completed; an attached CPU sets it.
    """

    core: gc.GuestCore

    def __init__(
        self,
        name: str,
        world: World,
        hypervisor: str,
        drive: Callable[[Callable[[], bool], int, str], None],
        memory_bytes: int = 32 << 20,
        memory_base: int = 0,
    ) -> None:
        super().__init__(name, world)
        self.completion: gc.CompleteTrap | SystemCallOutcome | None = None
        self.line_changes = 0
        self.powered = False
        self.after_trap: Callable[[], None] = _nothing
        self._hypervisor = hypervisor
        self._drive = drive
        self._memory_bytes = memory_bytes
        self._memory_base = memory_base
        self._memory: GuestMemory | None = None
        self._lines = 0
        self._waiting = False
        self._power_on_reason = ""
        self._power_off_reason = ""

    @property
    def memory(self) -> GuestMemory:
        """RAM: the attached CPU's, else a `ByteMemory` made at the first use."""
        if self._memory is None:
            self._memory = ByteMemory(self._memory_bytes, self._memory_base)
        return self._memory

    @memory.setter
    def memory(self, memory: GuestMemory) -> None:
        self._memory = memory

    # --- one instruction each

    def inb(self, port: int, privilege: IoPrivilege = SYSTEM) -> int:
        """IN of one byte."""
        return self.port_in(port, 1, 1, privilege)[0]

    def inw(self, port: int, privilege: IoPrivilege = SYSTEM) -> int:
        """IN of two bytes."""
        return int.from_bytes(self.port_in(port, 2, 1, privilege), "little")

    def inl(self, port: int, privilege: IoPrivilege = SYSTEM) -> int:
        """IN of four bytes."""
        return int.from_bytes(self.port_in(port, 4, 1, privilege), "little")

    def insw(self, port: int, count: int, privilege: IoPrivilege = SYSTEM) -> bytes:
        """REP INSW: `count` words from one port, one trap."""
        return self.port_in(port, 2, count, privilege)

    def outb(self, port: int, value: int, privilege: IoPrivilege = SYSTEM) -> None:
        """OUT of one byte."""
        self.port_out(port, 1, bytes([value]), privilege)

    def outw(self, port: int, value: int, privilege: IoPrivilege = SYSTEM) -> None:
        """OUT of two bytes."""
        self.port_out(port, 2, value.to_bytes(2, "little"), privilege)

    def outl(self, port: int, value: int, privilege: IoPrivilege = SYSTEM) -> None:
        """OUT of four bytes."""
        self.port_out(port, 4, value.to_bytes(4, "little"), privilege)

    def outsw(self, port: int, data: bytes, privilege: IoPrivilege = SYSTEM) -> None:
        """REP OUTSW: words to one port, one trap."""
        self.port_out(port, 2, data, privilege)

    # --- Bus

    def port_in(self, port: int, width: int, count: int, privilege: IoPrivilege) -> bytes:
        """IN or `rep ins`; see `Bus`."""
        done = self._trap(gc.TrapRaised(TrapKind.PORT_IN, port, width, count, 0, b"", privilege))
        if count == 1:
            return (done.value & ((1 << (8 * width)) - 1)).to_bytes(width, "little")
        return bytes(done.data).ljust(width * count, b"\xff")

    def port_out(self, port: int, width: int, data: bytes, privilege: IoPrivilege) -> None:
        """OUT or `rep outs`; see `Bus`."""
        count = len(data) // width
        value, data = (int.from_bytes(data, "little"), b"") if count == 1 else (0, data)
        self._trap(gc.TrapRaised(TrapKind.PORT_OUT, port, width, count, value, data, privilege))

    def load(self, address: int, width: int, privilege: IoPrivilege = SYSTEM) -> int:
        """Load; see `Bus`."""
        done = self._trap(gc.TrapRaised(TrapKind.MMIO_LOAD, address, width, 1, 0, b"", privilege))
        return done.value & ((1 << (8 * width)) - 1)

    def store(self, address: int, width: int, value: int, privilege: IoPrivilege = SYSTEM) -> None:
        """Posted store; see `Bus`. It is under way when this returns: `Rig.settle` waits for it."""
        self._post(gc.TrapRaised(TrapKind.MMIO_STORE, address, width, 1, value, b"", privilege))

    def acknowledge_interrupt(self) -> int:
        """INTA cycle; see `Bus`."""
        return self._trap(gc.TrapRaised(TrapKind.INTERRUPT_ACKNOWLEDGE, 0, 1, 1, 0, b"", SYSTEM)).value

    def lines(self) -> int:
        """Asserted interrupt inputs; see `Bus`."""
        return self._lines

    def intercepted_calls(self) -> tuple[str, frozenset[int]] | None:
        """Which system calls to hand over; see `Bus`."""
        return self.core.intercepted_calls

    def program_started(self, process: int, name: str, break_start: int, map_top: int) -> None:
        """Tell of a program; see `Bus`."""
        self._post(gc.ProgramLoaded(process, name, break_start, map_top))

    def system_call(
        self, process: int, call: int, arguments: tuple[int, ...], buffers: tuple[int, ...], data: bytes
    ) -> SystemCallOutcome:
        """System call; see `Bus`."""
        outcome = self._ask(gc.SystemCallRaised(process, call, arguments, buffers, data), f"system call {call}")
        assert isinstance(outcome, SystemCallOutcome)
        return outcome

    # --- what tests and the attached CPU need besides

    def raise_trap(self, trap: gc.TrapRaised | gc.SystemCallRaised) -> None:
        """Begin a trap and return at once: drive the rig yourself until `completion` is there."""
        self.completion = None
        self.handle(trap)

    def wait_interrupt(self, limit_ns: int = TRAP_LIMIT_NS) -> int:
        """Run the rig until an interrupt input is asserted, as HLT does; returns `lines`.

        Raises:
            LocalError: None was within `limit_ns`.
        """
        self._drive(lambda: bool(self._lines) or self.interrupted, limit_ns, f"interrupt of {self.name}")
        self._check_alive()
        return self._lines

    def wait_power_on(self, limit_ns: int = TRAP_LIMIT_NS) -> str:
        """Run the rig until the machine is to be powered on; returns why, as `take_power_on` does."""
        self._drive(lambda: bool(self._power_on_reason), limit_ns, f"power for {self.name}")
        return self.take_power_on()

    @property
    def interrupted(self) -> bool:
        """Whether power changes, or the guest does not run: no instruction can go on."""
        return bool(self._power_on_reason) or bool(self._power_off_reason) or not self.running

    def take_power_on(self) -> str:
        """Return why the machine must be powered on now, once; empty if it need not."""
        reason, self._power_on_reason = self._power_on_reason, ""
        self.powered = self.powered or bool(reason)
        return reason

    def take_power_off(self) -> str:
        """Return why the machine must be switched off now, once; empty if it need not."""
        reason, self._power_off_reason = self._power_off_reason, ""
        self.powered = self.powered and not reason
        return reason

    def handle(self, event: gc.Event) -> None:
        """Let the core handle an event, and perform what it says."""
        for action in self.core.handle(event, self.world.clock.now_ns):
            if isinstance(action, gc.CompleteTrap):
                self.completion = action
            elif isinstance(action, gc.CompleteCall):
                self.completion = action.outcome
            elif isinstance(action, gc.Send):
                self._port.send(ONLY_PEER, action.frames)
            elif isinstance(action, gc.SetLines):
                self._lines = action.lines
                self.line_changes += 1
            elif isinstance(action, gc.PowerOn):
                self._power_on_reason, self._power_off_reason = action.reason, ""
            elif isinstance(action, gc.PowerOff):
                self._power_off_reason = action.reason
            elif isinstance(action, gc.Note):
                self.log(action.text)

    def _trap(self, trap: gc.TrapRaised) -> gc.CompleteTrap:
        done = self._ask(trap, trap.kind.name)
        assert isinstance(done, gc.CompleteTrap)
        if done.fault >= 0:
            raise GuestFault(done.fault, done.error_code)
        return done

    def _post(self, event: gc.Event) -> None:
        self._check_alive()
        self.handle(event)
        if self.core.opener.stream.unacknowledged() > _CROWDED:
            self._drive(lambda: self.core.opener.stream.unacknowledged() <= _CROWDED, TRAP_LIMIT_NS, "posted stores")
        self.after_trap()

    def _ask(self, event: gc.TrapRaised | gc.SystemCallRaised, what: str) -> gc.CompleteTrap | SystemCallOutcome:
        self._check_alive()
        self.raise_trap(event)
        self._waiting = True
        try:
            self._drive(lambda: self.completion is not None or self.interrupted, TRAP_LIMIT_NS, what)
        finally:
            self._waiting = False
        done = self.completion
        self.after_trap()
        if done is None:
            raise BusClosedError
        return done

    def _check_alive(self) -> None:
        if not self.running:
            raise LocalError("the guest does not run", self.name, "start it")
        if self.interrupted:
            raise BusClosedError

    # --- Node

    def handle_message(self) -> bool:
        """Handle one message of the hypervisor."""
        message = self.take_from(self._port) if self.running else None
        if message is not None:
            self.handle(gc.FramesReceived(message[1]))
        return message is not None

    def deadline_ns(self) -> int | None:
        """When the core is due."""
        return self.core.deadline_ns() if self.running else None

    def tick(self) -> None:
        """Fire the core's timer."""
        self.handle(gc.TimerFired())

    def busy(self) -> str:
        """A trap that waits, and unacknowledged messages."""
        if not self.running:
            return ""
        waiting = self.core.opener.stream.unacknowledged()
        if waiting or self._waiting:
            return f"{self.name}: {waiting} messages unacknowledged{', a trap waits' if self._waiting else ''}"
        return ""

    def _begin(self) -> None:
        config = SessionConfig(Role.GUEST, self.name, self.lives, lease_ms=self.world.lease_ms)
        self.core = gc.GuestCore(config, self._hypervisor, _Ram(self))
        self._port = self.world.network.dial(self._hypervisor, self.name)
        self._lines = 0
        self._power_on_reason = self._power_off_reason = ""
        self.powered = False
        self.handle(gc.Started())

    def _end(self) -> None:
        self._port.close()

    def _farewell(self, reason: str) -> None:
        self.handle(gc.StopRequested(reason))


class _Ram:
    """A guest's RAM, whichever it is at the moment of the access: most guests of rigs never need any.

    Args:
        guest: Whose.
    """

    def __init__(self, guest: RigGuest) -> None:
        self._guest = guest

    def read(self, address: int, length: int) -> bytes:
        """Return a copy."""
        return self._guest.memory.read(address, length)

    def view(self, address: int, length: int) -> memoryview:
        """Return the memory itself."""
        return self._guest.memory.view(address, length)

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Write."""
        self._guest.memory.write(address, data)


def _nothing() -> None:
    """No CPU is attached."""
