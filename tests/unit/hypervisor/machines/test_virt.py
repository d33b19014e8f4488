"""The `virt` machine as software finds it: through its addresses only."""

from __future__ import annotations

import pytest

from iovirt_dist.hypervisor.address_map import Space
from iovirt_dist.hypervisor.intercept.operation import perform
from iovirt_dist.hypervisor.machines.machine import Machine
from iovirt_dist.hypervisor.machines.virt import build_virt
from iovirt_dist.platform import virt
from iovirt_dist.platform.level import Level
from iovirt_dist.virtio.mmio import Register
from iovirt_dist.wire.messages import PowerAction, Trap, TrapKind
from tests.unit.hypervisor.machines.parts import WALL_NS, Surroundings
from tests.unit.hypervisor.machines.virtio_story import READ_TWO, Story

MS = 1_000_000
CLAIM_M, CLAIM_S = virt.PLIC_BASE + 0x20_0004, virt.PLIC_BASE + 0x20_1004


class Virt:
    """The machine with a hart's view of it."""

    def __init__(self) -> None:
        self.around = Surroundings()
        self.machine: Machine = build_virt(self.around.parts())
        self.now_ns = 0

    def load(self, address: int, width: int = 4) -> int:
        """Load."""
        trap = Trap(1, TrapKind.MMIO_LOAD, address, width, 1, 0, 3)
        return perform(self.machine.address_map, trap, b"", self.now_ns).value

    def store(self, address: int, value: int, width: int = 4) -> None:
        """Store."""
        trap = Trap(1, TrapKind.MMIO_STORE, address, width, 1, value, 3)
        perform(self.machine.address_map, trap, b"", self.now_ns)

    def enable(self, source: int, context: int) -> None:
        """Let a source through the PLIC to a context: 0 M mode, 1 S mode."""
        self.store(virt.PLIC_BASE + 4 * source, 1)
        self.store(virt.PLIC_BASE + 0x2000 + 0x80 * context, 1 << source)
        self.store(virt.PLIC_BASE + 0x20_0000 + 0x1000 * context, 0)

    def raise_uart(self) -> None:
        """Enable its transmitter empty interrupt, which is pending at once."""
        self.store(virt.UART_BASE + 1, 0x02, 1)


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("test", 0x10_0000),
        ("rtc", 0x10_1000),
        ("clint", 0x200_0000),
        ("plic", 0xC00_0000),
        ("uart", 0x1000_0000),
        *((f"virtio{slot}", 0x1000_1000 + 0x1000 * slot) for slot in range(8)),
    ],
)
def test_virt_device_answers_from_its_documented_address_on(name: str, base: int) -> None:
    """And nothing answers right below it, but the neighbouring virtio slot's end."""
    address_map = Virt().machine.address_map
    found, below = address_map.find(Space.MEMORY, base), address_map.find(Space.MEMORY, base - 1)

    assert found is not None
    assert (found.name, found.base) == (name, base)
    assert below is None or below.end == base


def test_virt_has_no_ports() -> None:
    """All its devices are memory-mapped."""
    assert Virt().machine.address_map.ranges(Space.PORT) == ()


def test_virt_unassigned_address_reads_all_ones() -> None:
    """Nobody answers."""
    assert Virt().load(0x4000_0000, 8) == (1 << 64) - 1


@pytest.mark.parametrize(
    ("address", "value"),
    [(virt.UART_BASE + 5, 0x60), (virt.VIRTIO_BASE, 0x76), (virt.VIRTIO_BASE + 8, 0), (virt.CLINT_BASE, 0)],
)
def test_virt_register_reads_after_power_on_as_firmware_expects(address: int, value: int) -> None:
    """Empty transmitter; a virtio slot ("virt") without a device."""
    assert Virt().load(address, 1) == value


@pytest.mark.parametrize(("context", "line", "claim"), [(0, virt.MEIP, CLAIM_M), (1, virt.SEIP, CLAIM_S)])
def test_virt_uart_interrupt_reaches_the_context_that_enabled_it(context: int, line: int, claim: int) -> None:
    """Source 10 of the PLIC."""
    board = Virt()
    board.enable(virt.UART_IRQ, context)

    board.raise_uart()

    assert board.machine.lines.take_changes() == (line, 1)
    assert board.load(claim) == virt.UART_IRQ


def test_virt_uart_interrupt_that_nobody_enabled_stays_in_the_plic() -> None:
    """No line rises."""
    board = Virt()

    board.raise_uart()

    assert not board.machine.lines.changed


def test_virt_clock_alarm_reaches_its_source() -> None:
    """Goldfish alarm, a millisecond from now, to source 11."""
    board = Virt()
    board.enable(virt.RTC_IRQ, 0)
    alarm_ns = WALL_NS + MS
    board.store(virt.RTC_BASE + 0x10, 1)
    board.store(virt.RTC_BASE + 0x0C, alarm_ns >> 32)
    board.store(virt.RTC_BASE + 0x08, alarm_ns & 0xFFFF_FFFF)
    due_ns = board.machine.deadline_ns()

    board.machine.advance(MS)

    assert due_ns == MS
    assert board.machine.lines.take_changes() == (virt.MEIP, 1)
    assert board.load(CLAIM_M) == virt.RTC_IRQ


