"""The `pc` machine as software finds it: through its ports only."""

from __future__ import annotations

import pytest

from iovirt_dist.hypervisor.address_map import Space
from iovirt_dist.hypervisor.intercept.operation import perform
from iovirt_dist.hypervisor.machines.machine import Machine
from iovirt_dist.hypervisor.machines.pc import INTR, build_pc
from iovirt_dist.platform.level import Level
from iovirt_dist.virtio.mmio import Register
from iovirt_dist.wire.commands import Opcode, Status
from iovirt_dist.wire.messages import PowerAction, Trap, TrapKind
from tests.unit.hypervisor.machines.parts import Surroundings
from tests.unit.hypervisor.machines.virtio_story import READ_TWO, Story
from tests.unit.hypervisor.vdev.virtio_bench import LIVE

MS = 1_000_000


class Pc:
    """The machine with a CPU's view of it."""

    def __init__(self, *, disk: bool = True) -> None:
        self.around = Surroundings()
        self.machine: Machine = build_pc(self.around.parts(disk=disk))
        self.now_ns = 0

    def inp(self, port: int, width: int = 1) -> int:
        """IN."""
        trap = Trap(1, TrapKind.PORT_IN, port, width, 1, 0, 0)
        return perform(self.machine.address_map, trap, b"", self.now_ns).value

    def out(self, *writes: tuple[int, int], width: int = 1) -> None:
        """OUT of (port, value) in order."""
        for port, value in writes:
            trap = Trap(1, TrapKind.PORT_OUT, port, width, 1, value, 0)
            perform(self.machine.address_map, trap, b"", self.now_ns)

    def unmask(self, *irqs: int) -> None:
        """Initialise the 8259 pair (vectors 20h and 28h) and unmask inputs and the cascade."""
        self.out((0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1), (0xA0, 0x11), (0xA1, 0x28), (0xA1, 2), (0xA1, 1))
        mask = 0xFFFF ^ sum(1 << irq for irq in (*irqs, 2))
        self.out((0x21, mask & 0xFF), (0xA1, mask >> 8))

    def vector(self) -> int:
        """INTA cycle of an asserted INTR."""
        assert self.machine.lines.take_changes() == (INTR, 1), "INTR did not rise"
        assert self.machine.acknowledge is not None
        return self.machine.acknowledge()

    def pass_time(self, duration_ns: int) -> None:
        """Let devices be due one after another."""
        end_ns = self.now_ns + duration_ns
        while (due_ns := self.machine.deadline_ns()) is not None and due_ns <= end_ns:
            self.now_ns = max(due_ns, self.now_ns)
            self.machine.advance(self.now_ns)
        self.now_ns = end_ns


@pytest.mark.parametrize(
    ("name", "base", "size"),
    [
        ("pic", 0x20, 2),
        ("pic", 0xA0, 2),
        ("pic", 0x4D0, 2),
        ("pit", 0x40, 4),
        ("keyboard", 0x60, 1),
        ("pit", 0x61, 1),
        ("keyboard", 0x64, 1),
        ("cmos", 0x70, 2),
        ("post", 0x80, 1),
        ("port92", 0x92, 1),
        ("ata1", 0x170, 8),
        ("ata", 0x1F0, 8),
        ("ata1", 0x376, 1),
        ("ata", 0x3F6, 1),
        ("uart", 0x3F8, 8),
        ("pci", 0xCF8, 8),
    ],
)
def test_pc_device_answers_at_its_documented_ports(name: str, base: int, size: int) -> None:
    """First and last port are its own, the ones around are not."""
    address_map = Pc().machine.address_map
    found = [address_map.find(Space.PORT, port) for port in (base, base + size - 1)]

    assert [entry.name if entry else "" for entry in found] == [name, name]
    assert found[0] is not None
    assert (found[0].base, found[0].end) == (base, base + size)


def test_pc_has_no_other_ports() -> None:
    """Each port of the machine is in the list above: 51 of them."""
    assert sum(entry.end - entry.base for entry in Pc().machine.address_map.ranges(Space.PORT)) == 51


@pytest.mark.parametrize(
    ("port", "value"),
    [(0x3FD, 0x60), (0x1F7, 0x50), (0x3F6, 0x50), (0x177, 0x00), (0x376, 0x00), (0x64, 0x10), (0x279, 0xFF)],
)
def test_pc_port_reads_after_power_on_as_firmware_expects(port: int, value: int) -> None:
    """Empty transmitter, ready disk, absent secondary channel, keyboard controller, nobody."""
    assert Pc().inp(port) == value


def test_pc_post_port_holds_what_was_written() -> None:
    """Firmware shows its progress there."""
    pc = Pc()

    pc.out((0x80, 0xAB))

    assert pc.inp(0x80) == 0xAB


def test_pc_cmos_tells_the_memory_size() -> None:
    """34h and 35h: 64 KiB units above 16 MiB; the machine has 32 MiB."""
    pc = Pc()
    pc.out((0x70, 0x35))
    high = pc.inp(0x71)
    pc.out((0x70, 0x34))

    assert high << 8 | pc.inp(0x71) == (16 << 20) // 65536


