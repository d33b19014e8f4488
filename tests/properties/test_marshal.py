"""System calls with hostile registers, memory and replies: nothing is read or written that the program could not."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iovirt_dist.abi.registry import ABIS
from iovirt_dist.abi.table import MAX_BUFFER_BYTES, POINTERS, READ, WRITTEN, Abi
from iovirt_dist.guest.program.marshal import Gathered, Marshaller, scatter
from iovirt_dist.wire.codec import Buffer
from tests.properties.amount import PER_EXAMPLE, examples

EXAMPLES = examples(2000)
PAGE = 4096
PAGES = 8
BASE = 0x1_0000


class HostileMemory:
    """Eight pages of garbage of which each may be absent, read-only or writable; records what is touched."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.rights = [random.choice((0, 1, 3, 3)) for _ in range(PAGES)]
        self.content = bytearray(random.randbytes(PAGES * PAGE))
        for _ in range(64):  # pointers and lengths that mean something, zero bytes that end strings
            at = random.randrange(0, len(self.content) - 8, 4)
            self.content[at : at + 8] = hostile_word(random).to_bytes(8, "little")
        self.writes: list[tuple[int, int]] = []

    def accessible(self, address: int, length: int, *, write: bool) -> int:
        """By page."""
        wanted = 2 if write else 1
        at = address
        while at < address + length:
            page = (at - BASE) // PAGE
            if not 0 <= page < PAGES or not self.rights[page] & wanted:
                return at - address
            at = (at // PAGE + 1) * PAGE
        return length

    def read(self, address: int, length: int) -> bytes:
        """Only what may be read."""
        assert self.accessible(address, length, write=False) == length
        return bytes(self.content[address - BASE : address - BASE + length])

    def write(self, address: int, data: Buffer) -> None:
        """Record."""
        assert len(data) > 0
        self.writes.append((address, len(data)))


def hostile_word(random: Random) -> int:
    """Addresses in and around the pages, small numbers, and the ends of the ranges."""
    kind = random.randrange(6)
    if kind < 3:
        return BASE + random.randrange(-16, PAGES * PAGE + 16)
    if kind == 3:
        return random.randrange(0, 2 * PAGE)
    if kind == 4:
        return random.choice((0, 1, 0x7FFF_FFFF, 0xFFFF_FFFF, (1 << 63) - 1, (1 << 64) - 1))
    return random.getrandbits(64)


@pytest.mark.parametrize("name", sorted(ABIS))
@settings(max_examples=EXAMPLES, deadline=None)
@given(seed=st.integers(0, (1 << 32) - 1))
def test_gather_and_scatter_stay_inside_the_programs_memory(name: str, seed: int) -> None:
    """Each input: a call of the table or none, hostile registers, then a hostile reply."""
    random = Random(seed)
    abi = ABIS[name]
    marshaller = Marshaller(abi)
    numbers = list(abi.calls)
    mask = (1 << 8 * abi.word_bytes) - 1
    memory = HostileMemory(random)
    for _ in range(PER_EXAMPLE):
        number = random.choice(numbers)
        arguments = tuple(hostile_word(random) & mask for _ in range(6))
        gathered = marshaller.gather(number, arguments, memory)
        check(abi, number, gathered, memory)
        outputs = tuple(random.choice((0, 1, 100, 1 << 31, b)) for b in map(abs, gathered.buffers))
        scatter(gathered, outputs, random.randbytes(random.choice((0, 1, 50, 5000))), memory)
        allowed = {(span.address, span.length) for spans in gathered.targets for span in spans}
        assert all(any(a == at and size <= room for at, room in allowed) for a, size in memory.writes)
        memory.writes.clear()


def check(abi: Abi, number: int, gathered: Gathered, memory: HostileMemory) -> None:
    """What `SystemCall` promises: entries for all pointers, data for those that are read, targets for the others."""
    signature = abi.calls[number].signature(gathered.arguments)
    pointers = [argument for argument in signature if argument.kind in POINTERS]
    assert len(gathered.buffers) == len(gathered.targets) == len(pointers)
    assert all(-2 <= length <= MAX_BUFFER_BYTES for length in gathered.buffers)
    sent = sum(max(0, b) for b, p in zip(gathered.buffers, pointers, strict=True) if p.kind in READ)
    assert sent == len(gathered.data)
    for length, argument, spans in zip(gathered.buffers, pointers, gathered.targets, strict=True):
        room = sum(span.length for span in spans)
        assert room == (max(0, length) if argument.kind in WRITTEN else 0)
        assert all(memory.accessible(span.address, span.length, write=True) == span.length for span in spans)
