"""PCI configuration mechanism 1 against PCI 2.1 and the 82441FX and 82371SB data sheets."""

from __future__ import annotations

import pytest

from iovirt_dist.errors import LocalError
from iovirt_dist.hypervisor.vdev.pci import ConfigurationSpace, PciConfiguration

ISA_BRIDGE, IDE = 0x0800, 0x0900  # device and function bits of the address


class Bench:
    """Configuration accesses as a guest makes them, and a count of resets."""

    def __init__(self) -> None:
        self.resets = 0
        self.pci = PciConfiguration(self._reset)

    def _reset(self) -> None:
        self.resets += 1

    def read(self, place: int, register: int, width: int = 4) -> int:
        """Read a register through CF8h and CFCh."""
        self.pci.write(0, 4, 1 << 31 | place | register & 0xFC, 0)
        return self.pci.read(4 + (register & 3), width, 0)

    def write(self, place: int, register: int, width: int, value: int) -> None:
        """Write a register through CF8h and CFCh."""
        self.pci.write(0, 4, 1 << 31 | place | register & 0xFC, 0)
        self.pci.write(4 + (register & 3), width, value, 0)


@pytest.fixture
def bench() -> Bench:
    """The three functions at power-on."""
    return Bench()


@pytest.mark.parametrize(
    ("place", "identity", "class_code", "header_type"),
    [(0, 0x12378086, 0x060000, 0), (ISA_BRIDGE, 0x70008086, 0x060100, 0x80), (IDE, 0x70108086, 0x010180, 0)],
)
def test_pci_function_identifies_itself(
    bench: Bench, place: int, identity: int, class_code: int, header_type: int
) -> None:
    """Vendor, device, class and the multifunction bit that lets software look for 0:1.1."""
    assert bench.read(place, 0x00) == identity
    assert bench.read(place, 0x08) >> 8 == class_code
    assert bench.read(place, 0x0E, 1) == header_type


def test_pci_registers_read_alike_in_any_width(bench: Bench) -> None:
    """CFCh to CFFh are the four bytes of the register."""
    assert [bench.read(0, register, 1) for register in range(4)] == [0x86, 0x80, 0x37, 0x12]
    assert [bench.read(0, register, 2) for register in (0, 1, 2)] == [0x8086, 0x3780, 0x1237]


def test_pci_scan_of_the_bus_finds_three_functions(bench: Bench) -> None:
    """Everything else reads as all ones, other buses too."""
    found = [place for place in range(0, 1 << 16, 1 << 8) if bench.read(place, 0) != 0xFFFFFFFF]

    assert found == [0, ISA_BRIDGE, IDE]
    assert bench.read(1 << 16, 0) == 0xFFFFFFFF


def test_pci_absent_function_ignores_writes(bench: Bench) -> None:
    """A write to nobody changes nobody."""
    before = bench.pci.state()["functions"]

    bench.write(0x1000, 0x04, 4, 0xFFFFFFFF)

    assert bench.pci.state()["functions"] == before


def test_pci_address_register_keeps_its_defined_bits(bench: Bench) -> None:
    """Bits 30-24, 1 and 0 are reserved and read as 0."""
    bench.pci.write(0, 4, 0xFFFFFFFF, 0)

    assert bench.pci.read(0, 4, 0) == 0x80FFFFFC


def test_pci_address_register_takes_whole_words_only(bench: Bench) -> None:
    """Narrow accesses to CF8h pass by: they belong to other ports."""
    bench.pci.write(0, 4, 0x80000000, 0)
    bench.pci.write(0, 1, 0x44, 0)
    bench.pci.write(0, 2, 0x4444, 0)

    assert bench.pci.read(0, 4, 0) == 0x80000000
    assert (bench.pci.read(0, 1, 0), bench.pci.read(2, 2, 0)) == (0xFF, 0xFFFF)


def test_pci_data_without_enable_is_nobody(bench: Bench) -> None:
    """With bit 31 clear CFCh is no configuration access."""
    bench.pci.write(0, 4, 0x00000000, 0)

    assert bench.pci.read(4, 4, 0) == 0xFFFFFFFF


