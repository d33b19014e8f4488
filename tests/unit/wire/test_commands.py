"""Packed entries of the controller protocol."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iovirt_dist.errors import DecodeError
from iovirt_dist.ids import RequestId
from iovirt_dist.wire.commands import (
    COMMAND_BYTES,
    COMPLETION_BYTES,
    MAX_BATCH,
    WITH_DATA_OUT,
    Command,
    Completion,
    Opcode,
    Status,
    UnitIdentity,
    pack_commands,
    pack_completions,
    unpack_commands,
    unpack_completions,
)

u32, u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
ids = st.builds(RequestId, u32, u32, u64)
commands = st.lists(st.builds(Command, ids, st.sampled_from(Opcode), u32, u64, u64), min_size=1, max_size=20)
completions = st.lists(st.builds(Completion, ids, st.sampled_from(Status), u32, u64), min_size=1, max_size=20)

READ = Command(RequestId(1, 2, 3), Opcode.READ, 4, 5, 6)
DONE = Completion(RequestId(1, 2, 3), Status.OK)


@given(commands)
def test_commands_round_trip(batch: list[Command]) -> None:
    """Any field value within its width."""
    packed = pack_commands(batch)

    assert len(packed) == COMMAND_BYTES * len(batch)
    assert unpack_commands(packed, sum(command.opcode in WITH_DATA_OUT for command in batch)) == batch


@given(completions)
def test_completions_round_trip(batch: list[Completion]) -> None:
    """Any field value within its width."""
    packed = pack_completions(batch)

    assert len(packed) == COMPLETION_BYTES * len(batch)
    assert unpack_completions(packed, [entry.length for entry in batch if entry.length]) == batch


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
    assert pack_completions([Completion(RequestId(1, 2, 3), Status.ABORTED, 4, 5)]).hex() == (
        "01000000" "02000000" "0300000000000000" "0800" "0000" "04000000" "0500000000000000"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("data", "payload", "reason"),
    [
        (b"", 0, "batch-size"),
        (pack_commands([READ])[:-1], 0, "batch-size"),
        (pack_commands([READ]) * (MAX_BATCH + 1), 0, "batch-size"),
        (pack_commands([READ])[:16] + b"\xee" + pack_commands([READ])[17:], 0, "bad-opcode"),
        (pack_commands([READ])[:17] + b"\x01" + pack_commands([READ])[18:], 0, "reserved-bits"),
        (pack_commands([READ])[:18] + b"\x01" + pack_commands([READ])[19:], 0, "reserved-bits"),
        (pack_commands([READ]), 1, "payload-count"),
        (pack_commands([READ._replace(opcode=Opcode.WRITE)]), 0, "payload-count"),
    ],
)
def test_hostile_command_batch_is_refused_with_its_reason(data: bytes, payload: int, reason: str) -> None:
    """Nothing, a part, too much, unknown, reserved, and payload that does not match."""
    with pytest.raises(DecodeError) as refused:
        unpack_commands(data, payload)

    assert refused.value.reason == reason


@pytest.mark.parametrize(
    ("data", "payload", "reason"),
    [
        (b"", [], "batch-size"),
        (pack_completions([DONE]) + b"x", [], "batch-size"),
        (pack_completions([DONE]) * (MAX_BATCH + 1), [], "batch-size"),
        (pack_completions([DONE])[:16] + b"\xee\xee" + pack_completions([DONE])[18:], [], "bad-status"),
        (pack_completions([DONE])[:18] + b"\x01\x00" + pack_completions([DONE])[20:], [], "reserved-bits"),
        (pack_completions([DONE]), [0], "payload-count"),
        (pack_completions([DONE._replace(length=3)]), [4], "payload-count"),
        (pack_completions([DONE._replace(length=3)]), [], "payload-count"),
    ],
)
def test_hostile_completion_batch_is_refused_with_its_reason(data: bytes, payload: list[int], reason: str) -> None:
    """The same for the way back; lengths must match their frames one by one."""
    with pytest.raises(DecodeError) as refused:
        unpack_completions(data, payload)

    assert refused.value.reason == reason


@given(st.binary(max_size=200), st.integers(0, 5))
def test_any_bytes_are_a_batch_or_a_decode_error(data: bytes, payload: int) -> None:
    """No other exception leaves the decoder, whatever the bytes."""
    for unpack in (lambda: unpack_commands(data, payload), lambda: unpack_completions(data, [1] * payload)):
        try:
            unpacked: list[Command] | list[Completion] = unpack()
        except DecodeError:
            continue
        assert unpacked


@given(st.binary(max_size=60))
def test_any_bytes_are_an_identity_or_a_decode_error(data: bytes) -> None:
    """Thirty-three bytes with an ASCII serial, or nothing."""
    try:
        identity = UnitIdentity.unpack(data)
    except DecodeError:
        return
    assert len(data) == 33
    assert identity.serial.isascii()
