"""``iovirt nbd``: an image served to NBD clients without a topology file, through a hypervisor as a guest's disk is."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from iovirt_dist.cli.launch import start_detached
from iovirt_dist.cli.output import EXIT_DONE, EXIT_FAILED, fail
from iovirt_dist.cli.tail import last_words
from iovirt_dist.cli.terminal import exit_on_signals, signals_noted
from iovirt_dist.errors import ConfigError, ImageError, LocalError
from iovirt_dist.runtime.nbd_listener import check_address
from iovirt_dist.runtime.rundir import SUPERVISOR, RunDir
from iovirt_dist.runtime.status import read_status, read_status_file
from iovirt_dist.runtime.takedown import take_down
from iovirt_dist.topology import Origin, load_topology, topology_from_text

GATEWAY: Final = "nbd"
"""Name of the gateway's process, and of the export unless another is given."""
WHERE: Final = "iovirt nbd"

_LOOK_EVERY_S: Final = 0.05
_OPTIONS: Final = {"controller.disk0.image": "IMAGE", "controller.disk0.size": "--disk-size"}
_KEY: Final = re.compile(r"controller\.disk0\.(?:image|size)|guest\.nbd\.(?:qos\.disk\.)?(?P<option>[a-z_]+)")
_SIZE: Final = re.compile(r'size = "(?P<size>[^"]*)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class AdHocGateway:
    """A gateway by its options; what is empty or 0 is the topology's default.

    Attributes:
        image: Raw image file.
        disk_size: Size of an image that does not exist yet.
        read_only: Whether writes are refused.
        socket: Path of the UNIX socket.
        port: Port on 127.0.0.1 instead.
        export: The export's name.
        iops: Most operations a second.
        bandwidth: Most data a second.
    """

    image: str
    disk_size: str = ""
    read_only: bool = False
    socket: str = ""
    port: int = 0
    export: str = ""
    iops: int = 0
    bandwidth: str = ""


def topology_text(gateway: AdHocGateway, run_dir: Path) -> str:
    """Write the topology of one gateway; TOML basic strings are JSON strings (TOML 1.0, "String").

    The image is written back: clients that want a write to be stable say so, with a flush or FUA.
    """
    disk: dict[str, str | int | bool] = {
        "kind": "block",
        "image": _absolute(gateway.image),
        "durability": "write-back",
        "size": gateway.disk_size,
        "read_only": gateway.read_only,
    }
    guest: dict[str, str | int | bool] = {
        "kind": "nbd",
        "hypervisor": "hv0",
        "devices.disk": "disk0",
        "socket": _absolute(gateway.socket) if gateway.socket else "",
        "port": gateway.port,
        "export": gateway.export,
        "qos.disk.iops": gateway.iops,
        "qos.disk.bandwidth": gateway.bandwidth,
    }
    lines = ["[topology]", 'name = "nbd"', f"run_dir = {json.dumps(str(run_dir))}", "[hypervisor.hv0]"]
    for name, table in (("controller.disk0", disk), (f"guest.{GATEWAY}", guest)):
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items() if value)]
    return "\n".join(lines) + "\n"


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def serve_image(gateway: AdHocGateway) -> int:
    """Serve an image until Ctrl-C or SIGTERM; nothing of it stays but the image.

    Returns:
        Exit status: 0 when it was stopped, 1 if a process failed.

    Raises:
        ConfigError: An option is wrong.
        ImageError: The image cannot be used.
        LocalError: The processes cannot be started, or the socket or port is in use.
    """
    base = Path(tempfile.mkdtemp(prefix="iovirt-"))
    try:
        text = topology_text(gateway, base / "run")
        topology_from_text(text, Origin(WHERE, None, base))  # first, so that errors do not name our file
        if gateway.socket or gateway.port:  # before an image is made
            check_address(Path(_absolute(gateway.socket)) if gateway.socket else None, gateway.port)
        file = base / "topology.toml"
        file.write_text(text, "utf-8")
        with exit_on_signals():
            return _serve(file)
    except (ConfigError, ImageError) as error:
        raise type(error)(error.what, _in_options(error.where), _in_options(error.fix)) from None
    except (KeyboardInterrupt, SystemExit):  # SIGTERM, SIGHUP: asked to stop, and everything is down
        return EXIT_DONE
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _in_options(text: str) -> str:
    """Say keys of the topology, which the user has not written, as options."""
    text = _SIZE.sub(r"--disk-size \g<size>", text)
    return _KEY.sub(lambda key: _OPTIONS.get(key[0]) or f"--{(key['option'] or '').replace('_', '-')}", text)


def _serve(file: Path) -> int:
    topology = load_topology(file)
    run_dir = RunDir(topology.run_dir)
    start_detached(topology, die_with_parent=True)
    try:
        with signals_noted() as noted:
            return _watch(run_dir, noted)
    finally:
        take_down(run_dir)


def _watch(run_dir: RunDir, noted: list[int]) -> int:
    """Tell the address once clients can use it, and wait for a signal or for trouble."""
    told = False
    while not noted:
        if trouble := _trouble(run_dir, started=told):
            if not told:
                raise LocalError(trouble)
            fail(trouble)
            return EXIT_FAILED
        status = read_status(run_dir).get(GATEWAY)
        if not told and status is not None and status.alive and status.content.get("nbd", {}).get("ready"):
            print(status.content["nbd"]["uri"], flush=True)
            told = True
        time.sleep(_LOOK_EVERY_S)
    return EXIT_DONE


def _trouble(run_dir: RunDir, *, started: bool) -> str:
    """What went wrong: a process that ended for good, or at all before there was something to use; else empty."""
    supervisor = read_status_file(run_dir.status(SUPERVISOR))
    if supervisor is None or not supervisor.alive:
        return "" if run_dir.is_locked() else "the processes are gone"
    rows: dict[str, dict[str, object]] = supervisor.content.get("processes", {})
    for name, row in rows.items():
        if row.get("state") == "ended" or (not started and row.get("exit")):
            words = last_words(run_dir, name).removeprefix("guest: ").removeprefix(f"{name}: ")
            return words or f"{name} ended ({row.get('exit')})"
    return ""
