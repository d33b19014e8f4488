"""Interception at the operation level: one I/O instruction, or one string of them, at a time.

What the hypervisor knows here is an address, a width, a direction and a value: which register was touched, not what
for. An access wider than the device takes, or across the end of its range, is split into little-endian pieces as the
ISA bus does; where nothing answers, reads give all ones and writes vanish.
"""

from __future__ import annotations

from typing import NamedTuple

from iovirt_dist.hypervisor.address_map import AddressMap, Range, Space
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.messages import Trap, TrapKind

_SPACE = {
    TrapKind.PORT_IN: Space.PORT,
    TrapKind.PORT_OUT: Space.PORT,
    TrapKind.MMIO_LOAD: Space.MEMORY,
    TrapKind.MMIO_STORE: Space.MEMORY,
}
_READS = frozenset({TrapKind.PORT_IN, TrapKind.MMIO_LOAD})
_ONES = {width: (1 << 8 * width) - 1 for width in (1, 2, 4, 8)}
"""The widest value of each width that an access may have."""


class Outcome(NamedTuple):
    """What an intercepted operation gives back.

    Attributes:
        value: What a single read returns, 0 for a write.
        data: What a string read returns, empty otherwise.
        touched: The range that answered, None where nothing did.
    """

    value: int
    data: bytes
    touched: Range | None


def is_well_formed(trap: Trap, data: Buffer) -> bool:
    """Whether widths, counts and payload of a trap agree, so that `perform` may take it."""
    if trap.kind not in _SPACE or trap.width not in _ONES:
        return False
    if trap.count == 1:
        return not data
    if trap.kind not in (TrapKind.PORT_IN, TrapKind.PORT_OUT) or trap.width == 8:
        return False
    return len(data) == (trap.width * trap.count if trap.kind is TrapKind.PORT_OUT else 0)


def perform(address_map: AddressMap, trap: Trap, data: Buffer, now_ns: int) -> Outcome:
    """Carry one operation to the virtual device that it addresses.

    Args:
        address_map: The guest's map.
        trap: A well-formed operation-level trap.
        data: The elements of a string output, empty otherwise.
        now_ns: Virtual time of the guest's machine.
    """
    kind, address, width = trap.kind, trap.address, trap.width
    space = _SPACE[kind]
    found = address_map.find(space, address)
    if trap.count > 1:
        return _string(address_map, found, trap, data, now_ns)
    if found is None or width > found.device.max_width or address + width > found.end:
        if kind in _READS:
            return Outcome(_read_split(address_map, space, address, width, now_ns), b"", found)
        _write_split(address_map, space, address, width, trap.value, now_ns)
    elif kind in _READS:
        return Outcome(found.device.read(address - found.base, width, now_ns), b"", found)
    else:
        found.device.write(address - found.base, width, trap.value & _ONES[width], now_ns)
    return Outcome(0, b"", found)


def _read_split(address_map: AddressMap, space: Space, address: int, width: int, now_ns: int) -> int:
    """Read piece by piece, the lowest address first."""
    value = done = 0
    while done < width:
        found = address_map.find(space, address + done)
        piece = _piece(found, address + done, width - done)
        read = found.device.read(address + done - found.base, piece, now_ns) if found else _ONES[piece]
        value |= read << (8 * done)
        done += piece
    return value


def _write_split(address_map: AddressMap, space: Space, address: int, width: int, value: int, now_ns: int) -> None:
    """Write piece by piece, the lowest address first."""
    done = 0
    while done < width:
        found = address_map.find(space, address + done)
        piece = _piece(found, address + done, width - done)
        if found:
            found.device.write(address + done - found.base, piece, (value >> (8 * done)) & _ONES[piece], now_ns)
        done += piece


def _piece(found: Range | None, address: int, left: int) -> int:
    """Bytes of the next piece: a power of two that the device takes and that stays inside its range."""
    if found is None:
        return 1
    limit = min(left, found.device.max_width, found.end - address)
    return 1 << (limit.bit_length() - 1)


def _string(address_map: AddressMap, found: Range | None, trap: Trap, data: Buffer, now_ns: int) -> Outcome:
    """Move all elements of a string instruction through one port."""
    width, count = trap.width, trap.count
    reading = trap.kind is TrapKind.PORT_IN
    if found is None and width == 1:
        return Outcome(0, b"\xff" * count if reading else b"", found)
    if found is None or found.strings is None or trap.address + width > found.end or width > found.device.max_width:
        return _string_by_element(address_map, found, trap, data, now_ns)
    device, offset = found.strings, trap.address - found.base
    if reading:
        return Outcome(0, device.read_string(offset, width, count, now_ns), found)
    device.write_string(offset, width, data, now_ns)
    return Outcome(0, b"", found)


def _string_by_element(address_map: AddressMap, found: Range | None, trap: Trap, data: Buffer, now_ns: int) -> Outcome:
    """The same where no data port takes it whole: element by element, in order, each split as the bus does."""
    width = trap.width
    if trap.kind is TrapKind.PORT_IN:
        elements = (_read_split(address_map, Space.PORT, trap.address, width, now_ns) for _ in range(trap.count))
        return Outcome(0, b"".join(element.to_bytes(width, "little") for element in elements), found)
    for at in range(0, len(data), width):
        element = int.from_bytes(data[at : at + width], "little")
        _write_split(address_map, Space.PORT, trap.address, width, element, now_ns)
    return Outcome(0, b"", found)
