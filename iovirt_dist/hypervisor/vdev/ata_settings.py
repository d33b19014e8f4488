"""What commands set in an ATA device and what it keeps between them (ATA/ATAPI-6, T13 1410D)."""

from __future__ import annotations

from iovirt_dist.hypervisor.vdev.ata_identify import MAX_MULTIPLE, Geometry, default_geometry, translate
from iovirt_dist.hypervisor.vdev.device import State

_MULTIPLES = frozenset({0} | {1 << power for power in range(MAX_MULTIPLE.bit_length())})

# SET FEATURES subcommands (clause 8).
_ENABLE_WRITE_CACHE, _DISABLE_WRITE_CACHE = 0x02, 0x82
_SET_TRANSFER_MODE = 0x03
_KEEP_SETTINGS, _REVERT_SETTINGS = 0x66, 0xCC
_PIO_MODES = frozenset((0x00, 0x01, *range(0x08, 0x0D)))
"""Sector Count for SET TRANSFER MODE: PIO default, PIO default without IORDY, PIO flow control modes 0 to 4."""


class AtaSettings:
    """Settings of one device; each setter returns whether the device accepts the value, otherwise it aborts.

    Args:
        total_sectors: Capacity.

    Attributes:
        geometry: The cylinder-head-sector translation in use.
        multiple: Sectors per DRQ block of READ/WRITE MULTIPLE, 0 while these abort.
        write_cache: What IDENTIFY shows as the write cache's state. Every write is on stable storage before it ends
            either way, so nothing else depends on it.
    """

    def __init__(self, total_sectors: int) -> None:
        self._total_sectors = total_sectors
        self._kept_over_reset = False
        self._revert()

    def _revert(self) -> None:
        """Go back to the settings of power-on."""
        self.geometry = default_geometry(self._total_sectors)
        self.multiple = 0
        self.write_cache = False

    def software_reset(self) -> None:
        """SRST: back to the defaults unless SET FEATURES 66h asked to keep what is set."""
        if not self._kept_over_reset:
            self._revert()

    def set_multiple(self, sectors: int) -> bool:
        """SET MULTIPLE MODE (clause 8): 0 or a size that is not supported switches the mode off."""
        accepted = sectors in _MULTIPLES
        self.multiple = sectors if accepted else 0
        return accepted

    def set_geometry(self, heads: int, sectors_per_track: int) -> bool:
        """INITIALIZE DEVICE PARAMETERS (clause 8)."""
        if sectors_per_track:
            self.geometry = translate(self._total_sectors, heads, sectors_per_track)
        return bool(sectors_per_track)

    def set_feature(self, feature: int, mode: int) -> bool:
        """SET FEATURES (clause 8)."""
        if feature in (_ENABLE_WRITE_CACHE, _DISABLE_WRITE_CACHE):
            self.write_cache = feature == _ENABLE_WRITE_CACHE
            return True
        if feature in (_KEEP_SETTINGS, _REVERT_SETTINGS):
            self._kept_over_reset = feature == _KEEP_SETTINGS
            return True
        return feature == _SET_TRANSFER_MODE and mode in _PIO_MODES

    def state(self) -> State:
        """All settings."""
        return {
            "geometry": list(self.geometry),
            "multiple": self.multiple,
            "write_cache": self.write_cache,
            "kept_over_reset": self._kept_over_reset,
        }

    def restore(self, state: State) -> None:
        """Take over a state."""
        self.geometry = Geometry(*state["geometry"])
        self.multiple, self.write_cache = state["multiple"], state["write_cache"]
        self._kept_over_reset = state["kept_over_reset"]
