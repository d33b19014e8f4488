"""What every guest memory keeps to, whoever has it: a CPU's engine, a script, a rig."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from iovirt_dist.gateway.vhost_user.mapping import FileMapper
from iovirt_dist.gateway.vhost_user.memory import RegionMemory
from iovirt_dist.gateway.vhost_user.messages import Region
from iovirt_dist.guest.engine import Callbacks
from iovirt_dist.guest.unicorn.riscv import UnicornRiscv
from iovirt_dist.guest.unicorn.x86 import UnicornX86
from iovirt_dist.testing.rig import Rig
from iovirt_dist.virtio.memory import ByteMemory, GuestMemory, MemoryRangeError

BASE = 0x8000_0000
SIZE = 1 << 20
_CALLBACKS = Callbacks(lambda *_: b"", lambda *_: None, lambda *_: 0, lambda *_: None)


def bytes_of_a_script() -> GuestMemory:
    """A bytearray."""
    return ByteMemory(SIZE, BASE)


def ram_of_a_riscv_cpu() -> GuestMemory:
    """An engine's."""
    engine = UnicornRiscv(_CALLBACKS)
    engine.map_ram(BASE, SIZE)
    return engine.memory


def ram_of_an_x86_cpu() -> GuestMemory:
    """An engine's, of two regions that do not touch, the last one above."""
    engine = UnicornX86(_CALLBACKS)
    engine.map_ram(0, SIZE)
    engine.map_ram(BASE, SIZE)
    return engine.memory


def ram_of_a_rig() -> GuestMemory:
    """A guest's without a CPU, as its core has it."""
    rig = Rig(machine="virt", disk=None, memory_bytes=SIZE)
    return rig.guest().core.queues.home.memory


def regions_of_a_front_end() -> GuestMemory:
    """Shared by a virtual machine that is not ours, the second of two regions, at an offset of no whole page."""
    file = os.memfd_create("guest", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(file, SIZE + 2)
    memory = RegionMemory(FileMapper())
    memory.set_table([Region(BASE, SIZE, 0, 1), Region(0, 1, SIZE, 0)], [file, file])
    os.close(file)
    return memory


@pytest.fixture(params=[bytes_of_a_script, ram_of_a_riscv_cpu, ram_of_an_x86_cpu, ram_of_a_rig, regions_of_a_front_end])
def memory(request: pytest.FixtureRequest) -> GuestMemory:
    """A megabyte at 80000000h."""
    make: Callable[[], GuestMemory] = request.param
    return make()


def test_memory_is_zero_at_first(memory: GuestMemory) -> None:
    """All of it."""
    assert memory.read(BASE, SIZE) == bytes(SIZE)


def test_memory_returns_what_was_written(memory: GuestMemory) -> None:
    """Up to the last byte, and nothing beside it."""
    memory.write(BASE + SIZE - 4, b"last")
    memory.write(BASE + 3, memoryview(b"-first-")[1:6])

    assert memory.read(BASE + SIZE - 5, 5) == b"\0last"
    assert memory.read(BASE + 2, 7) == b"\0first\0"


def test_memory_read_is_a_copy_and_view_is_not(memory: GuestMemory) -> None:
    """A view shows what is written later."""
    copy, view = memory.read(BASE, 3), memory.view(BASE, 3)

    memory.write(BASE, b"new")

    assert copy == bytes(3)
    assert bytes(view) == b"new"


def test_memory_takes_its_own_view(memory: GuestMemory) -> None:
    """Also where the two overlap."""
    memory.write(BASE, b"abcdef")

    memory.write(BASE + 2, memory.view(BASE, 4))

    assert memory.read(BASE, 6) == b"ababcd"


@pytest.mark.parametrize("address", [BASE, BASE + 5, BASE + SIZE])
def test_memory_of_no_length_is_no_error(memory: GuestMemory, address: int) -> None:
    """Inside RAM, and at its very end."""
    memory.write(address, b"")

    assert memory.read(address, 0) == b""
    assert len(memory.view(address, 0)) == 0


@pytest.mark.parametrize(
    ("address", "length"),
    [
        (BASE - 1, 1),
        (BASE - 1, 2),
        (BASE + SIZE - 1, 2),
        (BASE + SIZE, 1),
        (BASE, SIZE + 1),
        (BASE, -1),
        (BASE + 4, -2),
        (-1, 1),
        (-(1 << 70), 8),
        ((1 << 64) - 4, 8),
        ((1 << 64) + BASE, 1),
        (BASE, 1 << 64),
    ],
)
def test_memory_range_that_is_not_wholly_in_ram_is_an_error(memory: GuestMemory, address: int, length: int) -> None:
    """Whatever the numbers: they are the guest's."""
    with pytest.raises(MemoryRangeError):
        memory.read(address, length)
    with pytest.raises(MemoryRangeError):
        memory.view(address, length)


@pytest.mark.parametrize("address", [BASE - 1, BASE + SIZE - 1, -5, (1 << 64) - 1, 1 << 64])
def test_memory_write_that_does_not_fit_writes_nothing(memory: GuestMemory, address: int) -> None:
    """Not even the part that would."""
    with pytest.raises(MemoryRangeError):
        memory.write(address, b"xyz")

    assert memory.read(BASE, 2) == bytes(2)
    assert memory.read(BASE + SIZE - 2, 2) == bytes(2)