def test_pc_has_host_bridge_isa_bridge_and_ide_in_its_configuration_space() -> None:
    """i440FX and PIIX3 at their places."""
    pc = Pc()
    found = {}
    for device, function in ((0, 0), (1, 0), (1, 1), (2, 0)):
        pc.out((0xCF8, 1 << 31 | device << 11 | function << 8), width=4)
        found[device, function] = pc.inp(0xCFC, 4)

    assert found == {(0, 0): 0x1237_8086, (1, 0): 0x7000_8086, (1, 1): 0x7010_8086, (2, 0): 0xFFFF_FFFF}


def test_pc_timer_tick_reaches_intr_when_unmasked() -> None:
    """8254 counter 0 to IRQ0: a tick after its count has run down, with the vector that was programmed."""
    pc = Pc()
    pc.unmask(0)
    pc.out((0x43, 0x30), (0x40, 0xA9), (0x40, 0x04))  # mode 0, 1193 ticks: one millisecond

    pc.pass_time(MS // 2)
    early = pc.machine.lines.changed
    pc.pass_time(MS)

    assert not early
    assert pc.vector() == 0x20


def test_pc_timer_tick_does_not_reach_intr_while_masked() -> None:
    """The mask register of the 8259 decides."""
    pc = Pc()
    pc.unmask(4)
    pc.out((0x43, 0x30), (0x40, 0xA9), (0x40, 0x04))

    pc.pass_time(2 * MS)

    assert not pc.machine.lines.changed


def test_pc_uart_interrupt_is_irq_4() -> None:
    """Transmitter empty, as soon as it is enabled."""
    pc = Pc()
    pc.unmask(4)

    pc.out((0x3F9, 0x02))

    assert pc.vector() == 0x24


def test_pc_clock_update_interrupt_is_irq_8() -> None:
    """RTC update-ended interrupt, once a second."""
    pc = Pc()
    pc.unmask(8)
    pc.out((0x70, 0x0B), (0x71, 0x12))

    pc.pass_time(1100 * MS)

    assert pc.vector() == 0x28


def test_pc_disk_completion_is_irq_14() -> None:
    """READ SECTORS: the request goes to the backend, its data raises the interrupt."""
    pc = Pc()
    pc.unmask(14)
    pc.out((0x1F2, 1), (0x1F3, 5), (0x1F4, 0), (0x1F5, 0), (0x1F6, 0xE0), (0x1F7, 0x20))
    request = pc.around.disk.requests[0]
    assert pc.machine.disk is not None

    pc.machine.disk.complete(request.tag, Status.OK, b"\x12\x34" * 256, 0)

    assert (request.opcode, request.offset, request.length) == (Opcode.READ, 5 * 512, 512)
    assert pc.vector() == 0x2E
    assert pc.inp(0x1F0, 2) == 0x3412


def test_pc_shows_what_is_written_to_its_uart() -> None:
    """COM1 is the terminal."""
    pc = Pc()

    pc.out((0x3F8, ord("h")), (0x3F8, ord("i")))

    assert pc.around.screen.shown == b"hi"


@pytest.mark.parametrize(
    ("write", "reason"),
    [((0x64, 0xFE), "keyboard controller"), ((0x92, 0x01), "port 92h"), ((0xCF9, 0x06), "port CF9h")],
)
def test_pc_reset_ways_ask_for_a_reset_and_say_which(write: tuple[int, int], reason: str) -> None:
    """8042 command FEh, fast reset, reset control register."""
    pc = Pc()

    pc.out(write)

    assert pc.around.power == [(PowerAction.RESET, reason)]


def test_pc_without_a_disk_reads_its_channel_as_absent() -> None:
    """0, which no driver takes for a busy device."""
    assert Pc(disk=False).inp(0x1F7) == 0


def test_pc_state_of_every_device_goes_through_another_machine() -> None:
    """Configured in all corners, the copy reads alike at every port that has no side effect, and is due alike."""
    pc, copy = Pc(), Pc()
    pc.unmask(0, 4, 14)
    pc.out((0x43, 0x34), (0x40, 0), (0x40, 0x10), (0x61, 3), (0x70, 0x0B), (0x71, 0x42), (0x80, 0x77), (0x92, 2))
    pc.out((0x3FB, 0x83), (0x3F8, 1), (0x3FB, 3), (0x3FF, 0x5A), (0x3F9, 1), (0x1F2, 9), (0x1F6, 0xE7), (0x4D1, 0x0C))
    pc.out((0xCF8, 0x8000_0904), width=4)
    pc.pass_time(5 * MS)

    for name, device in copy.machine.devices.items():
        device.restore(pc.machine.devices[name].state())
    copy.now_ns = pc.now_ns

    ports = (0x21, 0xA1, 0x4D1, 0x40, 0x61, 0x71, 0x80, 0x92, 0x1F2, 0x1F6, 0x3F6, 0x3F9, 0x3FB, 0x3FF, 0x64)
    assert [copy.inp(port) for port in ports] == [pc.inp(port) for port in ports]
    assert copy.inp(0xCF8, 4) == 0x8000_0904
    assert copy.machine.deadline_ns() == pc.machine.deadline_ns()
    assert {name: device.state() for name, device in copy.machine.devices.items()} == {
        name: device.state() for name, device in pc.machine.devices.items()
    }


# --- virtio


def pc_at(level: Level, *, virtio: bool = False) -> Pc:
    """A machine whose disk is intercepted at a level."""
    pc = Pc()
    pc.machine = build_pc(pc.around.parts(level=level, virtio=virtio))
    return pc


def test_pc_virtio_disk_reads_and_interrupts_at_irq_5() -> None:
    """Negotiate, arm, doorbell, complete, interrupt, acknowledge; the line falls when the driver says so."""
    pc = pc_at(Level.DRIVER)
    pc.unmask(5)
    story = Story(pc.machine, pc.around, 0xFEB0_0000)

    arm = story.arm()
    body, returned = story.read_two(arm)
    vector = pc.machine.acknowledge() if pc.machine.acknowledge else 0
    status = story.load(Register.INTERRUPT_STATUS)
    story.store((Register.INTERRUPT_ACK, status))
    pc.out((0x20, 0x20))

    assert (arm.device, arm.queue, arm.notify, arm.features) == (0, 0, 0xFEB0_0050, 1 << 32 | 1 << 29 | 1 << 9)
    assert (body.interrupt, body.lines, returned) == (True, (INTR, 1), READ_TWO)
    assert (vector, status) == (0x25, 1)
    assert pc.machine.lines.take_changes() == (INTR, 2)


def test_pc_virtio_interrupt_that_is_not_acknowledged_comes_again_after_eoi() -> None:
    """Level-triggered in the ELCR, as firmware would have set it."""
    pc = pc_at(Level.DRIVER)
    pc.unmask(5)
    story = Story(pc.machine, pc.around, 0xFEB0_0000)
    story.read_two(story.arm())
    assert pc.machine.acknowledge is not None
    first = pc.machine.acknowledge()

    pc.out((0x20, 0x20))

    assert (first, pc.machine.acknowledge()) == (0x25, 0x25)
    assert (pc.inp(0x4D0), pc.inp(0x4D1)) == (0x20, 0x0E)


@pytest.mark.parametrize(
    ("level", "ata_status", "virtio_id"), [(Level.OPERATION, 0x50, 0), (Level.DRIVER, 0, 2), (Level.SYSCALL, 0, 0)]
)
def test_pc_disk_is_the_device_of_its_level(level: Level, ata_status: int, virtio_id: int) -> None:
    """One of the two, or none: then programs' calls are what is intercepted."""
    pc = pc_at(level)

    assert pc.inp(0x1F7) == ata_status
    assert Story(pc.machine, pc.around, 0xFEB0_0000).load(Register.DEVICE_ID) == virtio_id


def test_pc_virtio_devices_are_in_their_windows_whatever_the_level() -> None:
    """Console, entropy and network; nothing behind the fourth window."""
    pc = pc_at(Level.OPERATION, virtio=True)
    windows = [Story(pc.machine, pc.around, 0xFEB0_0000 + 0x1000 * slot) for slot in range(5)]

    assert [window.load(Register.DEVICE_ID) for window in windows] == [0, 3, 4, 1, 0xFFFF_FFFF]
    assert [entry.name for entry in pc.machine.address_map.ranges(Space.MEMORY)] == [
        "virtio0",
        "virtio-console",
        "virtio-rng",
        "virtio-net",
    ]
    assert (pc.machine.console is None, pc.machine.entropy is None, pc.machine.network is None) == (False,) * 3


@pytest.mark.parametrize(("slot", "irq"), [(0, 5), (1, 9), (2, 10), (3, 11)])
def test_pc_virtio_window_has_its_own_interrupt(slot: int, irq: int) -> None:
    """As the words for the kernel's command line say."""
    pc = pc_at(Level.DRIVER, virtio=True)
    pc.unmask(irq)
    device = pc.machine.driver_level.devices[slot] if pc.machine.driver_level else None
    assert device is not None

    device.used_buffer(seen=True)

    assert pc.vector() == (0x20 if irq < 8 else 0x28) + (irq & 7)


def test_pc_state_of_its_virtio_disk_goes_through_another_machine() -> None:
    """Negotiated and armed: the copy goes on under the same generation."""
    pc, copy = pc_at(Level.DRIVER), pc_at(Level.DRIVER)
    story = Story(pc.machine, pc.around, 0xFEB0_0000)
    story.arm()

    for name, device in copy.machine.devices.items():
        device.restore(pc.machine.devices[name].state())

    assert Story(copy.machine, copy.around, 0xFEB0_0000).load(Register.STATUS) == LIVE
    assert {name: device.state() for name, device in copy.machine.devices.items()} == {
        name: device.state() for name, device in pc.machine.devices.items()
    }
