"""Guest memory as a front end shares it (section "Memory access"): a table of regions, each a part of a file.

A region has two addresses: the guest's, which descriptors contain, and the front end's own, which only the addresses of
rings are given in. The table comes from outside: regions that overlap in either, wrap round, or are not in the file
that they claim are refused, and then the table stays as it was. Nothing outside the regions can be reached.

What a region maps stays mapped as long as somebody has a view of it; but a ring goes by addresses, so one whose memory
leaves the table breaks. Adjacent regions are separate pieces of memory: a buffer in both is refused.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Protocol

from iovirt_dist.errors import PeerError
from iovirt_dist.gateway.vhost_user.messages import Region
from iovirt_dist.virtio.memory import MemoryRangeError

MAX_SLOTS: Final = 32
"""Regions that the table holds if the front end adds them one by one."""

_ADDRESSES: Final = 1 << 64


class MappingError(PeerError):
    """A descriptor is not what the front end says it is.

    Reasons: ``file-kind``, ``file-short``, ``map-failed``, ``memory-none`` and ``event-kind``.
    """


class RegionError(PeerError):
    """A table of regions cannot be.

    Reasons: ``region-empty``, ``region-wraps``, ``region-overlap``, ``region-slots`` and ``region-unknown``.
    """


class Mapper(Protocol):
    """What the core needs of descriptors; they stay the caller's, who may close them at once."""

    def map(self, file: int, offset: int, length: int) -> memoryview:
        """Map a part of a file, to be read and written; it stays mapped while there are views of it.

        Args:
            file: Descriptor.
            offset: Any number of bytes; not only whole pages.
            length: Bytes, above 0.

        Raises:
            MappingError: It is not wholly in the file, or this is no file that can be mapped.
        """
        ...

    def create(self, length: int) -> tuple[int, memoryview]:
        """Make memory of zeroes that can be shared.

        Returns:
            A descriptor, which is the caller's, and the memory.

        Raises:
            MappingError: Reason ``memory-none``.
        """
        ...

    def check_event(self, file: int) -> None:
        """Check that a descriptor can tell of events: an eventfd, a pipe, or a socket.

        Raises:
            MappingError: Reason ``event-kind``.
        """
        ...


class _Piece(NamedTuple):
    """A region with its memory."""

    region: Region
    data: memoryview


_NOTHING: Final = memoryview(b"")


