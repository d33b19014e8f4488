"""Packed entries of the controller protocol."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iovirt_dist.errors import DecodeError
from iovirt_dist.ids import RequestId
from iovirt_dist.wire.commands import (
    COMMAND_BYTES,
    COMPLETION_BYTES,
    MAX_BATCH,
    Command,
    Completion,
    Opcode,
    Status,
    UnitIdentity,
    command_data,
    completion_data,
    pack_commands,
    pack_completions,
    unpack_commands,
    unpack_completions,
)

u32, u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
ids = st.builds(RequestId, u32, u32, u64).map(RequestId.pack)
commands = st.lists(st.builds(Command, ids, st.sampled_from(Opcode), u32, u64, u64), min_size=1, max_size=20)
completions = st.lists(st.builds(Completion, ids, st.sampled_from(Status), u32, u64), min_size=1, max_size=20)

READ = Command(RequestId(1, 2, 3).pack(), Opcode.READ, 4, 5, 6)
DONE = Completion(RequestId(1, 2, 3).pack(), Status.OK)


@given(commands)
def test_commands_round_trip(batch: list[Command]) -> None:
    """Any field value within its width."""
    packed = pack_commands(batch)

    assert len(packed) == COMMAND_BYTES * len(batch)
    assert unpack_commands(packed) == batch


@given(completions)
def test_completions_round_trip(batch: list[Completion]) -> None:
    """Any field value within its width."""
    packed = pack_completions(batch)

    assert len(packed) == COMPLETION_BYTES * len(batch)
    assert unpack_completions(packed) == batch


@given(st.integers(0, 2**64 - 1), u32, st.booleans(), st.text(st.characters(codec="ascii", exclude_characters="\0")))
def test_identity_round_trips_but_for_what_is_beyond_20_characters(
    size: int, block: int, read_only: bool, serial: str
) -> None:
    """Serial numbers of ATA have 20."""
    identity = UnitIdentity(size, block, read_only, serial)

    assert UnitIdentity.unpack(identity.pack()) == identity._replace(serial=serial[:20])


def test_entries_are_little_endian_at_their_documented_places() -> None:
    """The layout is a promise to other implementations."""
    assert pack_commands([READ]).hex() == (
        "01000000" "02000000" "0300000000000000" "02" "00" "0000" "04000000" "0500000000000000" "0600000000000000"
    )  # fmt: skip
    assert pack_completions([Completion(RequestId(1, 2, 3).pack(), Status.ABORTED, 4, 5)]).hex() == (
        "01000000" "02000000" "0300000000000000" "0800" "0000" "04000000" "0500000000000000"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "batch-size"),
        (pack_commands([READ])[:-1], "batch-size"),
        (pack_commands([READ]) * (MAX_BATCH + 1), "batch-size"),
        (pack_commands([READ])[:16] + b"\xee" + pack_commands([READ])[17:], "bad-opcode"),
        (pack_commands([READ])[:17] + b"\x01" + pack_commands([READ])[18:], "reserved-bits"),
        (pack_commands([READ])[:18] + b"\x01" + pack_commands([READ])[19:], "reserved-bits"),
        (pack_commands([READ, READ])[:-21] + b"\x01" + pack_commands([READ])[20:], "reserved-bits"),
    ],
)
def test_hostile_command_batch_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    """Nothing, a part, too much, unknown, and reserved bits of any entry."""
    with pytest.raises(DecodeError) as refused:
        unpack_commands(data)

    assert refused.value.reason == reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "batch-size"),
        (pack_completions([DONE]) + b"x", "batch-size"),
        (pack_completions([DONE]) * (MAX_BATCH + 1), "batch-size"),
        (pack_completions([DONE])[:16] + b"\xee\xee" + pack_completions([DONE])[18:], "bad-status"),
        (pack_completions([DONE])[:18] + b"\x01\x00" + pack_completions([DONE])[20:], "reserved-bits"),
        (pack_completions([DONE])[:19] + b"\x01" + pack_completions([DONE])[20:], "reserved-bits"),
    ],
)
def test_hostile_completion_batch_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    """The same for the way back."""
    with pytest.raises(DecodeError) as refused:
        unpack_completions(data)

    assert refused.value.reason == reason


def test_data_of_commands_is_taken_from_shared_frames() -> None:
    """Only commands that carry data out have a piece."""
    write = READ._replace(opcode=Opcode.WRITE, length=2)

    pieces = command_data([write, READ, write, write], [b"aabb", b"cc"])

    assert [bytes(piece) for piece in pieces] == [b"aa", b"bb", b"cc"]


def test_data_of_completions_stands_beside_them() -> None:
    """Empty where an entry has none."""
    pieces = completion_data([DONE._replace(length=2), DONE, DONE._replace(length=1)], [b"aab"])

    assert [bytes(piece) for piece in pieces] == [b"aa", b"", b"b"]


@pytest.mark.parametrize("payload", [[], [b"aa"], [b"aabb", b"cc"], [b"aab", b"b"], [b"aabbc"], [b"", b"aabb"]])
def test_payload_that_is_not_what_the_entries_say_is_refused(payload: list[bytes]) -> None:
    """Too little, too much, an entry in two frames, an empty frame."""
    entries = [DONE._replace(length=2), DONE._replace(length=2)]

    with pytest.raises(DecodeError, match="payload-frames"):
        completion_data(entries, payload)


@given(st.binary(max_size=200), st.lists(st.binary(max_size=50), max_size=3))
def test_any_bytes_are_a_batch_or_a_decode_error(data: bytes, payload: list[bytes]) -> None:
    """No other exception leaves the decoder, whatever the bytes."""
    with contextlib.suppress(DecodeError):
        assert b"".join(command_data(unpack_commands(data), payload)) == b"".join(payload)
    with contextlib.suppress(DecodeError):
        assert b"".join(completion_data(unpack_completions(data), payload)) == b"".join(payload)


@given(st.binary(max_size=60))
def test_any_bytes_are_an_identity_or_a_decode_error(data: bytes) -> None:
    """Thirty-three bytes with an ASCII serial, or nothing."""
    try:
        identity = UnitIdentity.unpack(data)
    except DecodeError:
        return
    assert len(data) == 33
    assert identity.serial.isascii()
