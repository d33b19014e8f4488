"""Stops between blocks: no instruction is executed one and a half times."""

from __future__ import annotations

import threading

from iovirt_dist.guest.engine import Callbacks, StopKind
from iovirt_dist.guest.unicorn.x86 import UnicornX86
from iovirt_dist.guest.x86.state import CR0_PE, CS, Segment

_CODE = Segment(0x08, 0, 0xFFFF_FFFF, 0xCF_9B00)
_DATA = Segment(0x10, 0, 0xFFFF_FFFF, 0xCF_9300)
_ENTRY, _COUNTER, _BUFFER = 0x1000, 0x8000, 0x9000


def _engine(callbacks: Callbacks, code: bytes) -> UnicornX86:
    """Build an engine in flat 32-bit protected mode with `code` at its entry."""
    engine = UnicornX86(callbacks)
    engine.map_ram(0, 1 << 20)
    engine.write_register("cr0", CR0_PE | 0x10)
    state = engine.capture()
    state.segments = [_CODE if number == CS else _DATA for number in range(6)]
    state.eip = _ENTRY
    engine.commit(state)
    engine.write_memory(_ENTRY, code)
    return engine


def _run_to_halt(engine: UnicornX86) -> int:
    """Run through all kicks until HLT; returns how many there were."""
    kicks, pc = 0, _ENTRY
    while (stop := engine.run(pc)).kind is StopKind.KICKED:
        kicks, pc = kicks + 1, stop.pc
    assert stop.kind is StopKind.HALTED
    return kicks


def test_kicks_during_increments_of_memory_count_each_increment_once() -> None:
    """`inc [m]` in a loop that is kicked all the time ends with as many increments as rounds."""
    rounds = 1_000_000
    loop = b"\xff\x05\x00\x80\x00\x00\x43\x49\x75\xf6\xf4"  # inc [8000h]; inc ebx; dec ecx; jnz; hlt
    engine = _engine(Callbacks(lambda *_: b"", lambda *_: None, lambda *_: 0, lambda *_: None), loop)
    engine.write_register("ecx", rounds)
    done = threading.Event()

    def pester() -> None:
        while not done.wait(0.0001):
            engine.kick()

    thread = threading.Thread(target=pester)
    thread.start()
    kicks = _run_to_halt(engine)
    done.set()
    thread.join()

    assert kicks > 0
    assert engine.read_register("ebx") == rounds
    assert int.from_bytes(engine.read_memory(_COUNTER, 4), "little") == rounds


def test_kick_inside_a_string_input_moves_each_element_once() -> None:
    """A kick while `rep insw` waits for the device neither repeats nor loses an element."""
    sector = bytes(range(256)) * 2
    asked: list[int] = []

    def port_in(port: int, width: int, count: int) -> bytes:
        asked.append(count)
        engine.kick()
        return sector

    engine = _engine(Callbacks(port_in, lambda *_: None, lambda *_: 0, lambda *_: None), b"\xf3\x66\x6d\xf4")
    engine.write_register("ecx", 256)
    engine.write_register("edi", _BUFFER)

    _run_to_halt(engine)

    assert asked == [256]
    assert engine.read_memory(_BUFFER, 512) == sector
    assert engine.read_register("edi") == _BUFFER + 512