class RegionMemory:
    """The regions of one front end; `virtio.memory.GuestMemory`.

    Args:
        mapper: Maps the files.
        slots: Most regions.
    """

    __slots__ = (
        "_by_guest",
        "_by_user",
        "_data",
        "_guest_starts",
        "_mapper",
        "_size",
        "_slots",
        "_start",
        "_user_starts",
    )

    def __init__(self, mapper: Mapper, slots: int = MAX_SLOTS) -> None:
        self._mapper = mapper
        self._slots = slots
        self._install([])

    # --- the table

    @property
    def regions(self) -> tuple[Region, ...]:
        """The table, in the order of guest addresses."""
        return tuple(piece.region for piece in self._by_guest)

    def set_table(self, regions: Sequence[Region], files: Sequence[int]) -> None:
        """Replace the table.

        Args:
            regions: Of the new one.
            files: A descriptor for each.

        Raises:
            RegionError: The table cannot be; the old one stays.
            MappingError: A file cannot be mapped; the old one stays.
        """
        _check(regions, self._slots)
        self._install([self._piece(region, file) for region, file in zip(regions, files, strict=True)])

    def add(self, region: Region, file: int) -> None:
        """Add a region.

        Raises:
            RegionError: The table cannot be; the old one stays.
            MappingError: The file cannot be mapped; the old one stays.
        """
        _check([*self.regions, region], self._slots)
        self._install([*self._by_guest, self._piece(region, file)])

    def remove(self, region: Region) -> None:
        """Remove a region, known by its addresses and size.

        Raises:
            RegionError: Reason ``region-unknown``.
        """
        kept = [piece for piece in self._by_guest if piece.region[:3] != region[:3]]
        if len(kept) == len(self._by_guest):
            raise RegionError("region-unknown", f"{region.size_bytes} bytes at {region.guest_address:#x}")
        self._install(kept)

    def clear(self) -> None:
        """Empty the table."""
        self._install([])

    def translate_user(self, address: int, length: int) -> int:
        """Return the guest physical address of something that the front end has in its own memory.

        Raises:
            MemoryRangeError: It is not wholly in one region.
        """
        at = bisect_right(self._user_starts, address) - 1
        if at >= 0 and length >= 0:
            guest_address, size_bytes, user_address, _ = self._by_user[at].region
            if address + length <= user_address + size_bytes:
                return guest_address + address - user_address
        raise MemoryRangeError("not wholly in a region", f"{length} bytes at the front end's {address:#x}")

    def _piece(self, region: Region, file: int) -> _Piece:
        return _Piece(region, self._mapper.map(file, region.file_offset, region.size_bytes))

    def _install(self, pieces: Iterable[_Piece]) -> None:
        self._by_guest = sorted(pieces, key=lambda piece: piece.region.guest_address)
        self._by_user = sorted(self._by_guest, key=lambda piece: piece.region.user_address)
        self._guest_starts = [piece.region.guest_address for piece in self._by_guest]
        self._user_starts = [piece.region.user_address for piece in self._by_user]
        self._start, self._size, self._data = 0, -1, _NOTHING

    # --- its memory. The region of the access before is tried first: most guests have one that matters.

    def read(self, address: int, length: int) -> bytes:
        """Return a copy.

        Raises:
            MemoryRangeError: As `GuestMemory` says.
        """
        start = address - self._start
        if start < 0 or length < 0 or start + length > self._size:
            return self._find(address, length).tobytes()
        return self._data[start : start + length].tobytes()

    def view(self, address: int, length: int) -> memoryview:
        """Return the memory itself; a change to either is a change to both.

        Raises:
            MemoryRangeError: As `GuestMemory` says.
        """
        start = address - self._start
        if start < 0 or length < 0 or start + length > self._size:
            return self._find(address, length)
        return self._data[start : start + length]

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Write.

        Raises:
            MemoryRangeError: As `GuestMemory` says; nothing is written then.
        """
        start = address - self._start
        end = start + len(data)
        if start >= 0 and end <= self._size:
            self._data[start:end] = data
        else:
            self._find(address, len(data))[:] = data

    def _find(self, address: int, length: int) -> memoryview:
        """Look in all regions, and try the one found first from now on."""
        at = bisect_right(self._guest_starts, address) - 1
        if at >= 0 and length >= 0:
            region, data = self._by_guest[at]
            start = address - region.guest_address
            if start + length <= region.size_bytes:
                self._start, self._size, self._data = region.guest_address, region.size_bytes, data
                return data[start : start + length]
        raise MemoryRangeError("not wholly in a region", f"{length} bytes at {address:#x}")


def _check(regions: Sequence[Region], slots: int) -> None:
    """Check that regions can be a table.

    Raises:
        RegionError: They cannot.
    """
    if len(regions) > slots:
        raise RegionError("region-slots", f"{len(regions)} regions, {slots} slots")
    for region in regions:
        if not region.size_bytes:
            raise RegionError("region-empty", f"at {region.guest_address:#x}")
        if max(region.guest_address, region.user_address, region.file_offset) + region.size_bytes > _ADDRESSES:
            raise RegionError("region-wraps", f"{region.size_bytes} bytes at {region.guest_address:#x}")
    _check_apart([(region.guest_address, region.size_bytes) for region in regions])
    _check_apart([(region.user_address, region.size_bytes) for region in regions])


def _check_apart(ranges: Sequence[tuple[int, int]]) -> None:
    end = 0
    for start, size in sorted(ranges):
        if start < end:
            raise RegionError("region-overlap", f"{start:#x} lies below {end:#x}")
        end = start + size
