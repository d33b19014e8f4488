"""Payload of batches: pieces in shared frames."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iovirt_dist.errors import DecodeError
from iovirt_dist.wire.payload import (
    JOIN_BYTES,
    SHARED_FRAME_BYTES,
    cut_payload,
    holds_whole,
    join_pieces,
    split_payload,
)


def test_small_pieces_share_a_frame_and_large_ones_are_not_copied() -> None:
    """In their order."""
    large = bytes(JOIN_BYTES + 1)

    frames = join_pieces([b"a", b"", b"b", large, b"c"])

    assert frames == [b"ab", large, b"c"]
    assert frames[1] is large


def test_shared_frame_has_a_bound() -> None:
    """What exceeds it goes on in the next one."""
    count = SHARED_FRAME_BYTES // JOIN_BYTES

    frames = join_pieces([bytes(JOIN_BYTES)] * (count + 1))

    assert [len(frame) for frame in frames] == [SHARED_FRAME_BYTES, JOIN_BYTES]


def test_frames_are_cut_into_rows_and_not_copied() -> None:
    """A frame may hold parts of two rows, a row parts of two frames, or nothing."""
    first = bytearray(b"aabb")

    rows = cut_payload([first, b"cccc", b"d"], [2, 0, 4, 3])
    first[0:1] = b"x"

    assert [[bytes(frame) for frame in row] for row in rows] == [[b"xa"], [], [b"bb", b"cc"], [b"cc", b"d"]]


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_pieces_round_trip(pieces: list[bytes]) -> None:
    """Whatever their lengths."""
    frames = join_pieces(pieces)
    lengths = [len(piece) for piece in pieces]

    assert [bytes(piece) for piece in split_payload(frames, lengths)] == pieces


def test_split_payload_copies_nothing() -> None:
    """Pieces are views of the frame."""
    frame = bytearray(b"aabb")

    pieces = split_payload([frame], [2, 2])
    frame[2:] = b"xy"

    assert [bytes(piece) for piece in pieces] == [b"aa", b"xy"]


@pytest.mark.parametrize(
    ("frames", "lengths"),
    [([b"a"], [2]), ([b"a", b"b"], [2]), ([], [1]), ([b"ab"], [1]), ([b"a", b"b"], [1]), ([b""], []), ([b"a"], [0])],
)
def test_pieces_that_are_not_there_or_too_few_are_refused(frames: list[bytes], lengths: list[int]) -> None:
    """Less or more payload than the lengths say, or a piece in two frames."""
    with pytest.raises(DecodeError, match="payload-frames"):
        split_payload(frames, lengths)


@pytest.mark.parametrize(
    ("frames", "lengths", "whole"),
    [
        ([], [], True),
        ([], [0, 0], True),
        ([], [1], False),
        ([b"abc"], [1, 0, 2], True),
        ([b"abc"], [1, 1], False),
        ([b"abc"], [4], False),
        ([b""], [0], False),
        ([b"ab", b"cdef"], [2, 2, 2], True),
        ([b"abc", b"def"], [2, 2, 2], False),
        ([b"abcdef", b""], [2, 2, 2], False),
        ([b"ab", b"c"], [2, 1], False),
        ([b"ab", b"cd"], [2, 2, 0], False),
    ],
)
def test_frames_are_seen_to_hold_whole_pieces(frames: list[bytes], lengths: list[int], whole: bool) -> None:
    """One frame, or pieces of one length; False where only going by piece could tell."""
    assert holds_whole(frames, lengths) is whole


@given(st.lists(st.binary(max_size=4), max_size=4), st.lists(st.integers(0, 4), max_size=6))
def test_frames_that_seem_to_hold_whole_pieces_do(frames: list[bytes], lengths: list[int]) -> None:
    """Splitting them agrees."""
    seen = holds_whole(frames, lengths)
    try:
        split_payload(frames, lengths)
        agrees = True
    except DecodeError:
        agrees = False

    assert agrees or not seen
