"""The decoder against everything: round trips over full ranges, and twenty thousand hostile inputs."""

from __future__ import annotations

import contextlib
import tracemalloc
import types
import typing
from random import Random
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iovirt_dist.errors import DecodeError
from iovirt_dist.wire.codec import MAX_ENVELOPE_BYTES, decode, encode
from iovirt_dist.wire.messages import (
    MAX_TRAP_ELEMENTS,
    Bye,
    Complete,
    Envelope,
    GuestState,
    Hello,
    Interrupt,
    Message,
    Ping,
    Pong,
    Power,
    PowerAction,
    PrefetchRead,
    Refuse,
    Report,
    Role,
    Submit,
    Trap,
    TrapKind,
    TrapReply,
    UnitsChanged,
    Welcome,
)
from iovirt_dist.wire.queue_messages import (
    ArmQueue,
    Completions,
    DisarmQueue,
    Doorbell,
    QueueBroken,
    QueueInterrupt,
)
from iovirt_dist.wire.syscall_messages import (
    Disposition,
    EffectKind,
    InterceptCalls,
    ProgramStarted,
    SystemCall,
    SystemCallReply,
)

U8 = st.integers(0, 0xFF)
U16 = st.integers(0, 0xFFFF)
U32 = st.integers(0, (1 << 32) - 1)
U63 = st.integers(0, (1 << 63) - 1)
U64 = st.integers(0, (1 << 64) - 1)
NAME = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", fullmatch=True)
NAMES = st.lists(NAME, max_size=32).map(tuple)
TEXT = st.text(max_size=256)
BLOB = st.binary(min_size=1, max_size=2000) | st.just(bytes(1 << 16))
PRIVILEGE = st.integers(0, 3)

MESSAGES: dict[type[Message], st.SearchStrategy[Message]] = {
    Hello: st.builds(Hello, st.sampled_from(Role), NAME, U16, U63, U63, NAMES),
    Welcome: st.builds(Welcome, NAME, U63, st.booleans(), st.integers(1, 65536), st.integers(10, 600_000), NAMES),
    Refuse: st.builds(Refuse, NAME, TEXT),
    Ping: st.builds(Ping, U63),
    UnitsChanged: st.builds(UnitsChanged),
    Pong: st.builds(Pong, U63),
    Bye: st.builds(Bye, TEXT),
    Trap: st.builds(
        Trap,
        U63,
        st.sampled_from(TrapKind),
        U64,
        U8,
        st.integers(1, MAX_TRAP_ELEMENTS),
        U64,
        PRIVILEGE,
        PRIVILEGE,
        st.booleans(),
    ),
    TrapReply: st.builds(TrapReply, U63, U64, st.integers(-1, 63), U64, st.lists(U63, max_size=16).map(tuple)),
    Interrupt: st.builds(Interrupt, U8, U63),
    PrefetchRead: st.builds(PrefetchRead, st.integers(1, 65536)),
    Power: st.builds(Power, st.sampled_from(PowerAction), TEXT),
    Report: st.builds(
        Report, st.sampled_from(GuestState), TEXT, st.lists(U63, max_size=8).map(tuple), U63, U63, U63, U63
    ),
    ArmQueue: st.builds(ArmQueue, U16, U16, U32, U64, st.integers(1, 32768), U64, U64, U64, U64, st.integers(0, 64)),
    DisarmQueue: st.builds(DisarmQueue, U16, U16, U32),
    Doorbell: st.builds(Doorbell, U16, U16, U32, U32, st.integers(-1, (1 << 63) - 1), st.just(b"") | BLOB),
    Completions: st.builds(Completions, U16, U16, U32, st.booleans(), BLOB, st.lists(U63, max_size=16).map(tuple)),
    QueueInterrupt: st.builds(QueueInterrupt, U16, U16, U32),
    QueueBroken: st.builds(QueueBroken, U16, U16, U32, NAME, TEXT),
    InterceptCalls: st.builds(InterceptCalls, NAME, st.lists(U32, max_size=1024).map(tuple)),
    ProgramStarted: st.builds(ProgramStarted, U64, TEXT, U64, U64),
    SystemCall: st.builds(
        SystemCall,
        U63,
        U64,
        U32,
        st.lists(U64, max_size=6).map(tuple),
        st.lists(st.integers(-2, 1 << 30), max_size=6).map(tuple),
    ),
    SystemCallReply: st.builds(
        SystemCallReply,
        U63,
        st.sampled_from(Disposition),
        st.integers(-(1 << 63), (1 << 63) - 1),
        st.lists(U32, max_size=6).map(tuple),
        st.lists(st.tuples(st.sampled_from(EffectKind), U64, U64, U64), max_size=64).map(tuple),
        st.lists(U63, max_size=16).map(tuple),
    ),
    Submit: st.builds(Submit, BLOB),
    Complete: st.builds(Complete, U63, BLOB),
}


def test_every_declared_message_is_covered() -> None:
    """A message added later must be added here."""
    declared: set[Any] = set()
    pending: list[Any] = [Message]
    while pending:
        kind = pending.pop()
        inner = typing.get_args(kind) if isinstance(kind, types.UnionType) else ()
        pending += inner
        declared |= set() if inner else {kind}
    assert declared == set(MESSAGES)


