"""The overlays of a block controller as files: ``EXTENT@GUEST.cow`` in one folder, each locked by who has it open."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from iovirt_dist.controllers.block.overlay import Overlay
from iovirt_dist.controllers.block.overlay_format import (
    HEADER_BYTES,
    MAX_OVERLAY_BYTES,
    Layout,
    OverlayHeader,
    boot_id,
    fingerprint,
)
from iovirt_dist.controllers.block.storage import (
    FileStorage,
    Storage,
    scratch_path,
    sweep_scratch,
    sync_folder,
    take_place,
)
from iovirt_dist.controllers.locking import lock_medium
from iovirt_dist.errors import ImageError

SUFFIX: Final = ".cow"


class Base(NamedTuple):
    """What an overlay lies over.

    Attributes:
        storage: Holds it.
        offset: Where it begins.
        size_bytes: Its length.
        path: The image, for messages.
    """

    storage: Storage
    offset: int
    size_bytes: int
    path: str


def overlay_path(folder: Path, unit: str) -> Path:
    """Return the file of the overlay that is unit ``EXTENT@GUEST``."""
    return folder / f"{unit}{SUFFIX}"


class OverlayFolder:
    """Opens and makes overlays in one folder.

    Args:
        folder: Where they are; made with the first one.
        life: This boot of the machine, for tests; None asks the kernel.
    """

    def __init__(self, folder: Path, life: bytes | None = None) -> None:
        self.folder = folder
        self._life = boot_id() if life is None else life

    def open(self, unit: str, base: Base, mark: bytes | None = None) -> Overlay:
        """Open an overlay; make an empty one if there is none.

        Args:
            unit: Its name, ``EXTENT@GUEST``.
            base: What it lies over.
            mark: The base's fingerprint if it is known already.

        Raises:
            ImageError: It is in use, damaged, of another base, or cannot be made.
        """
        mark = base_mark(base) if mark is None else mark
        path = overlay_path(self.folder, unit)
        with _as_image_error(path):
            there = path.exists()
        if not there:
            with contextlib.suppress(FileExistsError), self.making(unit, base, mark):
                pass
        file = FileStorage(path)
        try:
            with _as_image_error(path):
                header = OverlayHeader.unpack(bytes(file.read_at(0, min(HEADER_BYTES, file.size_bytes))), str(path))
                header.check_base(base.size_bytes, mark, str(path))
                if file.size_bytes < Layout(base.size_bytes).file_bytes:
                    raise ImageError("the overlay has been cut short", str(path), "restore it, or remove it")
                return Overlay(file, base.storage, base.offset, base.size_bytes, self._life)
        except BaseException:
            with contextlib.suppress(OSError):
                file.close()
            raise

    @contextlib.contextmanager
    def making(self, unit: str, base: Base, mark: bytes | None = None, *, replace: bool = False) -> Iterator[Overlay]:
        """Make an overlay, empty at first, that has its name once the block ends well.

        Space for its maps is reserved, so that only data can find the file system full.

        Args:
            unit: Its name, ``EXTENT@GUEST``.
            base: What it lies over.
            mark: The base's fingerprint if it is known already.
            replace: Put it in place of the one that is there, which the caller has locked.

        Raises:
            ImageError: It is too large, or the file system is full or read-only.
            FileExistsError: There is one, and `replace` is not set.
        """
        path = overlay_path(self.folder, unit)
        scratch = scratch_path(path)
        if base.size_bytes > MAX_OVERLAY_BYTES:
            what = f"an extent of {base.size_bytes} bytes is too large for an overlay"
            raise ImageError(what, str(path), f"the most is {MAX_OVERLAY_BYTES}")
        layout = Layout(base.size_bytes)
        header = OverlayHeader(base.size_bytes, base_mark(base) if mark is None else mark, base.path)
        sweep_scratch(path)
        with _as_image_error(path):
            if replace:
                scratch.touch(0o600)  # nobody reads what he may not read under the other name
            file = FileStorage(scratch, layout.file_bytes)
            try:
                file.write_at(0, header.pack())
                file.allocate(0, layout.data_offset)
                overlay = Overlay(file, base.storage, base.offset, base.size_bytes, self._life)
                yield overlay
                overlay.sync()
                if replace:
                    take_place(scratch, path)
                else:
                    path.hardlink_to(scratch)
                    sync_folder(path.parent)
            finally:
                scratch.unlink(missing_ok=True)
                file.close()

    def units(self) -> list[str]:
        """Return the names of the overlays that are there, sorted.

        Raises:
            ImageError: This user may not look.
        """
        with _as_image_error(self.folder), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            names = [path.stem for path in self.folder.iterdir() if path.suffix == SUFFIX]
            return sorted(name for name in names if not name.startswith(".") and "@" in name)
        return []

    def header(self, unit: str) -> OverlayHeader:
        """Read what an overlay says of itself; it may be in use.

        Raises:
            ImageError: It is none, or cannot be read.
        """
        path = overlay_path(self.folder, unit)
        with _as_image_error(path), path.open("rb") as file:
            return OverlayHeader.unpack(file.read(HEADER_BYTES), str(path))

    def fixed(self, sizes: Mapping[str, int | None]) -> frozenset[str]:
        """Return the extents that overlays lie over which were made for a base of this size.

        Args:
            sizes: Bytes by name of the extent.

        Raises:
            ImageError: This user may not look.
        """
        names: set[str] = set()
        for unit in self.units():
            name = unit.partition("@")[0]
            with contextlib.suppress(ImageError):
                if sizes.get(name) == self.header(unit).size_bytes:
                    names.add(name)
        return frozenset(names)

    def remove(self, unit: str) -> None:
        """Remove an overlay that nobody has open.

        Raises:
            ImageError: It is in use, or cannot be removed.
        """
        path = overlay_path(self.folder, unit)
        with _as_image_error(path):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # whatever it holds
            try:
                lock_medium(fd, path)
                path.unlink()
                sync_folder(path.parent)
            finally:
                os.close(fd)


def base_mark(base: Base) -> bytes:
    """Return the fingerprint of a base.

    Raises:
        ImageError: It cannot be read.
    """
    with _as_image_error(Path(base.path)):
        return fingerprint(base.storage, base.offset, base.size_bytes)


@contextlib.contextmanager
def _as_image_error(path: Path) -> Iterator[None]:
    """Turn what the operating system says of a file into a line for the user."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        what = os.strerror(error.errno) if error.errno else str(error)
        raise ImageError(
            f"cannot be used ({what})", str(path), "see that it is readable and the disk not full"
        ) from None