def test_pci_access_over_the_end_reads_ones_there(bench: Bench) -> None:
    """Bytes beyond CFFh are not configuration data."""
    bench.read(0, 0)

    assert bench.pci.read(7, 2, 0) == 0xFF12
    assert bench.pci.read(5, 4, 0) == 0xFF123780


def test_pci_bar4_of_ide_sizes_to_sixteen_ports(bench: Bench) -> None:
    """Writing ones shows the size, I/O space stays marked, and an address can be put in."""
    bench.write(IDE, 0x20, 4, 0xFFFFFFFF)
    sized = bench.read(IDE, 0x20)
    bench.write(IDE, 0x20, 4, 0x0000C047)

    assert sized == 0x0000FFF1
    assert bench.read(IDE, 0x20) == 0x0000C041


@pytest.mark.parametrize("register", [0x10, 0x14, 0x18, 0x1C, 0x24, 0x30])
def test_pci_unused_base_addresses_size_to_nothing(bench: Bench, register: int) -> None:
    """Compatibility mode: BAR 0-3 do not exist, nor does an expansion ROM."""
    bench.write(IDE, register, 4, 0xFFFFFFFF)

    assert bench.read(IDE, register) == 0


def test_pci_identity_is_read_only(bench: Bench) -> None:
    """Nothing that a guest writes changes what the function is."""
    for register in range(0, 16, 4):
        bench.write(ISA_BRIDGE, register, 4, 0)

    assert bench.read(ISA_BRIDGE, 0x00) == 0x70008086
    assert bench.read(ISA_BRIDGE, 0x08) == 0x06010000


def test_pci_command_and_memory_attributes_are_stored(bench: Bench) -> None:
    """What firmware sets up can be read back: IDE command and timing, PAM, interrupt routing."""
    bench.write(IDE, 0x04, 2, 0xFFFF)
    bench.write(IDE, 0x40, 2, 0x8000)
    bench.write(0, 0x59, 1, 0x30)
    bench.write(ISA_BRIDGE, 0x60, 1, 0x0B)

    assert bench.read(IDE, 0x04, 2) == 0x0005
    assert bench.read(IDE, 0x40, 2) == 0x8000
    assert bench.read(0, 0x58) == 0x00003000
    assert bench.read(ISA_BRIDGE, 0x60) == 0x8080800B


def test_configuration_space_clears_status_bits_that_are_written_as_one() -> None:
    """Bits that report an event are cleared by a 1 and kept by a 0."""
    space = ConfigurationSpace({0x06: (2, 0xF280)}, {}, {0x06: (2, 0xF900)})

    space.write(0x06, 2, 0x3000)

    assert space.read(0x06, 2) == 0xC280


def test_pci_added_function_is_found(bench: Bench) -> None:
    """A later device brings its own registers."""
    bench.pci.add(3, 0, ConfigurationSpace({0: (4, 0x10001AF4)}, {0x10: (4, 0xFFFFFF00)}))
    bench.write(0x1800, 0x10, 4, 0xFFFFFFFF)

    assert bench.read(0x1800, 0) == 0x10001AF4
    assert bench.read(0x1800, 0x10) == 0xFFFFFF00


@pytest.mark.parametrize(("device", "function"), [(1, 1), (32, 0), (0, 8)])
def test_pci_function_cannot_be_added_there(bench: Bench, device: int, function: int) -> None:
    """Two functions in one place, or one in no place, are our own mistake."""
    with pytest.raises(LocalError, match=f"PCI 0:{device}.{function}"):
        bench.pci.add(device, function, ConfigurationSpace({}, {}))


def test_pci_reset_control_resets_on_a_rising_bit(bench: Bench) -> None:
    """CF9h: firmware writes 02h, then 06h; the bit must fall before it can rise again."""
    for value in (0x02, 0x06, 0x06):
        bench.pci.write(1, 1, value, 0)

    assert bench.resets == 1
    assert bench.pci.read(1, 1, 0) == 0x06
    bench.pci.write(1, 1, 0x00, 0)
    bench.pci.write(1, 1, 0x04, 0)
    assert bench.resets == 2
