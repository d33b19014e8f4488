"""The command ``nbd``."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from iovirt_dist.cli.app import Text, app

_EXAMPLES = """\
Example: iovirt nbd disk.img --socket disk.sock
Example: iovirt nbd new.img --disk-size 1GiB --port 10809"""


@app.command(help_epilogue=_EXAMPLES)
def nbd(  # noqa: PLR0913 - each is an option
    image: str,
    *,
    disk_size: Text = "",
    read_only: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    socket: Text = "",
    port: Annotated[int | None, Parameter(validator=Number(gte=1, lte=65535))] = None,
    export: Text = "",
    iops: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    bandwidth: Text = "",
) -> int:
    """Serve a disk image to NBD clients until Ctrl-C; its address is printed once they can use it.

    A gateway, a hypervisor and a block controller run as processes. In a
    topology the gateway is a guest of kind "nbd"; 'iovirt ps' shows its address.

    Parameters
    ----------
    image
        Raw image file.
    disk_size
        Size of an image that does not exist yet.
    read_only
        Refuse writes.
    socket
        UNIX socket to listen at. Default: one in a temporary folder.
    port
        Port on 127.0.0.1 to listen at instead.
    export
        What clients call the disk. Default: nbd.
    iops
        Most operations a second.
    bandwidth
        Most data a second, such as 10MiB.
    """
    from iovirt_dist.cli.nbd import AdHocGateway, serve_image  # noqa: PLC0415 - keeps --help fast

    return serve_image(
        AdHocGateway(
            image=image,
            disk_size=disk_size,
            read_only=read_only,
            socket=socket,
            port=port or 0,
            export=export,
            iops=iops or 0,
            bandwidth=bandwidth,
        )
    )
