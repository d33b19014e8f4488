"""Loads and stores of a RISC-V guest that leave RAM (`iovirt_dist.guest.riscv.vcpu` on `iovirt_dist.guest.unicorn`)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from iovirt_dist.errors import ImageError, LocalError
from iovirt_dist.guest.bus import BusClosedError
from iovirt_dist.guest.loader.image import ImageFormat, LoadedImage, Segment
from iovirt_dist.guest.riscv.vcpu import RiscvCpu
from iovirt_dist.guest.unicorn.riscv import UnicornRiscv
from iovirt_dist.guest.vcpu import ExitReason
from tests.unit.guest.riscv.support import (
    DEVICE,
    MACHINE_HANDLER,
    RAM,
    RAM_BYTES,
    SNIPPET,
    SUPERVISOR_HANDLER,
    SV39,
    USER_PAGE,
    M,
    RecordingBus,
    S,
    Setup,
    U,
    bench,
)

FPU_ON = 1 << 13
PATTERN = 0x8899_AABB_CCDD_EEFF
ALL = 0xFFFF_FFFF_FFFF_FFFF

LOADS = bytes.fromhex(
    "03858700"  # 00  lb a0, 8(a5)
    "83c50701"  # 04  lbu a1, 16(a5)
    "03968701"  # 08  lh a2, 24(a5)
    "83d60702"  # 0c  lhu a3, 32(a5)
    "9857"  # 10  lw a4, 40(a5)
    "03e90703"  # 12  lwu s2, 48(a5)
    "83b98703"  # 16  ld s3, 56(a5)
    "a043"  # 1a  lw s0, 64(a5)
    "a467"  # 1c  ld s1, 72(a5)
    "07a00705"  # 1e  flw ft0, 80(a5)
    "87b08705"  # 22  fld ft1, 88(a5)
    "a033"  # 26  fld fs0, 96(a5)
    "3e81"  # 28  mv sp, a5
    "265a"  # 2a  lw s4, 104(sp)
    "c67a"  # 2c  ld s5, 112(sp)
    "e634"  # 2e  fld fs1, 120(sp)
    "03a00708"  # 30  lw zero, 128(a5)
    "03bb87ff"  # 34  ld s6, -8(a5)
    "23a00700"  # 38  sw zero, 0(a5)
)
STORES = bytes.fromhex(
    "7955"  # 00  li a0, -2
    "530005f2"  # 02  fmv.d.x ft0, a0
    "530405f2"  # 06  fmv.d.x fs0, a0
    "a384a700"  # 0a  sb a0, 9(a5)
    "2399a700"  # 0e  sh a0, 18(a5)
    "c8cf"  # 12  sw a0, 28(a5)
    "88f7"  # 14  sd a0, 40(a5)
    "88db"  # 16  sw a0, 48(a5)
    "88ff"  # 18  sd a0, 56(a5)
    "27a00704"  # 1a  fsw ft0, 64(a5)
    "27b40704"  # 1e  fsd ft0, 72(a5)
    "a0ab"  # 22  fsd fs0, 80(a5)
    "3e81"  # 24  mv sp, a5
    "aacc"  # 26  sw a0, 88(sp)
    "aaf0"  # 28  sd a0, 96(sp)
    "82b4"  # 2a  fsd ft0, 104(sp)
    "a38fa7fe"  # 2c  sb a0, -1(a5)
    "23a00700"  # 30  sw zero, 0(a5)
)
REFUSED = bytes.fromhex(
    "1545"  # 00  li a0, 5
    "0546"  # 02  li a2, 1
    "97060000"  # 04  auipc a3, 0
    "8847"  # 08  lw a0, 8(a5)
    "0946"  # 0a  li a2, 2
    "23b0c610"  # 0c  sd a2, 256(a3)
    "90cb"  # 10  sw a2, 16(a5)
    "23a00700"  # 12  sw zero, 0(a5)
)
ATOMIC = bytes.fromhex(
    "97160000"  # 00  auipc a3, 1
    "0546"  # 04  li a2, 1
    "2fb5c600"  # 06  amoadd.d a0, a2, (a3)
    "0507"  # 0a  addi a4, a4, 1
    "edbf"  # 0c  j 0x6
)
EXACTLY_ONCE = bytes.fromhex(
    "8867"  # 00  ld a0, 8(a5)
    "0506"  # 02  addi a2, a2, 1
    "6304c500"  # 04  beq a0, a2, 0xc
    "23a00700"  # 08  sw zero, 0(a5)
    "88eb"  # 0c  sd a0, 16(a5)
    "cdbf"  # 0e  j 0x0
)


def test_loads_of_every_width_return_extended_values() -> None:
    """Each load instruction makes one access of its width and extends the value by its own rule."""
    bus = RecordingBus(values={DEVICE + offset: PATTERN for offset in range(-8, 136, 8)})
    cpu = bench(LOADS, Setup(status=FPU_ON), bus)

    cpu.run()

    registers = {name: cpu.read_register(name) for name in ("a0", "a1", "a2", "a3", "a4", "s2", "s3", "s0", "s1")}
    assert registers == {
        "a0": ALL,
        "a1": 0xFF,
        "a2": 0xFFFF_FFFF_FFFF_EEFF,
        "a3": 0xEEFF,
        "a4": 0xFFFF_FFFF_CCDD_EEFF,
        "s2": 0xCCDD_EEFF,
        "s3": PATTERN,
        "s0": 0xFFFF_FFFF_CCDD_EEFF,
        "s1": PATTERN,
    }
    assert [cpu.read_register(name) for name in ("s4", "s5", "s6", "zero")] == [
        0xFFFF_FFFF_CCDD_EEFF,
        PATTERN,
        PATTERN,
        0,
    ]
    assert [cpu.read_register(name) for name in ("ft0", "ft1", "fs0", "fs1")] == [
        0xFFFF_FFFF_CCDD_EEFF,
        PATTERN,
        PATTERN,
        PATTERN,
    ]
    widths = [1, 1, 2, 2, 4, 4, 8, 4, 8, 4, 8, 8, 4, 8, 8, 4, 8]
    offsets = [*range(8, 136, 8), -8]
    assert bus.loads == [(DEVICE + offset, width) for offset, width in zip(offsets, widths, strict=True)]
    assert set(bus.levels) == {M}


def test_floating_load_marks_the_unit_dirty() -> None:
    """A floating-point load from a device sets mstatus.FS to Dirty, as one from RAM does."""
    cpu = bench(LOADS, Setup(status=FPU_ON), RecordingBus())

    cpu.run()

    assert cpu.read_register("mstatus") >> 13 & 3 == 3


def test_stores_of_every_width_reach_the_bus_in_order() -> None:
    """Each store instruction makes one access of its width with the value truncated to it."""
    bus = RecordingBus()
    cpu = bench(STORES, Setup(status=FPU_ON), bus)

    cpu.run()

    value = ALL - 1
    assert bus.stores == [
        (DEVICE + 9, 1, 0xFE),
        (DEVICE + 18, 2, 0xFFFE),
        (DEVICE + 28, 4, 0xFFFF_FFFE),
        (DEVICE + 40, 8, value),
        (DEVICE + 48, 4, 0xFFFF_FFFE),
        (DEVICE + 56, 8, value),
        (DEVICE + 64, 4, 0xFFFF_FFFE),
        (DEVICE + 72, 8, value),
        (DEVICE + 80, 8, value),
        (DEVICE + 88, 4, 0xFFFF_FFFE),
        (DEVICE + 96, 8, value),
        (DEVICE + 104, 8, value),
        (DEVICE - 1, 1, 0xFE),
    ]


def test_access_in_supervisor_mode_reports_its_privilege() -> None:
    """The bus learns from which privilege level an access comes, here through a page table."""
    bus = RecordingBus()
    cpu = bench(LOADS, Setup(level=S, satp=SV39, status=FPU_ON), bus)

    cpu.run()

    assert len(bus.loads) == 17
    assert set(bus.levels) == {S}


def test_refused_load_takes_no_effect_and_faults() -> None:
    """A load that the bus refuses raises a load access fault; neither it nor anything behind it takes effect."""
    bus = RecordingBus(refused={DEVICE + 8})
    cpu = bench(REFUSED, Setup(), bus)

    cpu.run()

    assert [cpu.read_register(name) for name in ("mcause", "mepc", "mtval")] == [5, SNIPPET + 8, DEVICE + 8]
    assert cpu.read_register("t0") == MACHINE_HANDLER + 4
    assert (cpu.read_register("a0"), cpu.read_register("a2")) == (5, 1)
    assert cpu.read_memory(SNIPPET + 0x104, 8) == bytes(8)
    assert bus.stores == []
    assert (cpu.counters().faults, cpu.counters().exceptions) == (1, 1)


def test_refused_store_faults_at_the_store() -> None:
    """A store that the bus refuses raises a store access fault; what came before it stands."""
    bus = RecordingBus(refused={DEVICE + 16})
    cpu = bench(REFUSED, Setup(), bus)

    cpu.run()

    assert [cpu.read_register(name) for name in ("mcause", "mepc", "mtval")] == [7, SNIPPET + 16, DEVICE + 16]
    assert cpu.read_memory(SNIPPET + 0x104, 8) == b"\2" + bytes(7)


def test_closed_bus_ends_the_run_with_its_error() -> None:
    """`BusClosedError` comes out of `run`, and the load has not completed."""
    bus = RecordingBus(error=BusClosedError())
    cpu = bench(REFUSED, Setup(), bus)

    with pytest.raises(BusClosedError):
        cpu.run()

    assert cpu.read_register("a0") == 5


@pytest.mark.parametrize(
    ("instruction", "cause", "value"),
    [
        pytest.param("03a52700", 4, DEVICE + 2, id="lw a0, 2(a5)"),
        pytest.param("a390a700", 6, DEVICE + 1, id="sh a0, 1(a5)"),
        pytest.param("2fa50710", 5, DEVICE, id="lr.w a0, (a5)"),
        pytest.param("2fa5c700", 7, DEVICE, id="amoadd.w a0, a2, (a5)"),
        pytest.param("85458e15c841", 5, 0x8_0000_0004, id="lw a0, 4(1 << 35)"),
        pytest.param("85458e1588e5", 7, 0x8_0000_0008, id="sd a0, 8(1 << 35)"),
        pytest.param("8287", 1, DEVICE, id="jr a5"),
    ],
)
def test_impossible_access_faults_without_reaching_the_bus(instruction: str, cause: int, value: int) -> None:
    """Misaligned and atomic device accesses, fetches from devices and accesses above RAM are faults of the guest."""
    bus = RecordingBus()
    cpu = bench(bytes.fromhex(instruction), Setup(), bus)

    cpu.run()

    assert [cpu.read_register(name) for name in ("mcause", "mtval", "t0")] == [cause, value, MACHINE_HANDLER + 4]
    assert bus.loads == []
    assert bus.stores == []


@pytest.mark.parametrize(("instruction", "cause"), [("8847", 13), ("90cb", 15)])
def test_user_program_that_touches_a_device_page_faults_in_its_guest(instruction: str, cause: int) -> None:
    """A device page without the U bit gives the user process a page fault; the bus sees nothing (concept C5)."""
    bus = RecordingBus()
    setup = Setup(level=U, delegated=0xFFFF, satp=SV39, entry=USER_PAGE)
    cpu = bench(bytes.fromhex(instruction), setup, bus)

    cpu.run()

    assert [cpu.read_register(name) for name in ("scause", "sepc")] == [cause, USER_PAGE]
    assert cpu.read_register("t0") == SUPERVISOR_HANDLER + 4
    assert bus.loads == []
    assert bus.stores == []


def run_under_fire(cpu: RiscvCpu, progress: Callable[[], int], kicks: int = 100) -> None:
    """Run the CPU while another thread kicks it, each time that it has seen the guest make progress."""
    finished = threading.Event()

    def kick_often() -> None:
        for _ in range(kicks):
            seen = progress()
            while progress() == seen:
                time.sleep(0)  # yields the interpreter lock
            cpu.kick()
        finished.set()
        cpu.kick()

    kicker = threading.Thread(target=kick_often)
    kicker.start()
    while not finished.is_set():
        cpu.run()
    kicker.join()


def test_kicks_during_accesses_neither_lose_nor_repeat_one() -> None:
    """However `kick` falls, each load and each store happens exactly once."""

    class CountingBus(RecordingBus):
        count = 0

        def load(self, address: int, width: int, privilege: object) -> int:
            self.count += 1
            return self.count

    bus = CountingBus()
    cpu = bench(EXACTLY_ONCE, Setup(), bus)

    run_under_fire(cpu, lambda: bus.count)

    written = [value for _, _, value in bus.stores]
    assert written == list(range(1, len(written) + 1))
    assert written


def test_kicks_during_atomics_never_repeat_one() -> None:
    """An AMO that a `kick` falls into adds once; Unicorn by itself would leave it half-way and repeat it."""
    cpu = bench(ATOMIC, Setup(), RecordingBus())

    def counter() -> int:
        return int.from_bytes(cpu.read_memory(SNIPPET + 0x1000, 8), "little")

    run_under_fire(cpu, counter)

    total = counter()
    assert total - cpu.read_register("a4") in (0, 1)  # the count follows one block behind
    assert total > 0


def test_kick_before_run_returns_at_once() -> None:
    """`kick` is sticky: the next `run` returns without executing anything, the one after executes."""
    bus = RecordingBus()
    cpu = bench(LOADS, Setup(status=FPU_ON), bus)
    cpu.kick()

    first = cpu.run()
    loads_then = len(bus.loads)
    second = cpu.run()

    assert (first.reason, second.reason) == (ExitReason.KICKED, ExitReason.KICKED)
    assert (loads_then, len(bus.loads)) == (0, 17)


def test_reset_restores_memory_registers_and_entry() -> None:
    """After `reset` the machine starts as it did the first time, with a0 and a1 as firmware expects them."""
    bus = RecordingBus()
    cpu = bench(REFUSED, Setup(), bus)
    cpu.run()

    cpu.reset()

    assert cpu.read_memory(SNIPPET + 0x104, 8) == bytes(8)
    assert [cpu.read_register(name) for name in ("pc", "priv", "a0", "a1")] == [RAM, M, 0, cpu.tree_address]
    assert cpu.read_memory(cpu.tree_address, 4) == bytes.fromhex("d00dfeed")


def test_memory_outside_ram_is_refused() -> None:
    """Host-side access to what is not RAM is a local error."""
    cpu = bench(REFUSED, Setup(), RecordingBus())

    with pytest.raises(LocalError):
        cpu.read_memory(DEVICE, 4)


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ((Segment(RAM, bytes(RAM_BYTES)),), "no room for the device tree"),
        ((Segment(RAM, bytes(8)), Segment(RAM + 4, bytes(8))), "overlap at 0x80000004"),
    ],
)
def test_images_that_do_not_fit_are_refused(segments: tuple[Segment, ...], message: str) -> None:
    """Images that overlap each other or leave no room for the device tree are image errors."""
    image = LoadedImage(ImageFormat.FLAT, segments, RAM)

    with pytest.raises(ImageError, match=message):
        RiscvCpu(UnicornRiscv, RecordingBus(), (image,), RAM_BYTES)
