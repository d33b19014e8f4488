"""A virtual disk: a byte range of a block controller's image."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, TypeVar


class Range(Protocol):
    """A part of an image with a name: `ExtentSpec`, and what a controller makes of it."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def name(self) -> str:
        """Unique in its controller."""
        ...

    @property
    def offset_bytes(self) -> int:
        """Start in the image."""
        ...

    @property
    def size_bytes(self) -> int | None:
        """Length, None for everything up to the image's end."""
        ...

    @property
    def read_only(self) -> bool:
        """Whether writes are refused."""
        ...


R = TypeVar("R", bound=Range)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtentSpec:
    """A byte range of a block controller's image, presented as one virtual disk.

    Attributes:
        name: Unique in its controller.
        offset_bytes: Start in the image, a multiple of 512.
        size_bytes: Length, a positive multiple of 512.
        read_only: Writes are refused by the controller.
    """

    name: str
    offset_bytes: int
    size_bytes: int
    read_only: bool

    @property
    def end_bytes(self) -> int:
        """First byte behind the extent."""
        return self.offset_bytes + self.size_bytes


def growing(extents: Sequence[R], configured_bytes: int | None, fixed: Collection[str] = ()) -> R | None:
    """Return the extent that follows the image's end if the image is longer than was configured, None if none does.

    It is the only one that reaches to the end, and can be written: nothing lies over it whose size is that of its base.

    Args:
        extents: All of a controller.
        configured_bytes: Size of the image in the topology, None if none is told.
        fixed: Names of extents with overlays that were made for their configured size.
    """
    reaching = [e for e in extents if e.size_bytes is not None and e.offset_bytes + e.size_bytes == configured_bytes]
    follows = len(reaching) == 1 and not reaching[0].read_only and reaching[0].name not in fixed
    return reaching[0] if follows else None


def follow_image(
    extents: Sequence[R], configured_bytes: int | None, image_bytes: int, fixed: Collection[str] = ()
) -> tuple[R, ...]:
    """Return the extents of an image that has this size: one may be longer than configured (see `growing`)."""
    extent = growing(extents, configured_bytes, fixed)
    if extent is None or configured_bytes is None or image_bytes <= configured_bytes:
        return tuple(extents)
    grown = replace(extent, size_bytes=image_bytes - extent.offset_bytes)
    return tuple(grown if known is extent else known for known in extents)
