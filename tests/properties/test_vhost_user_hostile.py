"""Hostile front ends: honest ones whose messages and descriptors are damaged, in any order.

Whatever comes, the back end answers with actions; it reaches no memory outside the files that were mapped, keeps no
descriptor when the connection is gone, closes none twice, and serves the honest front end that comes next.
"""

from __future__ import annotations

import gc
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iovirt_dist.gateway.vhost_user.actions import CloseFds
from iovirt_dist.gateway.vhost_user.backend import Backend
from iovirt_dist.gateway.vhost_user.inflight import QueueLog, queue_bytes
from iovirt_dist.gateway.vhost_user.mapping import FileMapper
from iovirt_dist.gateway.vhost_user.messages import HEADER
from tests.properties.amount import PER_EXAMPLE, examples
from tests.properties.vhost_user_fuzzer import RARE, REASONS, Files, Fuzzer
from tests.unit.gateway.vhost_user.front_end import FACTS

EXAMPLES = examples(3000)

CONNECTIONS = PER_EXAMPLE // 20
"""Of one example: an input is a message, and an honest front end sends more than 20."""


@pytest.fixture(scope="module")
def files() -> Iterator[Files]:
    """Made once; what is sent are copies."""
    with ExitStack() as stack:
        yield Files(stack)


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(scope="module")
def descriptors(files: Files) -> int:
    """How many there are when nobody is connected."""
    return _descriptors()


@settings(max_examples=EXAMPLES, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_hostile_front_end_gets_nothing(files: Files, descriptors: int, seed: int) -> None:
    """Each kind of damage has its word; no descriptor is left; the honest front end behind it is served."""
    fuzzer = Fuzzer(files, seed)
    fuzzer.run(CONNECTIONS)

    assert set(fuzzer.backend.counts.rejects) <= REASONS
    if _descriptors() != descriptors:
        gc.collect()  # a mapping holds a descriptor of its own, and may be in a cycle with an error that told of it
    assert _descriptors() == descriptors


def test_fuzzer_reaches_every_reason(files: Files) -> None:
    """The damage is worth something: each check fires, and plenty of queues start."""
    fuzzer = Fuzzer(files, 20)
    fuzzer.run(1200)

    assert set(fuzzer.backend.counts.rejects) >= REASONS - RARE
    assert fuzzer.started > 200


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.integers(0, 2**32))
def test_hostile_list_of_requests_in_flight_is_harmless(seed: int) -> None:
    """Any bytes: what comes out are heads of the queue, each once, and the list can be used."""
    random = Random(seed)
    for _ in range(PER_EXAMPLE):
        size = random.choice((1, 2, 8, 16))
        data = bytearray(random.choice((random.randbytes, lambda n: bytes([1]) * n, bytes))(queue_bytes(size)))
        if random.random() < 0.9:
            used = random.randrange(1 << 16)
            struct.pack_into("=QHHHH", data, 0, 0, 1, size, random.choice((0, size - 1, size, 0xFFFF)), used)
        else:
            used = 0
        log = QueueLog(memoryview(data))

        found = log.resume((used + random.randrange(size + 2)) & 0xFFFF, size)

        assert len(set(found)) == len(found)
        assert set(found) <= set(range(size))
        log.taken(range(size))
        log.batch(range(size))
        log.published(0, range(size))
        assert log.resume(0, size) == []


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.integers(0, 2**32))
def test_hostile_bytes_are_no_message_or_one(seed: int) -> None:
    """Noise, with and without a header that fits."""
    random = Random(seed)
    backend = Backend(FileMapper())
    backend.describe(FACTS)
    for _ in range(PER_EXAMPLE):
        if not backend.connected:
            backend.connect()
        payload = random.randbytes(random.choice((0, 4, 8, 12, 40, 72)))
        header = HEADER.pack(random.randrange(45), random.choice((1, 9)), len(payload))
        for action in backend.receive(random.choice((b"", header, header)) + payload, []):
            assert not isinstance(action, CloseFds)
    assert set(backend.counts.rejects) <= REASONS
