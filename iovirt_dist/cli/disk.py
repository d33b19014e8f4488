"""``iovirt disk``: virtual disks, extents and overlays; most commands need a controller that is down."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from iovirt_dist.cli.app import Json, RunningFile, app, running_topology

disk = App(
    name="disk",
    help="List virtual disks, make them larger, and copy raw images in and out while their controller is down.",
    help_format="plaintext",
)
app.command(disk)


@disk.command(name="ls", help_epilogue="Example: iovirt disk ls --json")
def ls(*, file: RunningFile = None, json: Json = False) -> int:
    """List extents and overlays: size, what they take on the host, whose they are, whether they are in use."""
    from iovirt_dist.cli.disk_list import show_disks  # noqa: PLC0415 - keeps --help fast

    return show_disks(running_topology(file), as_json=json)


@disk.command(name="create", help_epilogue="Example: iovirt disk create disk0/all@guest --from start.img")
def create(
    name: Annotated[str, Parameter(name="DISK")],
    /,
    *,
    source: Annotated[
        Path | None, Parameter(name="--from", show_default=False, help="Raw image that it begins as.")
    ] = None,
    file: RunningFile = None,
    json: Json = False,
) -> int:
    """Make an image or an overlay now, and not when it is used first.

    Parameters
    ----------
    name
        CONTROLLER/EXTENT, or CONTROLLER/EXTENT@GUEST for a guest's overlay.
    """
    from iovirt_dist.cli.disk_work import create_disk  # noqa: PLC0415 - keeps --help fast
    from iovirt_dist.cli.terminal import exit_on_signals  # noqa: PLC0415 - as above

    with exit_on_signals():
        return create_disk(running_topology(file), name, source, as_json=json)


@disk.command(name="export", help_epilogue="Example: iovirt disk export disk0/all@guest guest.img")
def export(
    name: Annotated[str, Parameter(name="DISK")],
    target: Annotated[Path, Parameter(name="TARGET")],
    /,
    *,
    file: RunningFile = None,
    json: Json = False,
) -> int:
    """Write a disk to a raw image, sparse where it is zero; an overlay together with its base.

    Parameters
    ----------
    name
        CONTROLLER/EXTENT, or CONTROLLER/EXTENT@GUEST for what the guest sees.
    target
        File to write; it is replaced once all of it is stable.
    """
    from iovirt_dist.cli.disk_work import export_disk  # noqa: PLC0415 - keeps --help fast
    from iovirt_dist.cli.terminal import exit_on_signals  # noqa: PLC0415 - as above

    with exit_on_signals():
        return export_disk(running_topology(file), name, target, as_json=json)


@disk.command(name="import", help_epilogue="Example: iovirt disk import debian.img disk0/all")
def import_(
    source: Annotated[Path, Parameter(name="SOURCE")],
    name: Annotated[str, Parameter(name="DISK")],
    /,
    *,
    file: RunningFile = None,
    json: Json = False,
) -> int:
    """Put a raw image into a disk; what is behind the image's end becomes zeroes.

    The disk changes at once when all is stable, or not at all. Of an
    overlay only what differs from the base takes space.

    Parameters
    ----------
    source
        Raw image: a file or block device, not longer than the disk.
    name
        CONTROLLER/EXTENT, or CONTROLLER/EXTENT@GUEST for a guest's overlay.
    """
    from iovirt_dist.cli.disk_work import import_disk  # noqa: PLC0415 - keeps --help fast
    from iovirt_dist.cli.terminal import exit_on_signals  # noqa: PLC0415 - as above

    with exit_on_signals():
        return import_disk(running_topology(file), source, name, as_json=json)


@disk.command(name="resize", help_epilogue="Example: iovirt disk resize disk0/all 20GiB")
def resize(
    name: Annotated[str, Parameter(name="DISK")],
    size: Annotated[str, Parameter(name="SIZE")],
    /,
    *,
    file: RunningFile = None,
    json: Json = False,
) -> int:
    """Make a disk larger, also while its controller and guests run; none can be made smaller.

    Guests with a virtio disk see it at once, others when their machine
    is switched on the next time.

    Parameters
    ----------
    name
        CONTROLLER/EXTENT, the only one that reaches to the end of its image.
    size
        What it is to have, such as 20GiB.
    """
    from iovirt_dist.cli.disk_resize import resize_disk  # noqa: PLC0415 - keeps --help fast

    return resize_disk(running_topology(file), name, size, as_json=json)


@disk.command(name="rm", help_epilogue="Example: iovirt disk rm disk0/all@guest")
def rm(name: Annotated[str, Parameter(name="DISK")], /, *, file: RunningFile = None, json: Json = False) -> int:
    """Remove an overlay: the guest begins anew with the base.

    Parameters
    ----------
    name
        CONTROLLER/EXTENT@GUEST.
    """
    from iovirt_dist.cli.disk_work import remove_overlay  # noqa: PLC0415 - keeps --help fast

    return remove_overlay(running_topology(file), name, as_json=json)
