"""Single and string accesses on their way to devices."""

from __future__ import annotations

import pytest

from iovirt_dist.hypervisor.address_map import AddressMap, Space
from iovirt_dist.hypervisor.intercept.operation import is_well_formed, perform
from iovirt_dist.wire.messages import Trap, TrapKind
from tests.unit.hypervisor.devices import Memory, Strings

IN, OUT, LOAD, STORE = TrapKind.PORT_IN, TrapKind.PORT_OUT, TrapKind.MMIO_LOAD, TrapKind.MMIO_STORE


def access(kind: TrapKind, address: int, width: int, value: int = 0, count: int = 1) -> Trap:
    """A trap of privileged code."""
    return Trap(1, kind, address, width, count, value, 0)


class Bus:
    """A map with a byte-wide device at 100h-107h, a wide one at 108h-10Fh and a string device at 200h-207h."""

    def __init__(self) -> None:
        self.narrow, self.wide, self.strings = Memory(8, max_width=1), Memory(8, max_width=4), Strings(8, max_width=2)
        self.map = AddressMap()
        for space in Space:
            self.map.add(space, 0x100, 8, self.narrow, "narrow")
            self.map.add(space, 0x108, 8, self.wide, "wide")
            self.map.add(space, 0x200, 8, self.strings, "strings")

    def do(self, trap: Trap, data: bytes = b"") -> tuple[int, bytes, str]:
        """Perform it; returns value, data and the name of what answered."""
        assert is_well_formed(trap, data)
        outcome = perform(self.map, trap, data, 0)
        return outcome.value, outcome.data, outcome.touched.name if outcome.touched else "-"


@pytest.mark.parametrize("kind", [IN, LOAD])
@pytest.mark.parametrize("width", [1, 2, 4])
def test_read_that_fits_is_one_access(kind: TrapKind, width: int) -> None:
    """Aligned or not, the device sees it as it was made."""
    bus = Bus()

    value, data, name = bus.do(access(kind, 0x10A, width))

    assert (value, data, name) == (int.from_bytes(bytes([2, 3, 4, 5])[:width], "little"), b"", "wide")
    assert bus.wide.accesses == [("r", 2, width)]


def test_read_wider_than_the_device_is_split_into_little_endian_pieces() -> None:
    """Lowest address first."""
    bus = Bus()

    assert bus.do(access(IN, 0x102, 4))[0] == 0x05040302
    assert bus.narrow.accesses == [("r", 2, 1), ("r", 3, 1), ("r", 4, 1), ("r", 5, 1)]


def test_write_wider_than_the_device_is_split_into_little_endian_pieces() -> None:
    """Each piece carries its own bytes."""
    bus = Bus()

    bus.do(access(OUT, 0x102, 2, 0xBEEF))

    assert bus.narrow.content[2:4] == b"\xef\xbe"
    assert bus.narrow.accesses == [("w", 2, 1), ("w", 3, 1)]


def test_eight_byte_access_to_a_four_byte_device_is_two() -> None:
    """As a 64-bit load on a 32-bit bus."""
    bus = Bus()

    assert bus.do(access(LOAD, 0x108, 8))[0] == 0x0706050403020100
    assert bus.wide.accesses == [("r", 0, 4), ("r", 4, 4)]


def test_read_across_two_devices_asks_both() -> None:
    """The first gets its last register, the second its first ones."""
    bus = Bus()

    value, _, name = bus.do(access(IN, 0x107, 4))

    assert value == 0x02010007
    assert name == "narrow"
    assert (bus.narrow.accesses, bus.wide.accesses) == ([("r", 7, 1)], [("r", 0, 2), ("r", 2, 1)])


def test_read_across_the_end_of_a_range_gives_ones_behind_it() -> None:
    """Three bytes of the device, one of nobody."""
    assert Bus().do(access(LOAD, 0x10D, 4))[0] == 0xFF070605


def test_write_across_the_end_of_a_range_loses_what_is_behind_it() -> None:
    """And nothing before it."""
    bus = Bus()

    bus.do(access(STORE, 0x10E, 4, 0x44332211))

    assert bus.wide.content == bytes([0, 1, 2, 3, 4, 5, 0x11, 0x22])


