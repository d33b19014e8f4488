"""The host-side drivers of one guest's devices: the second driver of each, the first is in the guest.

Drivers of disks and entropy live as long as the guest's machine: what they asked for is void when it is rebuilt.
Drivers of terminals outlive it, because what is printed or typed must not be lost with a reset, and so do those of
network cards.
"""

from __future__ import annotations

from iovirt_dist.drivers.backend import DiskClient, EntropyClient, NetworkClient, TerminalBackend, TerminalClient
from iovirt_dist.drivers.disk import DiskDriver
from iovirt_dist.drivers.entropy import EntropyDriver
from iovirt_dist.drivers.network import NetworkDriver
from iovirt_dist.drivers.terminal import TerminalDriver
from iovirt_dist.hypervisor.plan import Attachment, Card, GuestPlan

DISK_QUEUE, TERMINAL_QUEUE, VIRTIO_TERMINAL_QUEUE, ENTROPY_QUEUE, NETWORK_QUEUE = 0, 1, 3, 5, 6
"""Queue numbers in request ids; a terminal takes two, and so does a network card."""


class HostDrivers:
    """One guest's drivers.

    Args:
        plan: Its devices.
        instance: Instance number under which its drivers of terminals and network cards submit.
    """

    def __init__(self, plan: GuestPlan, instance: int) -> None:
        for attachment in plan.attachments():
            attachment.hold()
            attachment.enroll(instance, plan.name)
        self.disk: DiskDriver | None = None
        self.entropy: EntropyDriver | None = None
        self.terminal = _terminal(plan.console, instance, TERMINAL_QUEUE)
        self.virtio_terminal = _terminal(plan.virtio_console, instance, VIRTIO_TERMINAL_QUEUE)
        self._terminals = [driver for driver in (self.terminal, self.virtio_terminal) if driver is not None]
        self.network = _network(plan.net, instance)
        self._plan = plan

    @property
    def serial(self) -> TerminalBackend:
        """What is behind the first serial port: a terminal, or nothing."""
        return self.terminal or _UNCONNECTED

    def waiting_for(self) -> str:
        """What must be identified before the machine can be built, one line; empty for nothing."""
        attachments = self._plan.attachments()
        units = [attachment.use() for attachment in attachments]  # all at once: each takes a round trip
        for attachment, unit in zip(attachments, units, strict=True):
            if unit.problem:
                return unit.problem
            if unit.number is None:
                return f"waiting for controller {attachment.queue_pair.controller}"
        return ""

    def ask_again(self) -> bool:
        """Ask for the units that their controllers did not have; returns whether there are any."""
        troubled = [attachment for attachment in self._plan.attachments() if attachment.use().problem]
        for attachment in troubled:
            attachment.queue_pair.ask_again(attachment.unit)
        return bool(troubled)

    def power_on(self, instance: int) -> None:
        """Make the drivers of a new life of the machine; everything must have been identified.

        Args:
            instance: Number for the request ids of this life.
        """
        disk, rng = self._plan.disk, self._plan.rng
        for attachment in (disk, rng):
            if attachment is not None:
                attachment.enroll(instance, self._plan.name)
        if disk is not None:
            identity = disk.use().identity
            assert identity is not None, "units are identified before power-on"
            self.disk = DiskDriver(disk.queue_pair, disk.unit, identity, instance, DISK_QUEUE)
        if rng is not None:
            self.entropy = EntropyDriver(rng.queue_pair, rng.unit, instance, ENTROPY_QUEUE)
        if self.network is not None:
            self.network.follow_link(0)

    def attach(
        self,
        disk: DiskClient | None,
        terminal: TerminalClient | None,
        virtio_terminal: TerminalClient | None,
        entropy: EntropyClient | None,
        network: NetworkClient | None,
        power_on_ns: int,
    ) -> None:
        """Say which virtual devices the drivers serve now, and when their machine's time began (monotonic)."""
        if self.disk is not None:
            self.disk.attach(disk, power_on_ns)
        if self.entropy is not None:
            self.entropy.attach(entropy, power_on_ns)
        if self.terminal is not None:
            self.terminal.attach(terminal, power_on_ns)
        if self.virtio_terminal is not None:
            self.virtio_terminal.attach(virtio_terminal, power_on_ns)
        if self.network is not None:
            self.network.attach(network, power_on_ns)

    def power_off(self, instance: int) -> None:
        """The machine is gone: what it asked for completes into nothing."""
        for attachment in (self._plan.disk, self._plan.rng):
            if attachment is not None:
                attachment.queue_pair.forget(instance)
        if self.entropy is not None:
            self.entropy.attach(None, 0)
        for terminal in self._terminals:
            terminal.attach(None, 0)
        if self.network is not None:
            self.network.attach(None, 0)

    def remove(self, instance: int) -> None:
        """The guest is gone for good: also what outlives its machine, and its share of each device.

        Args:
            instance: As when this was made.
        """
        for attachment in self._plan.attachments():
            attachment.queue_pair.forget(instance)
            attachment.queue_pair.queue.dismiss(self._plan.name)
            attachment.let_go()

    def flush(self, now_ns: int) -> None:
        """Let terminals hand on what was printed and typed, follow link and disk, and try again what failed."""
        if self.disk is not None:
            self.disk.follow_size()
        if self.entropy is not None:
            self.entropy.flush(now_ns)
        for terminal in self._terminals:
            terminal.feed(now_ns)
            terminal.flush(now_ns)
        if self.network is not None:
            self.network.flush(now_ns)

    @property
    def retry_ns(self) -> int | None:
        """Monotonic time at which `flush` must be called next, None for never."""
        due = [at for driver in self._terminals if (at := driver.retry_ns) is not None]
        due += [
            at for driver in (self.network, self.entropy) if driver is not None and (at := driver.retry_ns) is not None
        ]
        return min(due, default=None)


def _terminal(attachment: Attachment | None, instance: int, queue: int) -> TerminalDriver | None:
    if attachment is None:
        return None
    return TerminalDriver(attachment.queue_pair, attachment.unit, instance, queue)


def _network(card: Card | None, instance: int) -> NetworkDriver | None:
    if card is None:
        return None
    queue_pair, unit = card.attachment.queue_pair, card.attachment.unit
    return NetworkDriver(queue_pair, unit, card.mac, card.mtu, instance, NETWORK_QUEUE)


class _Unconnected:
    """An unconnected line: takes everything, brings nothing."""

    def transmit(self, data: bytes) -> None:
        """Drop the bytes."""

    def space(self) -> int:
        """Always room."""
        return 4096


_UNCONNECTED = _Unconnected()
