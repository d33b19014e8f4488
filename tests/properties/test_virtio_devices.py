"""Virtio devices and the driver level under guests that do anything: nothing raises, nothing grows, twins agree.

One hypothesis example is a session of `PER_EXAMPLE` hostile inputs from a seeded generator.
"""

from __future__ import annotations

import random

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iovirt_dist.hypervisor.intercept.driver import DriverInterception
from iovirt_dist.hypervisor.vdev.virtio_mmio import VirtioMmio
from iovirt_dist.virtio.mmio import Register, Status
from iovirt_dist.wire.codec import decode, encode
from iovirt_dist.wire.queue_messages import ArmQueue, Completions, DisarmQueue, Doorbell
from tests.contract.bench import Lines, Rig
from tests.contract.devices import CASES, DeviceCase
from tests.contract.virtio_devices import start_virtio, virtio_message
from tests.properties.amount import PER_EXAMPLE, examples

EXAMPLES = examples(4000)
VIRTIO = [case for case in CASES if case.name.startswith("virtio-") and case.name != "virtio-mmio slot"]
REGISTERS = [*Register, Register.CONFIG + 8, 0x7, 0x1FE]


class Session:
    """A device, and everything that was observed of it.

    Args:
        case: Which device.
    """

    def __init__(self, case: DeviceCase) -> None:
        self.lines = Lines()
        self.rig: Rig = case.build(self.lines)
        chip = self.rig.blocks[0].device
        assert isinstance(chip, VirtioMmio)
        host = chip._host
        assert isinstance(host, DriverInterception)
        self.chip = chip
        self.host = host
        self.complete = self.rig.stimuli[2]
        self.seen: list[object] = []

    def act(self, dice: random.Random) -> None:
        """Do one thing; note all that can be seen of it."""
        kind, value = dice.random(), dice.getrandbits(32)
        answer: object = None
        if kind < 0.1:
            start_virtio(self.chip, value if value & 1 else 0, 0)
        elif kind < 0.55:
            answer = self.host.message(*virtio_message(self.chip, dice), 0)
        elif kind < 0.75:
            answer = self.complete(value, 0)
        elif kind < 0.8:
            offset, width = int(dice.choice(REGISTERS)), dice.choice((1, 2, 4, 4))
            self.chip.write(offset, width, dice.choice((value, value & 7, 1, 3)) & ((1 << 8 * width) - 1), 0)
        elif kind < 0.85:
            answer = self.chip.read(int(dice.choice(REGISTERS)), dice.choice((1, 2, 4)), 0)
        elif kind < 0.9:
            self.rig.blocks[1].device.write(0, 1, value & 0xFF, 0)
        else:
            answer = self.flush()
        self.seen.append((answer, dict(self.lines.levels)))
        assert all(0 <= queue.outstanding <= queue.size for queue in self.chip.queues)

    def flush(self) -> object:
        """What leaves for the guest; every message is one that its decoder takes."""
        sent = []
        for body, payload in self.host.flush(0):
            assert isinstance(body, ArmQueue | DisarmQueue | Completions)
            envelope, frames = decode(encode(1, 1, 1, 0, body, payload))
            assert envelope.body == body
            sent.append((body, [bytes(frame) for frame in frames]))
        return sent


@pytest.mark.parametrize("case", VIRTIO, ids=[case.name for case in VIRTIO])
@given(seed=st.integers(0, 2**64 - 1))
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
def test_virtio_device_under_a_hostile_guest_stays_defined_and_its_twin_agrees(case: DeviceCase, seed: int) -> None:
    """Half of the session on one device, the other half on it and on a twin that took over its state."""
    dice = random.Random(seed)
    session, twin = Session(case), Session(case)
    for _ in range(PER_EXAMPLE // 2):
        session.act(dice)
    session.seen.clear()
    twin.rig.restore(msgpack.unpackb(msgpack.packb(session.rig.state()), strict_map_key=False))
    again = random.Random()
    again.setstate(dice.getstate())

    for _ in range(PER_EXAMPLE // 2):
        session.act(dice)
        twin.act(again)

    assert twin.seen == session.seen
    assert twin.rig.state() == session.rig.state()
    assert twin.flush() == session.flush()


@pytest.mark.parametrize("case", VIRTIO, ids=[case.name for case in VIRTIO])
@given(seed=st.integers(0, 2**64 - 1))
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
def test_doorbell_of_any_bytes_is_taken_or_refused(case: DeviceCase, seed: int) -> None:
    """Entries and payload at random, and good ones with some bytes changed; refused ones leave no trace."""
    dice = random.Random(seed)
    session = Session(case)
    start_virtio(session.chip, 0, 0)
    for _ in range(PER_EXAMPLE):
        queue = dice.choice(session.chip.queues)
        entry_bytes = 12 + queue.header_bytes
        entries = bytearray(dice.choice((b"", bytes(entry_bytes), dice.randbytes(dice.randrange(3 * entry_bytes)))))
        for _ in range(dice.randrange(4) if entries else 0):
            entries[dice.randrange(len(entries))] = dice.choice((0, 1, 2, 16, 255))
        payload = [dice.randbytes(dice.choice((0, 1, 16, 600))) for _ in range(dice.choice((0, 0, 1, 3)))]
        before = queue.state()

        bell = Doorbell(session.chip.number, queue.number, queue.generation, 1, dice.randrange(-1, 9), bytes(entries))
        taken = session.host.message(bell, payload, 0)

        assert taken or queue.state() == before
        session.complete(dice.getrandbits(32), 0)
        session.flush()
        if session.chip.status & Status.DEVICE_NEEDS_RESET or queue.outstanding > queue.size // 2:
            start_virtio(session.chip, 0, 0)