@pytest.mark.parametrize("kind", list(MESSAGES))
def test_message_decoded_equals_what_was_encoded(kind: type[Message]) -> None:
    """Over the full range of every field, and of the envelope."""

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(body=MESSAGES[kind], numbers=st.tuples(U63, U63, U63, U63))
    def check(body: Message, numbers: tuple[int, int, int, int]) -> None:
        frames = encode(*numbers, body)
        envelope, payload = decode(frames)
        assert envelope == Envelope(*numbers, body)
        assert type(envelope.body) is kind
        assert (list(payload), len(frames)) == ([], 1)

    check()


SEEDS: list[Message] = [
    Hello(Role.GUEST, "alice", 1, 5, 0, ("batch", "trace")),
    Welcome("hv", 5, True, 64, 2000, ("batch",)),
    Refuse("fenced", "5, now 6"),
    Ping(1),
    Bye("done"),
    ArmQueue(0, 0, 1, 0x1000_1050, 256, 0x8000_0000, 0x8000_1000, 0x8000_2000, 1 << 32, 16),
    Doorbell(0, 0, 1, 1, 5, bytes(28)),
    Completions(0, 0, 1, True, bytes(8), (9, 3)),
    SystemCall(7, 1, 3, (3, 0x1000, 4096), (4096,)),
    SystemCallReply(7, Disposition.DONE, 4096, (4096,), ((EffectKind.MAP, 0x1000, 0x2000, 3),), (9, 3)),
    Trap(1, TrapKind.PORT_OUT, 0x1F0, 2, 256, 0, 0, 3, True),
    TrapReply(1, 0xFF, -1, 0),
    Interrupt(0, 3),
    Report(GuestState.HALTED, "hlt", (0, 1, 2, 3, 4, 5), 1, 2, 3, 4),
    Submit(bytes(40)),
    Complete(1, bytes(32)),
]
HEADERS = [
    b"\xdd\xff\xff\xff\xff",
    b"\xdc\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
]
LEAVES: list[Any] = [
    None, True, False, -1, 0, 1, 255, 256, 1 << 31, 1 << 63, (1 << 64) - 1, -(1 << 63), 0.5, float("nan"), "",
    "x" * 600, "\udc80", b"", bytes(1 << 16), [], [[]], {}, {1: 2}, msgpack.ExtType(1, b"x"), msgpack.Timestamp(1, 1),
]  # fmt: skip


def damaged(random: Random) -> bytes:
    """One hostile envelope frame, near enough to a real one to get past the first checks."""
    frame = bytes(encode(random.getrandbits(63), 1, 1, 1, random.choice(SEEDS))[0])
    kind = random.randrange(7)
    position = random.randrange(len(frame))
    if kind == 0:  # flipped bits
        return frame[:position] + bytes([frame[position] ^ (1 << random.randrange(8))]) + frame[position + 1 :]
    if kind == 1:  # cut short
        return frame[:position]
    if kind == 2:  # a header that promises gigabytes
        return frame[:position] + random.choice(HEADERS) + frame[position:]
    if kind == 3:  # nested array headers to the brim
        return frame[:position] + b"\x91" * (MAX_ENVELOPE_BYTES - len(frame))
    if kind == 4:  # many small containers
        return frame[:position] + random.choice([b"\xdc\x40\x00" + b"\x80" * 0x4000, b"\x9f" + b"\x90" * 15])
    if kind == 5:  # random bytes
        return random.randbytes(random.randrange(64))
    return packed_with_a_wrong_leaf(random, frame)


def packed_with_a_wrong_leaf(random: Random, frame: bytes) -> bytes:
    """A real message with one field replaced, dropped or added."""
    value = msgpack.unpackb(frame)
    target = random.choice([value, value[4], value[4]])
    position = random.randrange(len(target))
    action = random.randrange(3)
    if action == 0:
        target[position] = random.choice(LEAVES)
    elif action == 1:
        del target[position]
    else:
        target.insert(position, random.choice(LEAVES))
    return bytes(msgpack.packb(value, unicode_errors="surrogatepass"))


def test_hostile_input_is_a_decode_error_or_a_valid_message() -> None:
    """Twenty thousand inputs: no other exception, and whatever decodes is within its declaration."""
    random = Random(20261)
    outcomes = {"message": 0}
    longest = 0
    for _ in range(20_000):
        frames = [damaged(random), *random.choice([[], [], [b"x"], [b""] * 3])]
        try:
            envelope, _ = decode(frames)
        except DecodeError as error:
            outcomes[error.reason] = outcomes.get(error.reason, 0) + 1
            longest = max(longest, len(str(error)))
        else:
            outcomes["message"] += 1
            again = msgspec.convert(
                msgspec.to_builtins(envelope, builtin_types=(bytes,)), Envelope, builtin_types=(bytes,)
            )
            assert again == envelope
    assert set(outcomes) == {"message", "not-msgpack", "bad-message", "unexpected-payload"}
    assert min(outcomes.values()) > 100, outcomes
    assert longest < 300


def test_hostile_input_allocates_little() -> None:
    """No input makes the decoder take much more memory than the input itself."""
    random = Random(20262)
    inputs = [damaged(random) for _ in range(1500)]
    inputs += [
        b"\x91" * MAX_ENVELOPE_BYTES,
        b"\xdc\xff\xff" + b"\x80" * 65535,
        b"\x95\x01\x01\x01\x01" + b"\xdd\x00\x01\x00\x00",
    ]
    tracemalloc.start()
    try:
        for frame in inputs:
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            with contextlib.suppress(DecodeError):
                decode([frame])
            _, peak = tracemalloc.get_traced_memory()
            assert peak - before < 256 << 10, frame[:40]
    finally:
        tracemalloc.stop()
