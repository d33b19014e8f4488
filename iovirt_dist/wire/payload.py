"""Payload of a batch: the data of its entries in their order, in frames that each hold the data of whole entries.

Small pieces share a frame, because each frame costs as much as copying some ten kilobytes; large ones have
their own and are not copied.
"""

from __future__ import annotations

from collections.abc import Sequence

from iovirt_dist.errors import DecodeError
from iovirt_dist.wire.codec import Buffer

JOIN_BYTES = 16384
"""Pieces up to this length share frames."""
SHARED_FRAME_BYTES = 1 << 20
"""Most bytes of a shared frame."""


def split_payload(frames: Sequence[Buffer], lengths: Sequence[int]) -> list[Buffer]:
    """Return the pieces of a batch's payload, without copying.

    Args:
        frames: As received.
        lengths: Of the pieces, in bytes; a piece of length 0 is empty and in no frame.

    Raises:
        DecodeError: Reason ``payload-frames``.
    """
    pieces: list[Buffer] = []
    following = iter(frames)
    frame = memoryview(b"")
    at = size = 0
    for length in lengths:
        if not length:
            pieces.append(b"")
            continue
        if at == size:
            frame, at = memoryview(next(following, b"")), 0
            size = len(frame)
        end = at + length
        if end > size:
            raise DecodeError("payload-frames", "less payload than the entries say, or an entry's data in two frames")
        pieces.append(frame[at:end])
        at = end
    if at != size or next(following, None) is not None:
        raise DecodeError("payload-frames", "more payload than the entries say")
    return pieces


def holds_whole(frames: Sequence[Buffer], lengths: Sequence[int]) -> bool:
    """Whether frames hold pieces of these lengths, whole ones in each, as far as that is seen without going by piece.

    Args:
        frames: As received.
        lengths: Of the pieces, in bytes; a piece of length 0 is empty and in no frame.

    Returns:
        False may also mean that only `split_payload` can tell.
    """
    if not frames:
        return not any(lengths)
    total = sum(lengths)
    if len(frames) == 1:
        return 0 < len(frames[0]) == total
    size = lengths[0] if lengths else 0
    sizes = [len(frame) for frame in frames]
    if sum(sizes) != total or not size or lengths.count(size) < len(lengths):
        return False
    return all(length and not length % size for length in sizes)


def cut_payload(frames: Sequence[Buffer], sizes: Sequence[int]) -> list[list[Buffer]]:
    """Divide frames into rows, without copying; a frame that two rows share is cut.

    Args:
        frames: As received, as many bytes as the rows have together.
        sizes: Bytes of each row.
    """
    rows: list[list[Buffer]] = []
    following = iter(frames)
    frame = memoryview(b"")
    at = end = 0
    for size in sizes:
        row: list[Buffer] = []
        missing = size
        while missing:
            if at == end:
                frame, at = memoryview(next(following)), 0
                end = len(frame)
            taken = min(missing, end - at)
            row.append(frame[at : at + taken])
            at, missing = at + taken, missing - taken
        rows.append(row)
    return rows


def join_pieces(pieces: Sequence[Buffer]) -> list[Buffer]:
    """Return the frames for pieces of payload, none of them empty."""
    frames: list[Buffer] = []
    shared: list[Buffer] = []
    shared_bytes = 0
    for piece in pieces:
        size = len(piece)
        if shared and (size > JOIN_BYTES or shared_bytes + size > SHARED_FRAME_BYTES):
            frames.append(shared[0] if len(shared) == 1 else b"".join(shared))
            shared, shared_bytes = [], 0
        if size > JOIN_BYTES:
            frames.append(piece)
        elif size:
            shared.append(piece)
            shared_bytes += size
    if shared:
        frames.append(shared[0] if len(shared) == 1 else b"".join(shared))
    return frames
