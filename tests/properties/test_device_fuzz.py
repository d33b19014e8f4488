"""Any guest behaviour is answered: random register accesses, inputs and time steps on every registered device.

Nothing raises, every value is in range, and a twin restored in the middle answers identically from there on.
"""

from __future__ import annotations

from typing import NamedTuple

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.bench import Lines, Rig
from tests.contract.devices import CASES, DeviceCase


class Step(NamedTuple):
    """One random act; the numbers are reduced modulo what the device offers.

    Attributes:
        kind: 0, 1 write; 2 read; 3 let time pass; 4 stimulus.
        where: Chooses block and offset, or stimulus.
        width: Bytes of the access, before it is limited to the device's widest.
        value: The value written, or the stimulus's argument.
        delay_ns: Time that passes before.
    """

    kind: int
    where: int
    width: int
    value: int
    delay_ns: int


VALUES = st.one_of(st.integers(0, 255), st.integers(0, 2**64 - 1), st.sampled_from((0, 0x80, 0xFF, 2**31, 2**32 - 1)))
DELAYS = st.one_of(st.just(0), st.integers(0, 100_000), st.integers(0, 10**10), st.just(10**17))
STEPS = st.lists(
    st.builds(Step, st.integers(0, 4), st.integers(0, 2**32), st.sampled_from((1, 2, 4, 8)), VALUES, DELAYS),
    min_size=1,
    max_size=40,
)


def act(rig: Rig, step: Step, now_ns: int) -> object:
    """Do one step; return what the device answered."""
    if step.kind == 3:
        rig.advance(now_ns)
        return rig.deadline_ns()
    if step.kind == 4 and rig.stimuli:
        return rig.stimuli[step.where % len(rig.stimuli)](step.value & 0xFFFFFFFF, now_ns)
    device, size = rig.blocks[step.where % len(rig.blocks)]
    offset = (step.where // len(rig.blocks)) % size
    width = min(step.width, device.max_width)
    if step.kind == 2:
        value = device.read(offset, width, now_ns)
        assert 0 <= value < 1 << 8 * width
        return value
    device.write(offset, width, step.value & ((1 << 8 * width) - 1), now_ns)
    return None


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
@given(before=STEPS, after=STEPS)
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_device_under_any_accesses_answers_and_its_twin_agrees(
    case: DeviceCase, before: list[Step], after: list[Step]
) -> None:
    """Random accesses raise nothing; state taken in the middle continues as the original does."""
    lines, twin_lines = Lines(), Lines()
    rig, twin = case.build(lines), case.build(twin_lines)
    now_ns = 0
    for step in before:
        now_ns += step.delay_ns
        act(rig, step, now_ns)

    twin.restore(msgpack.unpackb(msgpack.packb(rig.state()), strict_map_key=False))
    answers, twin_answers = [], []
    for step in after:
        now_ns += step.delay_ns
        answers.append((act(rig, step, now_ns), dict(lines.levels)))
        twin_answers.append((act(twin, step, now_ns), dict(twin_lines.levels)))

    assert twin_answers == answers
    assert twin.state() == rig.state()
