"""Kicks at any moment change nothing: the devices see what the guest did, once, and the guest gets what they gave."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from iovirt_dist.guest.engine import Callbacks, Stop, StopKind
from iovirt_dist.guest.unicorn.x86 import UnicornX86
from iovirt_dist.guest.x86.state import CR0_PE, CS, Segment

CODE = Segment(0x08, 0, 0xFFFF_FFFF, 0xCF_9B00)
DATA = Segment(0x10, 0, 0xFFFF_FFFF, 0xCF_9300)
ENTRY = 0x1000
COUNTER = 0x8000
BUFFER = 0x10000
MMIO = 0xFEC0_0000
SLICE_US = 60
TIMEOUT_S = 10.0


class Devices:
    """One register that everything reads and writes, and a stream behind the ports; a callback may kick.

    Attributes:
        calls: How many elements were moved by "in", "out", "load" and "store".
        value: The register.
        given: What the ports gave.
        taken: What the ports took.
        disturb: Called inside every access.
    """

    def __init__(self, seed: int) -> None:
        self.calls = {"in": 0, "out": 0, "load": 0, "store": 0}
        self.value = 0
        self.given = bytearray()
        self.taken = bytearray()
        self.disturb: Callable[[], None] = lambda: None
        self._random = random.Random(seed)

    def port_in(self, port: int, width: int, count: int) -> bytes:
        """Give random bytes."""
        self.disturb()
        self.calls["in"] += count
        data = self._random.randbytes(width * count)
        self.given += data
        return data

    def port_out(self, port: int, width: int, data: bytes) -> None:
        """Take bytes."""
        self.disturb()
        self.calls["out"] += len(data) // width
        self.taken += data

    def load(self, address: int, width: int) -> int:
        """Read the register."""
        self.calls["load"] += 1
        value = self.value & (1 << 8 * width) - 1
        self.disturb()
        return value

    def store(self, address: int, width: int, value: int) -> None:
        """Write the register."""
        self.disturb()
        self.calls["store"] += 1
        self.value = value


def make_engine(code: str, devices: Devices, ebp: int = 0) -> UnicornX86:
    """An engine in flat protected mode; EDX is a port, ESI and EDI point to the buffer, EBP counts rounds."""
    engine = UnicornX86(Callbacks(devices.port_in, devices.port_out, devices.load, devices.store))
    engine.map_ram(0, 1 << 20)
    engine.map_io_gaps(1 << 32)
    engine.write_register("cr0", CR0_PE | 0x10)
    state = engine.capture()
    state.segments = [CODE if number == CS else DATA for number in range(6)]
    state.registers = [0, 0, 0x1F0, 0, 0x7000, ebp, BUFFER, BUFFER]
    state.eip = ENTRY
    engine.commit(state)
    engine.write_memory(ENTRY, bytes.fromhex(code))
    return engine


def rounds_of(code: str, rounds: int, devices: Devices) -> UnicornX86:
    """An engine that executes `code` and INC EBX `rounds` times and halts."""
    body = bytes.fromhex(code) + b"\x43\x4d"  # inc ebx; dec ebp
    return make_engine(body.hex() + f"75{-len(body) - 2 & 0xFF:02x}f4", devices, rounds)


def run_to_halt(engine: UnicornX86) -> int:
    """Run in time slices through all kicks until HLT; returns how many kicks there were."""
    kicks, pc = 0, ENTRY
    while True:
        stop = engine.run_slice(pc, SLICE_US)
        pc = engine.read_register("eip") if stop is None else stop.pc
        if stop is not None and stop.kind is not StopKind.KICKED:
            assert stop.kind is StopKind.HALTED
            return kicks
        kicks += stop is not None


@contextmanager
def storm(engine: UnicornX86) -> Iterator[None]:
    """Kick from another thread all the time."""
    done = threading.Event()

    def pester() -> None:
        while not done.wait(0.00005):
            engine.kick()

    thread = threading.Thread(target=pester)
    thread.start()
    yield
    done.set()
    thread.join()


@contextmanager
def kicks_inside(engine: UnicornX86, devices: Devices) -> Iterator[None]:
    """Kick in every third access, at random, from the thread that makes it."""
    chance = random.Random(7)

    def disturb() -> None:
        for _ in range(chance.random() < 0.3):
            engine.kick()

    devices.disturb = disturb
    yield


@contextmanager
def slow_storm(engine: UnicornX86, devices: Devices) -> Iterator[None]:
    """Kick from another thread while accesses, each of which lets that thread run, are under way."""
    devices.disturb = lambda: time.sleep(0)
    with storm(engine):
        yield


Weather = Callable[[UnicornX86, Devices], AbstractContextManager[None]]
WEATHER = pytest.mark.parametrize("weather", [kicks_inside, slow_storm])


@WEATHER
@pytest.mark.parametrize(
    ("code", "width", "count"),
    [
        ("6c", 1, 1),
        ("666d", 2, 1),
        ("6d", 4, 1),
        ("b901000000 f36c", 1, 1),
        ("b907000000 f36c", 1, 7),
        ("b900010000 f3666d", 2, 256),
        ("b903000000 f3666d", 2, 3),
        ("b965000000 f36d", 4, 101),
    ],
)
def test_string_input_under_kicks_stores_each_element_once(weather: Weather, code: str, width: int, count: int) -> None:
    """INS and REP INS of all widths: memory is the stream that the device gave."""
    devices = Devices(seed=1)
    rounds = min(200, 0xE0000 // (width * count))
    engine = rounds_of(code, rounds, devices)
    with weather(engine, devices):
        run_to_halt(engine)
    assert devices.calls["in"] == rounds * count
    assert engine.read_memory(BUFFER, len(devices.given)) == devices.given
    assert (engine.read_register("ecx"), engine.read_register("ebx")) == (0, rounds)
    assert engine.read_register("edi") == BUFFER + rounds * count * width


@WEATHER
@pytest.mark.parametrize(
    ("code", "width", "count"),
    [("6e", 1, 1), ("666f", 2, 1), ("6f", 4, 1), ("b907000000 f36e", 1, 7), ("b900010000 f3666f", 2, 256)],
)
def test_string_output_under_kicks_gives_each_element_once(weather: Weather, code: str, width: int, count: int) -> None:
    """OUTS and REP OUTS: the device took what is in memory."""
    devices = Devices(seed=1)
    rounds = min(200, 0xE0000 // (width * count))
    engine = rounds_of(code, rounds, devices)
    memory = random.Random(2).randbytes(rounds * count * width)
    engine.write_memory(BUFFER, memory)
    with weather(engine, devices):
        run_to_halt(engine)
    assert devices.taken == memory
    assert (engine.read_register("ecx"), engine.read_register("ebx")) == (0, rounds)


@WEATHER
@pytest.mark.parametrize(
    ("code", "loads", "stores"),
    [
        ("a1 0000c0fe", 1, 0),  # mov eax, [mmio]
        ("a3 0000c0fe", 0, 1),  # mov [mmio], eax
        ("a3 0000c0fe a3 0400c0fe a1 0000c0fe", 1, 2),
        ("ff05 0000c0fe", 1, 1),  # inc dword [mmio]
        ("fe05 0000c0fe", 1, 1),  # inc byte [mmio]
        ("8705 0000c0fe", 1, 1),  # xchg [mmio], eax
        ("f0 0fc105 0000c0fe", 1, 1),  # lock xadd [mmio], eax
        ("ff35 0000c0fe 58", 1, 0),  # push dword [mmio]; pop eax
        ("be 0000c0fe bf 0000c0fe a5", 1, 1),  # movsd, both operands MMIO
        ("be 0000c0fe bf 0000c0fe a7", 2, 0),  # cmpsd, both operands MMIO
        ("bf 0000c0fe b905000000 f3ab", 0, 5),  # rep stosd
        ("be 0000c0fe bf 00000100 b905000000 f3a5", 5, 0),  # rep movsd to RAM
    ],
)
def test_memory_mapped_io_under_kicks_accesses_device_once(
    weather: Weather, code: str, loads: int, stores: int
) -> None:
    """Loads, stores and read-modify-write instructions: as many accesses as the guest made."""
    devices = Devices(seed=1)
    rounds = 150
    engine = rounds_of(code, rounds, devices)
    with weather(engine, devices):
        run_to_halt(engine)
    assert (devices.calls["load"], devices.calls["store"]) == (rounds * loads, rounds * stores)
    assert engine.read_register("ebx") == rounds


@WEATHER
def test_increments_of_a_device_register_under_kicks_are_all_there(weather: Weather) -> None:
    """`inc [mmio]` neither loses nor repeats one."""
    devices = Devices(seed=1)
    engine = rounds_of("ff05 0000c0fe", 500, devices)
    with weather(engine, devices):
        run_to_halt(engine)
    assert devices.value == 500


@WEATHER
@pytest.mark.parametrize(
    ("code", "operation"), [("ec", "in"), ("66ed", "in"), ("e510", "in"), ("ee", "out"), ("ef", "out")]
)
def test_port_io_under_kicks_reaches_device_once(weather: Weather, code: str, operation: str) -> None:
    """IN and OUT: as many accesses as the guest counted."""
    devices = Devices(seed=1)
    engine = rounds_of(code, 500, devices)
    with weather(engine, devices):
        run_to_halt(engine)
    assert devices.calls[operation] == engine.read_register("ebx") == 500


def test_increments_of_ram_under_kicks_are_all_there() -> None:
    """`inc [m]`, with kicks from another thread and the ends of time slices."""
    devices = Devices(seed=1)
    engine = rounds_of("ff05 00800000", 500_000, devices)
    with storm(engine):
        kicks = run_to_halt(engine)
    assert kicks > 0
    assert int.from_bytes(engine.read_memory(COUNTER, 4), "little") == 500_000


def test_kick_from_inside_an_access_stops_behind_its_block() -> None:
    """A guest that polls a device gets no second turn."""
    devices = Devices(seed=1)
    engine = make_engine("a1 0000c0fe 85c0 74f7 f4", devices)  # again: mov eax, [mmio]; test eax, eax; jz again; hlt
    devices.disturb = engine.kick
    assert engine.run(ENTRY) == Stop(StopKind.KICKED, ENTRY)
    assert devices.calls["load"] == 1


@pytest.mark.parametrize("code", ["ebfe", "a1 0000c0fe ebf9", "ec ebfd", "ff05 00800000 ebf8", "b9ffffffff f3ab ebf7"])
def test_kick_from_another_thread_stops_any_loop(code: str) -> None:
    """Plain loops, polling loops, stores, REP: the run ends although no other kick comes."""
    devices = Devices(seed=1)
    engine = make_engine(code, devices)
    for _ in range(20):
        kicker = threading.Timer(0.0005, engine.kick)
        kicker.start()
        guard = threading.Timer(TIMEOUT_S, engine.uc.emu_stop)
        guard.start()
        stop = engine.run(engine.read_register("eip"))
        guard.cancel()
        assert stop.kind is StopKind.KICKED
        kicker.join()


def test_kick_behind_the_byte_of_hlt_is_no_hlt() -> None:
    """With interrupts disabled, EIP behind a byte F4h that is the end of another instruction: KICKED, not HALTED."""
    devices = Devices(seed=1)
    engine = make_engine("e610 31c0 75f4 ebfe", devices)  # out 10h, al; xor eax, eax; jnz -12; jmp $
    devices.disturb = engine.kick
    assert engine.run(ENTRY) == Stop(StopKind.KICKED, ENTRY + 6)


def test_kick_together_with_hlt_stays_pending() -> None:
    """HLT is reported first; the next run returns at once."""
    devices = Devices(seed=1)
    engine = make_engine("e610 f4 ebfe", devices)  # out 10h, al; hlt; jmp $
    devices.disturb = engine.kick
    assert engine.run(ENTRY) == Stop(StopKind.HALTED, ENTRY + 3)
    assert engine.run(ENTRY + 3) == Stop(StopKind.KICKED, ENTRY + 3)


def test_kick_does_not_wait_for_the_vcpu_thread() -> None:
    """While the emulator has not shown that it runs, another thread repeats the request."""
    devices = Devices(seed=1)
    engine = make_engine("ebfe", devices)
    engine._running = True  # as between the decision to start and the entry of the emulator
    engine.kick()
    engine._running = False
    assert engine.run(ENTRY).kind is StopKind.KICKED
