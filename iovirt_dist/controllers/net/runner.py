"""Performs the network core's actions: the thin I/O between the core, the file system and the uplink's interface."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from iovirt_dist.controllers.net.core import CaptureFrames, NetAccess, NetOutcome
from iovirt_dist.controllers.net.files import FileFolder
from iovirt_dist.controllers.net.pcap import PcapFile
from iovirt_dist.controllers.net.uplink import SendUplink
from iovirt_dist.controllers.net.uplink_runner import Uplink

_log = logging.getLogger(__name__)


class NetRunner:
    """Hands of one network core.

    Args:
        wall_minus_monotonic_ns: What makes wall clock times, ns since 1970 UTC, of the core's times.
        folder: What the built-in host's files are read from, None for no files.
        open_tap: Makes a capture file; raises OSError.
        uplink: Hands of the uplink, None for none.
    """

    def __init__(
        self,
        wall_minus_monotonic_ns: int,
        folder: Path | None = None,
        open_tap: Callable[[Path], PcapFile] = PcapFile,
        uplink: Uplink | None = None,
    ) -> None:
        self._uplink = uplink
        self._wall_minus_monotonic_ns = wall_minus_monotonic_ns
        self._files = FileFolder(folder) if folder is not None else None
        self._open_tap = open_tap
        self._taps: dict[Path, PcapFile | None] = {}

    def perform(self, action: NetAccess) -> NetOutcome | None:
        """Do an action; return its outcome if it has one."""
        if isinstance(action, SendUplink):
            assert self._uplink is not None, "without an uplink the core sends nothing there"
            return self._uplink.send(action.frames)
        if isinstance(action, CaptureFrames):
            self._capture(action)
            return None
        assert self._files is not None, "without a folder the core asks for no files"
        return self._files.perform(action)

    def _capture(self, action: CaptureFrames) -> None:
        """Write frames. A capture file that cannot be written is given up; frames pass all the same."""
        tap = action.tap
        file = None
        try:
            if tap not in self._taps:
                self._taps[tap] = self._open_tap(tap)
            file = self._taps[tap]
            if file is not None:
                file.write(action.frames, action.at_ns + self._wall_minus_monotonic_ns)
        except OSError as error:
            _log.error("tap %s is given up: %s", tap, error)
            self._taps[tap] = None
            if file is not None:
                file.close()

    def close(self) -> None:
        """Close all files, and the uplink."""
        if self._uplink is not None:
            self._uplink.close()
        if self._files is not None:
            self._files.close()
        for file in self._taps.values():
            if file is not None:
                file.close()
        self._taps.clear()
