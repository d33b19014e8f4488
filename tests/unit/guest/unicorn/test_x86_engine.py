"""The x86 engine alone: state, memory, registers, the layout check."""

from __future__ import annotations

import pytest

from iovirt_dist.errors import GuestFault, LocalError
from iovirt_dist.guest.engine import Callbacks, Stop, StopKind
from iovirt_dist.guest.unicorn.x86 import UnicornX86
from iovirt_dist.guest.unicorn.x86_state import layout
from iovirt_dist.guest.x86.state import CS, SS, Segment


def make_engine(code: str = "") -> UnicornX86:
    """An engine with 1 MiB of RAM and real-mode `code` at 1000h."""

    def nothing(address: int, width: int) -> int:
        raise GuestFault(13, 0)

    callbacks = Callbacks(lambda port, width, count: bytes(width * count), lambda *_: None, nothing, lambda *_: None)
    engine = UnicornX86(callbacks)
    engine.map_ram(0, 1 << 20)
    engine.map_io_gaps(1 << 32)
    engine.write_memory(0x1000, bytes.fromhex(code))
    state = engine.capture()
    state.segments[CS] = Segment(0, 0, 0xFFFF, 0x9B00)
    engine.commit(state)
    return engine


def test_layout_of_this_unicorn_is_known() -> None:
    """The structure is found where the context's header ends."""
    assert layout().start > 0
    assert layout().error_code > layout().start


def test_power_on_state_is_that_of_reset() -> None:
    """The first fetch is at FFFFFFF0h (Intel SDM volume 3, table 10-1)."""
    state = UnicornX86(Callbacks(None, None, None, None)).capture()  # type: ignore[arg-type]  # never called
    assert (state.segments[CS].base + state.eip, state.cr0, state.eflags) == (0xFFFF_FFF0, 0x6000_0010, 2)


def test_commit_gives_back_what_capture_returned() -> None:
    """Every field makes the round trip, the arithmetic flags and a raised privilege level included."""
    engine = make_engine()
    engine.write_register("cr0", 0x11)
    state = engine.capture()
    state.registers = list(range(100, 108))
    state.eflags = 0x4ED7
    state.segments[SS] = Segment(0x23, 0x1000, 0xFFFF_FFFF, 0xCF_F300)
    state.cpl = 3
    engine.commit(state)
    assert engine.capture() == state
    state.cpl = 0
    state.segments[SS] = Segment(0x10, 0, 0xFFFF_FFFF, 0xCF_9300)
    engine.commit(state)
    assert engine.capture() == state


def test_run_halts_behind_hlt() -> None:
    """HLT is reported with EIP behind it."""
    assert make_engine("90f4").run(0x1000) == Stop(StopKind.HALTED, 0x1002)


def test_run_reports_software_interrupt() -> None:
    """EIP is behind INT n."""
    assert make_engine("cd21").run(0x1000) == Stop(StopKind.EXCEPTION, 0x1002, 0x21, 0, software=True)


def test_run_slice_gives_up_after_its_time() -> None:
    """An endless loop ends with None and is still in the loop."""
    engine = make_engine("ebfe")
    assert engine.run_slice(0x1000, 100) is None
    assert engine.read_register("eip") == 0x1000


def test_load_refused_is_reported_late() -> None:
    """No device of a PC refuses a load; the stop says so at the end of the block."""
    stop = make_engine("b800ff 8ed8 a1f0ff f4").run(0x1000)  # mov ax, ff00h; mov ds, ax; mov ax, [fff0h]; hlt
    assert (stop.kind, stop.vector) == (StopKind.REFUSED, 13)


def test_write_to_rom_is_ignored() -> None:
    """ROM keeps its bytes."""
    engine = make_engine("b800f0 8ed8 c606000055 a00000 f4")  # mov byte [f000:0], 55h; mov al, [f000:0]
    other = UnicornX86(Callbacks(None, None, None, None))  # type: ignore[arg-type]  # never called
    other.map_ram(0, 0xF0000)
    other.map_rom(0xF0000, b"\xaa" * 0x10000)
    other.write_memory(0x1000, engine.read_memory(0x1000, 16))
    state = other.capture()
    state.segments[CS] = Segment(0, 0, 0xFFFF, 0x9B00)
    other.commit(state)
    assert other.run(0x1000).kind is StopKind.HALTED
    assert other.read_register("eax") & 0xFF == 0xAA


@pytest.mark.parametrize(("address", "size"), [(0x1000, 0x1000), (0x20_0001, 0x1000), (0x20_0000, 0)])
def test_map_ram_refuses_overlap_and_odd_sizes(address: int, size: int) -> None:
    """The error names the range."""
    with pytest.raises(LocalError, match=hex(address)):
        make_engine().map_ram(address, size)


def test_memory_outside_ram_is_a_local_error() -> None:
    """Reads, writes and unknown registers say what is wrong."""
    engine = make_engine()
    with pytest.raises(LocalError):
        engine.read_memory(0xFFFFF, 2)
    with pytest.raises(LocalError):
        engine.write_memory(1 << 20, b"x")
    with pytest.raises(LocalError):
        engine.read_register("rax")


def test_kick_pending_returns_before_the_first_instruction() -> None:
    """The kick is consumed by the run that it ends."""
    engine = make_engine("f4")
    engine.kick()
    assert engine.run(0x1000) == Stop(StopKind.KICKED, engine.read_register("eip"))
    assert engine.run(0x1000).kind is StopKind.HALTED