@pytest.mark.parametrize(("width", "ones"), [(1, 0xFF), (2, 0xFFFF), (4, 0xFFFF_FFFF), (8, (1 << 64) - 1)])
def test_unassigned_address_reads_all_ones_at_any_width(width: int, ones: int) -> None:
    """A floating bus."""
    assert Bus().do(access(LOAD, 0x9000, width)) == (ones, b"", "-")


def test_unassigned_address_takes_writes_and_forgets_them() -> None:
    """Nothing answers and nothing happens."""
    assert Bus().do(access(OUT, 0x9000, 4, 0x12345678)) == (0, b"", "-")


@pytest.mark.parametrize("address", [0xFFFF, (1 << 64) - 1])
def test_access_at_the_end_of_the_space_is_answered(address: int) -> None:
    """It runs out of any range, and over no edge."""
    assert Bus().do(access(LOAD, address, 8))[0] == (1 << 64) - 1


def test_write_value_is_cut_to_its_width() -> None:
    """A guest process that sends more bits than the width has is not believed."""
    bus = Bus()

    bus.do(access(STORE, 0x108, 2, 0xDEAD_BEEF))

    assert bus.wide.content[:4] == b"\xef\xbe\x02\x03"


def test_string_on_a_string_device_moves_in_one_call() -> None:
    """Both directions."""
    bus = Bus()

    read = bus.do(access(IN, 0x200, 2, count=3))
    bus.do(access(OUT, 0x200, 2, count=2), b"abcd")

    assert read == (0, bytes(range(6)), "strings")
    assert bus.strings.accesses == [("rs", 0, 6), ("ws", 0, 4)]


def test_string_on_a_plain_device_moves_element_by_element() -> None:
    """The port stays the same for each element, and wide elements are split inside the range."""
    bus = Bus()

    read = bus.do(access(IN, 0x103, 2, count=2))
    bus.do(access(OUT, 0x105, 1, count=3), b"xyz")

    assert read[1] == bytes([3, 4, 3, 4])
    assert bus.narrow.accesses == [("r", 3, 1), ("r", 4, 1)] * 2 + [("w", 5, 1)] * 3
    assert bus.narrow.content[5:7] == b"z\x06"


def test_string_wider_than_a_string_device_moves_element_by_element() -> None:
    """A data port of words has no doublewords."""
    bus = Bus()

    assert bus.do(access(IN, 0x200, 4, count=2))[1] == bytes([0, 1, 2, 3, 0, 1, 2, 3])
    assert bus.strings.accesses == [("r", 0, 2), ("r", 2, 2)] * 2


@pytest.mark.parametrize("width", [1, 2])
def test_string_where_nothing_answers_reads_all_ones_and_loses_writes(width: int) -> None:
    """Nothing is asked, nothing is kept."""
    bus = Bus()

    read = bus.do(access(IN, 0x9000, width, count=3))[1]
    bus.do(access(OUT, 0x9000, width, count=2), b"ab" * width)

    assert read == b"\xff" * (3 * width)
    assert bus.wide.accesses == []


def test_string_over_the_end_of_a_range_is_split_as_single_accesses_are() -> None:
    """The last byte of the range answers, what is behind it does not."""
    bus, single = Bus(), Bus()

    read = bus.do(access(IN, 0x10F, 2, count=2))[1]

    assert read == single.do(access(IN, 0x10F, 2))[0].to_bytes(2, "little") * 2
    assert read[1::2] == b"\xff\xff"


@pytest.mark.parametrize(
    ("trap", "data"),
    [
        (access(IN, 0, 3), b""),
        (access(IN, 0, 0), b""),
        (access(IN, 0, 255), b""),
        (access(OUT, 0, 1), b"x"),
        (access(LOAD, 0, 1, count=2), b""),
        (access(STORE, 0, 4, count=2), b"12345678"),
        (access(IN, 0, 8, count=2), b""),
        (access(OUT, 0, 2, count=2), b"123"),
        (access(OUT, 0, 2, count=2), b""),
        (access(IN, 0, 2, count=2), b"1234"),
        (access(TrapKind.INTERRUPT_ACKNOWLEDGE, 0, 1), b""),
    ],
)
def test_trap_that_contradicts_itself_is_malformed(trap: Trap, data: bytes) -> None:
    """Width no CPU has, payload with a single access or of the wrong length, strings of loads."""
    assert not is_well_formed(trap, data)
