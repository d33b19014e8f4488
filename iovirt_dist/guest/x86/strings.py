"""String I/O: which instruction is this, and how many of its elements can move in one go?

An emulator performs `rep ins` and `rep outs` element by element. We recognise the instruction when its first element
traps and move as many elements as the guest's registers and pages allow in one exchange with the device. What may
fault is left to the CPU: a transfer ends before the first element that touches a page without the right permission or
that is not RAM; the instruction, which is restartable between elements (Intel SDM volume 2, REP), goes on there and
faults, or traps, by itself.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from iovirt_dist.guest.x86.faults import Fault
from iovirt_dist.guest.x86.paging import PAGE_BYTES, Memory, Mmu
from iovirt_dist.guest.x86.state import (
    ATTRIBUTE_BIG,
    CS,
    DF,
    DS,
    ECX,
    EDI,
    ES,
    ESI,
    FS,
    GS,
    SS,
    CpuState,
)
from iovirt_dist.wire.messages import MAX_TRAP_ELEMENTS

MAXIMUM_INSTRUCTION_BYTES: Final = 15

_SEGMENT_PREFIXES: Final = {0x26: ES, 0x2E: CS, 0x36: SS, 0x3E: DS, 0x64: FS, 0x65: GS}
_OPERAND_SIZE: Final = 0x66
_ADDRESS_SIZE: Final = 0x67
_REPEATS: Final = frozenset({0xF2, 0xF3})
_LOCK: Final = 0xF0
PREFIXES: Final = frozenset({*_SEGMENT_PREFIXES, _OPERAND_SIZE, _ADDRESS_SIZE, *_REPEATS, _LOCK})
STRING_OPCODES: Final = frozenset({0x6C, 0x6D, 0x6E, 0x6F})


class StringInstruction(NamedTuple):
    """A decoded INS or OUTS.

    Attributes:
        output: OUTS (memory to port) rather than INS.
        repeated: With REP.
        width: Bytes per element.
        segment: Index of the segment register.
        address_mask: FFFFh with 16-bit, FFFFFFFFh with 32-bit addresses.
    """

    output: bool
    repeated: bool
    width: int
    segment: int
    address_mask: int


class Transfer(NamedTuple):
    """What one exchange moves.

    Attributes:
        elements: At least 1.
        pieces: (physical address, bytes) of the memory, ascending in linear addresses; empty for a single element
            whose memory the CPU itself accesses.
        descending: EFLAGS.DF: the first element has the highest address.
        pointer: Register number of ESI or EDI.
    """

    elements: int
    pieces: tuple[tuple[int, int], ...]
    descending: bool
    pointer: int


def decode(code: bytes, state: CpuState) -> StringInstruction | None:
    """Decode the instruction at `code`.

    Args:
        code: Up to 15 bytes from EIP.
        state: For the default operand and address size.

    Returns:
        None when it is not INS or OUTS.
    """
    big = bool(state.segments[CS].attributes & ATTRIBUTE_BIG) and state.protected and not state.virtual_8086
    wide_operand = wide_address = big
    repeated = False
    segment = DS
    for byte in code:
        if byte in STRING_OPCODES:
            output = byte >= 0x6E
            width = (4 if wide_operand else 2) if byte & 1 else 1
            mask = 0xFFFF_FFFF if wide_address else 0xFFFF
            return StringInstruction(output, repeated, width, segment if output else ES, mask)
        if byte == _OPERAND_SIZE:
            wide_operand = not big
        elif byte == _ADDRESS_SIZE:
            wide_address = not big
        elif byte in _REPEATS:
            repeated = True
        elif byte in _SEGMENT_PREFIXES:
            segment = _SEGMENT_PREFIXES[byte]
        elif byte != _LOCK:
            return None
    return None


def plan(mmu: Mmu, memory: Memory, state: CpuState, instruction: StringInstruction) -> Transfer:
    """Return how far `instruction` can go in one exchange.

    Args:
        mmu: Translation of the guest's addresses.
        memory: Guest physical memory.
        state: CPU state at the instruction.
        instruction: What `decode` returned.
    """
    mask, width = instruction.address_mask, instruction.width
    index = ESI if instruction.output else EDI
    descending = bool(state.eflags & DF)
    pointer = state.registers[index] & mask
    wanted = state.registers[ECX] & mask if instruction.repeated else 1
    room = pointer // width + 1 if descending else (mask + 1 - pointer) // width
    wanted = max(1, min(wanted, MAX_TRAP_ELEMENTS, room))
    first = state.segments[instruction.segment].base + pointer
    lowest = first - (wanted - 1) * width if descending else first
    pieces = _accessible(mmu, memory, state, lowest, wanted * width, descending, write=not instruction.output)
    available = sum(size for _, size in pieces)
    count = max(1, available // width)
    if available < width:
        return Transfer(1, (), descending, index)
    return Transfer(count, _trim(pieces, count * width, descending), descending, index)


def gather(memory: Memory, transfer: Transfer, width: int) -> bytes:
    """Read the elements of an OUTS in the order in which the device receives them."""
    data = b"".join(memory.read_memory(address, size) for address, size in transfer.pieces)
    return _in_order(data, transfer, width)


def scatter(memory: Memory, transfer: Transfer, width: int, data: bytes) -> None:
    """Write the elements of an INS, given in the order in which the device sent them."""
    data = _in_order(data, transfer, width)
    offset = 0
    for address, size in transfer.pieces:
        memory.write_memory(address, data[offset : offset + size])
        offset += size


def advance(state: CpuState, instruction: StringInstruction, transfer: Transfer) -> dict[int, int]:
    """Return ECX and ESI or EDI as they are after all elements but one; the CPU itself accounts for that one."""
    done = transfer.elements - 1
    step = -done * instruction.width if transfer.descending else done * instruction.width
    mask = instruction.address_mask
    changed = {}
    for register, delta in ((ECX, -done), (transfer.pointer, step)):
        value = state.registers[register]
        changed[register] = (value & ~mask & 0xFFFF_FFFF) | ((value + delta) & mask)
    return changed


def _accessible(
    mmu: Mmu, memory: Memory, state: CpuState, lowest: int, size: int, descending: bool, *, write: bool
) -> list[tuple[int, int]]:
    """Walk the pages in the direction of the transfer and stop at the first that is not accessible RAM."""
    chunks = _page_chunks(lowest, size)
    pieces: list[tuple[int, int]] = []
    for linear, length in reversed(chunks) if descending else chunks:
        try:
            physical = mmu.translate(state, linear, write=write, user=state.cpl == 3)
        except Fault:
            break
        if not memory.is_ram(physical, length):
            break
        pieces.append((physical, length))
    return pieces[::-1] if descending else pieces


def _page_chunks(start: int, size: int) -> list[tuple[int, int]]:
    chunks = []
    end = start + size
    while start < end:
        length = min(end - start, PAGE_BYTES - start % PAGE_BYTES)
        chunks.append((start, length))
        start += length
    return chunks


def _trim(pieces: list[tuple[int, int]], size: int, descending: bool) -> tuple[tuple[int, int], ...]:
    """Cut the far end, in the direction of the transfer, down to whole elements."""
    excess = sum(length for _, length in pieces) - size
    if excess:
        far = 0 if descending else len(pieces) - 1
        address, length = pieces[far]
        pieces[far] = (address + excess if descending else address, length - excess)
    return tuple(piece for piece in pieces if piece[1])


def _in_order(data: bytes, transfer: Transfer, width: int) -> bytes:
    """Turn ascending memory into the order of the transfer, or back."""
    if not transfer.descending:
        return data
    if width == 1:
        return data[::-1]
    view = memoryview(data)
    return (view.cast("H") if width == 2 else view.cast("I"))[::-1].tobytes()
