"""RAM of an engine as devices see it: ranges, and code that DMA replaces under the CPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from iovirt_dist.guest.engine import Callbacks, StopKind
from iovirt_dist.guest.unicorn.memory import UnicornMemory
from iovirt_dist.guest.unicorn.riscv import UnicornRiscv
from iovirt_dist.guest.unicorn.x86 import UnicornX86
from iovirt_dist.guest.x86.state import CR0_PE, CR0_PG, CS, Segment
from iovirt_dist.virtio.memory import MemoryRangeError

_CODE = Segment(0x08, 0, 0xFFFF_FFFF, 0xCF_9B00)
_DATA = Segment(0x10, 0, 0xFFFF_FFFF, 0xCF_9300)
_ENTRY, _ROUTINE, _FRAME, _DEVICE = 0x1000, 0x3000, 0x5000, 0x20_0000
_DIRECTORY, _TABLE = 0x6000, 0x7000

_TWICE = bytes.fromhex(
    "e8fb1f0000"  # call 3000h
    "89d9"  # mov ecx, ebx
    "a300002000"  # mov [200000h], eax: the device replaces the routine
    "e8ef1f0000"  # call 3000h
    "f4"
)
_ROUTINE_ONE = bytes.fromhex("bb01000000 c3")  # mov ebx, 1; ret
_ROUTINE_TWO = bytes.fromhex("bb02000000 c3")

_SAME_BLOCK = bytes.fromhex(
    "a300002000"  # mov [200000h], eax: the device replaces what follows
    "bb01000000"  # mov ebx, 1
    "f4"
)


def x86(on_store: Callable[[UnicornMemory], None], code: bytes) -> UnicornX86:
    """A flat 32-bit engine with `code` at its entry, whose device calls `on_store`."""
    engine = UnicornX86(Callbacks(lambda *_: b"", lambda *_: None, lambda *_: 0, lambda *_: on_store(engine.memory)))
    engine.map_ram(0, 1 << 20)
    engine.map_io_gaps(1 << 32)
    engine.write_register("cr0", CR0_PE | 0x10)
    state = engine.capture()
    state.segments = [_CODE if number == CS else _DATA for number in range(6)]
    state.eip = _ENTRY
    state.registers[4] = 0x9000
    engine.commit(state)
    engine.write_memory(_ENTRY, code)
    return engine


def nothing(memory: UnicornMemory) -> None:
    """No DMA."""


def test_memory_reads_and_shows_what_the_engine_has() -> None:
    """A copy, and the memory itself."""
    engine = x86(nothing, b"")
    view = engine.memory.view(0x8000, 4)

    engine.write_memory(0x8000, b"abcd")

    assert engine.memory.read(0x8000, 4) == b"abcd"
    assert bytes(view) == b"abcd"
    assert view.readonly


@pytest.mark.parametrize(
    ("address", "length"), [(-1, 2), (0xFFFFF, 2), (1 << 20, 1), (1 << 64, 1), (0x8000, -1), (0, 1 << 64)]
)
def test_memory_range_that_is_not_ram_is_an_error(address: int, length: int) -> None:
    """Whatever the address is: the guest chooses it."""
    memory = x86(nothing, b"").memory

    with pytest.raises(MemoryRangeError):
        memory.view(address, length)
    with pytest.raises(MemoryRangeError):
        memory.read(address, length)


@pytest.mark.parametrize("address", [-2, 0xFFFFF, 1 << 20, 1 << 64])
def test_memory_write_that_is_not_wholly_in_ram_writes_nothing(address: int) -> None:
    """No part of it."""
    memory = x86(nothing, b"").memory

    with pytest.raises(MemoryRangeError):
        memory.write(address, b"xy")

    assert memory.read(0xFFFFF, 1) == b"\0"


def test_memory_rom_is_no_ram() -> None:
    """DMA reaches RAM only."""
    engine = UnicornX86(Callbacks(lambda *_: b"", lambda *_: None, lambda *_: 0, lambda *_: None))
    engine.map_rom(0x30_0000, bytes(4096))

    with pytest.raises(MemoryRangeError):
        engine.memory.write(0x30_0000, b"x")


@pytest.mark.parametrize("data", [b"xy", bytearray(b"xy"), memoryview(b"-xy-")[1:3], memoryview(b"")])
def test_memory_takes_any_buffer(data: bytes | bytearray | memoryview) -> None:
    """Payload frames come as bytes or as views."""
    memory = x86(nothing, b"").memory

    memory.write(0x8000, data)

    assert memory.read(0x8000, len(data)) == bytes(data)


def test_memory_dma_over_code_that_has_run_is_executed_anew() -> None:
    """From inside of the store that asks for it, as a doorbell does."""
    engine = x86(lambda memory: memory.write(_ROUTINE, memoryview(_ROUTINE_TWO)), _TWICE)
    engine.write_memory(_ROUTINE, _ROUTINE_ONE)

    stop = engine.run(_ENTRY)

    assert stop.kind is StopKind.HALTED
    assert (engine.read_register("ecx"), engine.read_register("ebx")) == (1, 2)


def test_memory_dma_between_two_runs_is_executed_anew() -> None:
    """As completions are written while guest code runs: the CPU is kicked, and goes on."""
    engine = x86(nothing, _TWICE)
    engine.write_memory(_ROUTINE, _ROUTINE_ONE)
    engine.run(_ENTRY)
    first = engine.read_register("ebx")

    engine.memory.write(_ROUTINE, _ROUTINE_TWO)
    engine.run(_ENTRY)

    assert (first, engine.read_register("ebx")) == (1, 2)


def test_memory_dma_over_code_behind_another_virtual_address_is_executed_anew() -> None:
    """The address of DMA is physical, that of the translation is not."""
    engine = x86(lambda memory: memory.write(_FRAME, _ROUTINE_TWO), _TWICE)
    frames = {_ROUTINE >> 12: _FRAME}
    table = b"".join((frames.get(page, page << 12) | 7).to_bytes(4, "little") for page in range(1024))
    engine.write_memory(_TABLE, table)
    engine.write_memory(_DIRECTORY, (_TABLE | 7).to_bytes(4, "little"))
    engine.write_memory(_FRAME, _ROUTINE_ONE)
    engine.write_register("cr3", _DIRECTORY)
    engine.write_register("cr0", CR0_PE | CR0_PG | 0x10)

    stop = engine.run(_ENTRY)

    assert stop.kind is StopKind.HALTED
    assert (engine.read_register("ecx"), engine.read_register("ebx")) == (1, 2)


def test_memory_dma_over_the_running_block_breaks_nothing() -> None:
    """The rest of the block may still be the old one, as a prefetched instruction may be; the next run is the new."""
    engine = x86(lambda memory: memory.write(_ENTRY + 5, bytes.fromhex("bb02000000 f4")), _SAME_BLOCK)

    first = engine.run(_ENTRY)
    second = engine.run(_ENTRY)

    assert first.kind is second.kind is StopKind.HALTED
    assert engine.read_register("ebx") == 2


def test_memory_dma_over_riscv_code_is_executed_anew() -> None:
    """The other engine, whose RAM is not at 0; from inside of the store."""
    ram = 0x8000_0000
    engine = UnicornRiscv(
        Callbacks(lambda *_: b"", lambda *_: None, lambda *_: 0, lambda *_: engine.memory.write(ram, two))
    )
    engine.map_ram(ram, 1 << 20)
    engine.power_on()
    one, two = bytes.fromhex("0545 8280"), bytes.fromhex("0945 8280")  # li a0, 1 (2); ret
    engine.write_memory(ram, one)
    engine.write_memory(
        ram + 0x100,
        bytes.fromhex(
            "eff01ff0"  # jal ra, -256
            "aa85"  # mv a1, a0
            "b7070010"  # lui a5, 10000h
            "23a0a700"  # sw a0, 0(a5): the device replaces the routine
            "eff03fef"  # jal ra, -270
            "73005010"  # wfi
        ),
    )

    stop = engine.run(ram + 0x100)

    assert stop.kind is StopKind.HALTED
    assert (engine.read_register("a1"), engine.read_register("a0")) == (1, 2)
