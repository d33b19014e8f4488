"""A virtual disk: a byte range of a block controller's image."""

from __future__ import annotations

from dataclasses import dataclass


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
