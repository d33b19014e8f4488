r"""The file of a copy-on-write overlay: layout, header, and how a base is recognised.

    offset          length   what
    0               4096     header, never changed once the file has its name
    4096            4096     life: the boot (16 bytes) in which the recent map is valid
    8192            M        stable map: clusters whose data is on stable storage
    8192 + M        M        recent map: those, and what was written since
    8192 + 2 M      size     data, every byte at its offset in the disk; sparse

M is a bit for each 4 KiB cluster, in whole blocks of 4 KiB. A cluster whose bit is set is in the overlay (a hole there
is zeroes: it was discarded), any other is as in the base. Integers are little-endian. The header:

    offset  type      field
    0       8 bytes   magic "iovcow\r\n": a transfer as text would change it
    8       u32       version: 1
    12      u32       bytes of a cluster: 4096
    16      u64       bytes of the disk, which are those of its base
    24      32 bytes  fingerprint of the base
    56      u16, n    path of the base's image when the overlay was made: for messages, it may be moved
    4092    u32       CRC-32 (zlib) of all before it

Two maps, as a disk must come through two kinds of crash. After a power cut only the stable map counts: it is written
behind a sync of the data, so that a cluster is never half the base's and half garbage. After the end of the process
the operating system still holds all that was written, and the disk must not go back in time under a guest that runs
on: the recent map, written with each write, holds if the machine is in the same boot (boot_id, random(4)).
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from iovirt_dist.controllers.block.cluster_map import CLUSTER_BYTES, map_bytes
from iovirt_dist.controllers.block.extents import BLOCK_BYTES
from iovirt_dist.controllers.block.storage import Storage
from iovirt_dist.errors import ImageError

MAGIC: Final = b"iovcow\r\n"
VERSION: Final = 1
HEADER_BYTES: Final = 4096
LIFE_OFFSET: Final = HEADER_BYTES
LIFE_BYTES: Final = 16
STABLE_MAP_OFFSET: Final = 8192

MAX_OVERLAY_BYTES: Final = 1 << 40
"""Largest disk of an overlay: its map takes 32 MiB of memory."""

SAMPLES: Final = 64
"""Clusters of the base that its fingerprint looks at."""

NO_LIFE: Final = bytes(LIFE_BYTES)
"""The recent map is not valid."""

_FIELDS: Final = struct.Struct("<8sIIQ32sH")
_CHECKSUM: Final = struct.Struct("<I")
_PATH_BYTES: Final = HEADER_BYTES - _FIELDS.size - _CHECKSUM.size


@dataclass(frozen=True, slots=True)
class OverlayHeader:
    """What an overlay says of itself.

    Attributes:
        size_bytes: Length of the disk.
        fingerprint: Of its base, 32 bytes.
        base: Path of the base's image when the overlay was made.
    """

    size_bytes: int
    fingerprint: bytes
    base: str

    def pack(self) -> bytes:
        """Return the header's 4096 bytes."""
        path = self.base.encode(errors="surrogateescape")[:_PATH_BYTES]
        fields = _FIELDS.pack(MAGIC, VERSION, CLUSTER_BYTES, self.size_bytes, self.fingerprint, len(path))
        content = (fields + path).ljust(HEADER_BYTES - _CHECKSUM.size, b"\0")
        return content + _CHECKSUM.pack(zlib.crc32(content))

    @classmethod
    def unpack(cls, data: bytes, where: str) -> OverlayHeader:
        """Decode a header.

        Args:
            data: The file's first 4096 bytes.
            where: The file, for messages.

        Raises:
            ImageError: It is no overlay, damaged, or of a version that this program does not know.
        """
        if data[: len(MAGIC)] != MAGIC:
            raise ImageError("is no overlay", where, "move it away")
        content, (checksum,) = data[: -_CHECKSUM.size], _CHECKSUM.unpack(data[-_CHECKSUM.size :])
        if len(data) != HEADER_BYTES or zlib.crc32(content) != checksum:
            raise ImageError("the overlay's header is damaged", where, "restore it, or remove it to begin anew")
        _, version, cluster_bytes, size_bytes, fingerprint, path_bytes = _FIELDS.unpack_from(content)
        if (version, cluster_bytes) != (VERSION, CLUSTER_BYTES):
            what = f"the overlay is of version {version} with clusters of {cluster_bytes} bytes"
            raise ImageError(what, where, f"this program knows version {VERSION} with {CLUSTER_BYTES}")
        path = content[_FIELDS.size : _FIELDS.size + min(path_bytes, _PATH_BYTES)]
        return cls(size_bytes, fingerprint, path.decode(errors="replace"))

    def check_base(self, size_bytes: int, fingerprint: bytes, where: str) -> None:
        """Refuse a base that is not the one that the overlay was made for.

        Raises:
            ImageError: Size or fingerprint differ.
        """
        fix = f"it was made over {self.base}: bring that back, or remove the overlay (iovirt disk rm)"
        if size_bytes != self.size_bytes:
            what = f"the overlay is for a base of {self.size_bytes} bytes, the extent has {size_bytes}"
            raise ImageError(what, where, fix)
        if fingerprint != self.fingerprint:
            raise ImageError("the overlay's base has changed", where, fix)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are in the file of an overlay.

    Args:
        size_bytes: Length of the disk.
    """

    size_bytes: int

    @property
    def clusters(self) -> int:
        """Clusters of the disk; the last one may be shorter than the others."""
        return -(-self.size_bytes // CLUSTER_BYTES)

    @property
    def map_bytes(self) -> int:
        """Length of each map."""
        return map_bytes(self.clusters)

    @property
    def recent_map_offset(self) -> int:
        """Where the recent map begins."""
        return STABLE_MAP_OFFSET + self.map_bytes

    @property
    def data_offset(self) -> int:
        """Where the disk's first byte is."""
        return STABLE_MAP_OFFSET + 2 * self.map_bytes

    @property
    def file_bytes(self) -> int:
        """Length of the file: whole clusters."""
        return self.data_offset + self.clusters * CLUSTER_BYTES


def fingerprint(base: Storage, offset: int, length: int) -> bytes:
    """Return a fingerprint of a base: BLAKE2b over its length and 64 clusters, spread evenly, the last among them.

    Another image is noticed; a few bytes that were changed behind everybody's back need not be.

    Args:
        base: Holds it.
        offset: Where it begins.
        length: Bytes, a positive multiple of 512.
    """
    digest = hashlib.blake2b(length.to_bytes(8, "little"), digest_size=32)
    last = max(length - CLUSTER_BYTES, 0)
    places = {last * sample // (SAMPLES - 1) // BLOCK_BYTES * BLOCK_BYTES for sample in range(SAMPLES)}
    for place in sorted(places):
        digest.update(base.read_at(offset + place, min(CLUSTER_BYTES, length)))
    return digest.digest()


def boot_id(source: Path = Path("/proc/sys/kernel/random/boot_id")) -> bytes:
    """Return 16 bytes that name this boot of the machine; `NO_LIFE` if it does not tell."""
    try:
        return bytes.fromhex(source.read_text().strip().replace("-", "")).ljust(LIFE_BYTES, b"\0")[:LIFE_BYTES]
    except (OSError, ValueError):
        return NO_LIFE
