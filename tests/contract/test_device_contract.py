"""The contract of every virtual device (iovirt_dist/hypervisor/vdev/device.py), run over the registry.

A device is added in tests/contract/devices.py, nowhere else.
"""

from __future__ import annotations

import random
from typing import Any

import msgpack
import pytest

from iovirt_dist.hypervisor.vdev.device import Device, StringDevice
from tests.contract.bench import Block, Lines, Rig
from tests.contract.devices import CASES, DeviceCase

MILLISECOND_NS = 1_000_000
YEAR_NS = 365 * 24 * 3600 * 1_000_000_000
SEED = 20250917

pytestmark = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


def over_the_wire(states: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What comes out at the other end when a state is carried by msgpack."""
    unpacked: list[dict[str, Any]] = msgpack.unpackb(msgpack.packb(states), strict_map_key=False)
    return unpacked


def scramble(rig: Rig, rounds: int = 400) -> int:
    """Do random writes, reads, inputs and time steps with a fixed seed; return the time afterwards."""
    random_source = random.Random(SEED)
    registers = list(rig.registers())
    now_ns = 0
    for _ in range(rounds):
        now_ns += random_source.choice((0, 100, 10_000, MILLISECOND_NS))
        device, offset, width = random_source.choice(registers)
        device.write(offset, width, random_source.getrandbits(8 * width), now_ns)
        device, offset, width = random_source.choice(registers)
        device.read(offset, width, now_ns)
        for stimulus in rig.stimuli:
            stimulus(random_source.getrandbits(32), now_ns)
        rig.advance(now_ns)
    return now_ns


def transcript(rig: Rig, lines: Lines, now_ns: int) -> list[object]:
    """Read everything twice with time between; return all answers, the levels of the lines and the deadline."""
    answers: list[object] = []
    for step_ns in (0, MILLISECOND_NS):
        now_ns += step_ns
        rig.advance(now_ns)
        answers += [device.read(offset, width, now_ns) for device, offset, width in rig.registers()]
        answers += [dict(lines.levels), rig.deadline_ns()]
    return answers


def test_device_any_satisfies_the_protocol(case: DeviceCase) -> None:
    """Every block is a Device with a legal widest access."""
    rig = case.build(Lines())

    assert all(isinstance(block.device, Device) for block in rig.blocks)
    assert {block.device.max_width for block in rig.blocks} <= {1, 2, 4, 8}


def test_device_at_power_on_asserts_no_line(case: DeviceCase) -> None:
    """A device that nobody has programmed interrupts nobody."""
    lines = Lines()

    case.build(lines)

    assert not any(lines.levels.values())


def test_device_read_everywhere_stays_within_the_width(case: DeviceCase) -> None:
    """Every offset and width reads as a value of that width."""
    rig = case.build(Lines())

    answers = [(width, device.read(offset, width, 0)) for device, offset, width in rig.registers()]

    assert all(0 <= value < 1 << 8 * width for width, value in answers)


@pytest.mark.parametrize("pattern", [0, 0x5555555555555555, 0xAAAAAAAAAAAAAAAA, 0xFFFFFFFFFFFFFFFF])
def test_device_written_everywhere_still_answers(case: DeviceCase, pattern: int) -> None:
    """No value at any offset raises or spoils later reads."""
    rig = case.build(Lines())

    for device, offset, width in rig.registers():
        device.write(offset, width, pattern & ((1 << 8 * width) - 1), MILLISECOND_NS)
    answers = [(width, device.read(offset, width, MILLISECOND_NS)) for device, offset, width in rig.registers()]

    assert all(0 <= value < 1 << 8 * width for width, value in answers)


def test_device_state_survives_msgpack(case: DeviceCase) -> None:
    """A state holds only what msgpack carries, and comes back equal."""
    rig = case.build(Lines())
    scramble(rig)

    states = rig.state()

    assert over_the_wire(states) == states


def test_device_restored_twin_answers_identically(case: DeviceCase) -> None:
    """A fresh device that took over a state has the same registers, lines, deadline and future."""
    lines, twin_lines = Lines(), Lines()
    rig, twin = case.build(lines), case.build(twin_lines)
    now_ns = scramble(rig)

    twin.restore(over_the_wire(rig.state()))

    assert twin.state() == rig.state()
    assert twin_lines.levels == lines.levels
    assert transcript(twin, twin_lines, now_ns) == transcript(rig, lines, now_ns)


def test_device_restored_over_another_life_forgets_it(case: DeviceCase) -> None:
    """Restoring the power-on state makes a used device a new one, lines included."""
    lines = Lines()
    rig = case.build(lines)
    fresh = case.build(Lines()).state()
    scramble(rig)

    rig.restore(fresh)

    assert rig.state() == fresh
    assert not any(lines.levels.values())


def test_device_state_taken_earlier_does_not_change(case: DeviceCase) -> None:
    """A state is a copy: what happens to the device afterwards does not reach it."""
    rig = case.build(Lines())
    states = rig.state()
    packed = msgpack.packb(states)

    scramble(rig)

    assert msgpack.packb(states) == packed


def test_device_advanced_to_its_deadline_moves_on(case: DeviceCase) -> None:
    """Serving a deadline leaves none at or before it: a timer never fires twice for one instant."""
    rig = case.build(Lines())
    now_ns = scramble(rig)

    served = []
    for _ in range(50):
        deadline_ns = rig.deadline_ns()
        now_ns = max(now_ns, deadline_ns or now_ns)
        rig.advance(now_ns)
        served.append(rig.deadline_ns())

    assert served[-1] is None or served[-1] > now_ns
    assert [ns for ns in served if ns is not None] == sorted(ns for ns in served if ns is not None)


def test_device_stopped_for_a_year_resumes_without_a_storm(case: DeviceCase) -> None:
    """After a long pause one advance settles everything, and each line rose at most once."""
    lines = Lines()
    rig = case.build(lines)
    now_ns = scramble(rig) + YEAR_NS
    before = dict(lines.rises)

    rig.advance(now_ns)

    deadline_ns = rig.deadline_ns()
    assert deadline_ns is None or deadline_ns > now_ns
    assert all(lines.rises[name] - count <= 1 for name, count in before.items())


def string_ports(rig: Rig) -> list[tuple[StringDevice, Block]]:
    """The blocks that take string I/O."""
    return [(block.device, block) for block in rig.blocks if isinstance(block.device, StringDevice)]


def test_device_string_read_equals_single_reads(case: DeviceCase) -> None:
    """`rep ins` returns the same bytes as the same number of single reads on a twin."""
    rig, twin = case.build(Lines()), case.build(Lines())
    now_ns = scramble(rig)
    twin.restore(rig.state())

    whole = [device.read_string(0, device.max_width, 5, now_ns) for device, _ in string_ports(rig)]
    single = [
        b"".join(device.read(0, device.max_width, now_ns).to_bytes(device.max_width, "little") for _ in range(5))
        for device, _ in string_ports(twin)
    ]

    assert whole == single
    assert twin.state() == rig.state()


def test_device_string_write_equals_single_writes(case: DeviceCase) -> None:
    """`rep outs` has the effect of the same number of single writes on a twin."""
    rig, twin = case.build(Lines()), case.build(Lines())
    now_ns = scramble(rig)
    twin.restore(rig.state())
    values = (0x0123456789ABCDEF, 0, 0xFFFFFFFFFFFFFFFF)

    for device, _ in string_ports(rig):
        width = device.max_width
        data = b"".join((value & ((1 << 8 * width) - 1)).to_bytes(width, "little") for value in values)
        device.write_string(0, width, data, now_ns)
    for device, _ in string_ports(twin):
        for value in values:
            device.write(0, device.max_width, value & ((1 << 8 * device.max_width) - 1), now_ns)

    assert twin.state() == rig.state()