def test_virt_timer_compare_raises_and_lowers_mtip() -> None:
    """10 MHz: 1000 ticks are 100 microseconds."""
    board = Virt()
    board.store(virt.CLINT_BASE + 0x4000, 1000, 8)
    board.machine.lines.take_changes()
    due_ns = board.machine.deadline_ns()

    board.machine.advance(100_000)
    risen = board.machine.lines.take_changes()
    board.now_ns = 100_000
    board.store(virt.CLINT_BASE + 0x4000, 1 << 60, 8)
    fallen = board.machine.lines.take_changes()

    assert due_ns == 100_000
    assert (risen[0], risen[1] & 1) == (virt.MTIP, 1)
    assert (fallen[0], fallen[1] & 1) == (virt.MTIP, 0)


def test_virt_software_interrupt_is_msip() -> None:
    """CLINT offset 0, bit 0."""
    board = Virt()

    board.store(virt.CLINT_BASE, 1)

    assert board.machine.lines.take_changes() == (virt.MSIP, 1)


@pytest.mark.parametrize(
    ("value", "action"), [(virt.POWEROFF_VALUE, PowerAction.POWER_OFF), (virt.REBOOT_VALUE, PowerAction.RESET)]
)
def test_virt_test_device_switches_the_machine(value: int, action: PowerAction) -> None:
    """SiFive test device."""
    board = Virt()

    board.store(virt.TEST_BASE, value)

    assert board.around.power == [(action, "test device")]


def test_virt_shows_what_is_written_to_its_uart() -> None:
    """The first serial port is the terminal."""
    board = Virt()

    board.store(virt.UART_BASE, ord("x"), 1)

    assert board.around.screen.shown == b"x"


def test_virt_has_no_acknowledge_cycle() -> None:
    """A claim is a load."""
    assert Virt().machine.acknowledge is None


def test_virt_state_of_every_device_goes_through_another_machine() -> None:
    """Configured and with an interrupt pending, the copy raises the same line and claims the same source."""
    board, copy = Virt(), Virt()
    board.enable(virt.UART_IRQ, 1)
    board.raise_uart()
    board.store(virt.UART_BASE + 7, 0x5A, 1)
    board.store(virt.CLINT_BASE + 0x4000, 5000, 8)

    for name, device in copy.machine.devices.items():
        device.restore(board.machine.devices[name].state())

    assert copy.machine.lines.take_changes()[:2] == (virt.SEIP, 1)
    assert copy.load(virt.UART_BASE + 7, 1) == 0x5A
    assert copy.machine.deadline_ns() == board.machine.deadline_ns()
    assert {name: device.state() for name, device in copy.machine.devices.items()} == {
        name: device.state() for name, device in board.machine.devices.items()
    }
    assert copy.load(CLAIM_S) == virt.UART_IRQ


# --- virtio


def virt_at(level: Level, *, virtio: bool = False) -> Virt:
    """A machine whose disk is intercepted at a level."""
    board = Virt()
    board.machine = build_virt(board.around.parts(level=level, virtio=virtio))
    return board


def test_virt_virtio_disk_reads_and_interrupts_through_the_plic() -> None:
    """Negotiate, arm, doorbell, complete, interrupt, claim, acknowledge, complete the claim."""
    board = virt_at(Level.DRIVER)
    board.enable(virt.VIRTIO_IRQ, 1)
    story = Story(board.machine, board.around, virt.VIRTIO_BASE)

    arm = story.arm()
    body, returned = story.read_two(arm)
    source = board.load(CLAIM_S)
    story.store((Register.INTERRUPT_ACK, story.load(Register.INTERRUPT_STATUS)))
    board.store(CLAIM_S, source)

    assert (arm.device, arm.notify, arm.size, arm.header_bytes) == (0, virt.VIRTIO_BASE + 0x50, 64, 16)
    assert (body.interrupt, body.lines, returned) == (True, (virt.SEIP, 1), READ_TWO)
    assert source == virt.VIRTIO_IRQ
    assert board.machine.lines.take_changes() == (virt.SEIP, 2)
    assert board.load(CLAIM_S) == 0


@pytest.mark.parametrize(("level", "device_id"), [(Level.OPERATION, 0), (Level.DRIVER, 2), (Level.SYSCALL, 0)])
def test_virt_disk_is_a_virtio_disk_at_the_driver_level_only(level: Level, device_id: int) -> None:
    """There is no other disk on this board."""
    board = virt_at(level)

    assert board.load(virt.VIRTIO_BASE + Register.DEVICE_ID) == device_id
    assert (board.machine.disk is None) is (device_id == 0)


def test_virt_virtio_devices_are_in_their_slots() -> None:
    """Disk, console, entropy, network; the other four slots are empty."""
    board = virt_at(Level.DRIVER, virtio=True)

    ids = [board.load(virt.VIRTIO_BASE + virt.VIRTIO_STRIDE * slot + Register.DEVICE_ID) for slot in range(8)]

    assert ids == [2, 3, 4, 1, 0, 0, 0, 0]
