"""The NBD gateway beside nbdkit, under fio's nbd engine: the same client and the same image, in turns in the same run.

- 4 KiB at random places with `DEPTH` requests in flight, beside nbdkit's Python plugin: either side has one process in
  Python at the socket, but behind ours are a hypervisor and a block controller, too. Both write back.
- 1 MiB reads in their order with `STREAM_DEPTH` in flight, beside the bare relay (`iovirt_dist.bench.bare`) that
  carries 1 MiB messages both ways, of which one is counted: what `doorbells` compares with. Our client comes on top.

nbdkit's file plugin, which is C, and what nbdkit does in the other loads are in the details.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from iovirt_dist.bench.bare import BareClient
from iovirt_dist.bench.processes import READY_WITHIN_S, Processes
from iovirt_dist.bench.report import Result, Target
from iovirt_dist.bench.sampling import Figures, summarise
from iovirt_dist.errors import LocalError
from iovirt_dist.runtime.status import read_status

DEPTH: Final = 64
STREAM_DEPTH: Final = 8
IMAGE_BYTES: Final = 64 << 20
PLUGIN: Final = """
import os

API_VERSION = 2


def thread_model():
    import nbdkit

    return nbdkit.THREAD_MODEL_PARALLEL


def config(key, value):
    global path
    path = value


def open(readonly):
    return os.open(path, os.O_RDWR)


def close(handle):
    os.close(handle)


def get_size(handle):
    return os.fstat(handle).st_size


def can_flush(handle):
    return True


def flush(handle, flags):
    os.fdatasync(handle)


def pread(handle, buffer, offset, flags):
    if os.preadv(handle, [buffer], offset) != len(buffer):
        raise OSError("short read")


def pwrite(handle, buffer, offset, flags):
    if os.pwritev(handle, [buffer], offset) != len(buffer):
        raise OSError("short write")
"""
PACKAGES: Final = {"nbdkit": "nbdkit nbdkit-plugin-python", "fio": "fio"}
"""Programs, and the Debian packages that bring them."""
TOPOLOGY: Final = f"""
[topology]
name = "bench-nbd"
run_dir = "run"
lease = "10s"
[hypervisor.hv0]
[controller.disk0]
kind = "block"
image = "disk.img"
size = {IMAGE_BYTES}
durability = "write-back"
[guest.nbd]
kind = "nbd"
hypervisor = "hv0"
devices.disk = "disk0"
"""

_LOOK_EVERY_S: Final = 0.02
_MIB: Final = 1 << 20
_TITLE: Final = {"random_read": "4 KiB NBD reads : nbdkit", "random_write": "4 KiB NBD writes : nbdkit"}
_STREAM_TITLE: Final = "1 MiB NBD reads"
_AT_LEAST: Final = Target(1.0, at_most=False)
_STREAM_AT_LEAST: Final = Target(0.8, at_most=False)


class Span(NamedTuple):
    """How much is measured.

    Attributes:
        rounds: Turns of each side.
        seconds: Of each load in a turn.
    """

    rounds: int = 3
    seconds: float = 2.0


class FioLoad(NamedTuple):
    """What fio is told.

    Attributes:
        pattern: ``rw`` of fio.
        block: Bytes of a request.
        depth: Requests in flight.
    """

    pattern: str
    block: int
    depth: int

    @property
    def side(self) -> str:
        """Where fio's report has it."""
        return "read" if self.pattern.endswith("read") else "write"


LOADS: Final = {
    "random_read": FioLoad("randread", 4096, DEPTH),
    "random_write": FioLoad("randwrite", 4096, DEPTH),
    "stream_read": FioLoad("read", _MIB, STREAM_DEPTH),
    "stream_write": FioLoad("write", _MIB, STREAM_DEPTH),
}
"""Rates of streams are MiB a second, as their requests are of 1 MiB."""

Rates = dict[str, list[float]]
"""Requests a second, by load, of each round."""


def measure_nbd(span: Span, tell: Callable[[str], None]) -> list[Result]:
    """Measure all sides in turns; skipped where a program is missing.

    Raises:
        LocalError: A process does not do what it should.
    """
    missing = [package for program, package in PACKAGES.items() if shutil.which(program) is None]
    if missing:
        return _results({}, f"not installed: {' '.join(missing)}")
    sides = ("gateway", "python", "file")
    rates: dict[str, Rates] = {side: {load: [] for load in LOADS} for side in sides}
    rates["relay"] = {"stream_read": []}
    with Processes(TOPOLOGY) as ring, _servers(ring) as sockets:
        client = BareClient(ring.endpoint("relay"))
        try:
            for number in range(1, span.rounds + 1):
                tell(f"nbd: round {number} of {span.rounds}")
                for name, load in LOADS.items():
                    for side in sides:
                        rates[side][name].append(_fio_iops(ring.folder, sockets[side], load, span.seconds))
                bandwidth = client.messages_per_s(_MIB, _MIB, STREAM_DEPTH, span.seconds)
                rates["relay"]["stream_read"].append(bandwidth)
        finally:
            client.close()
    return _results(rates)


def _results(rates: dict[str, Rates], skipped: str = "") -> list[Result]:
    """Ours beside nbdkit's Python plugin and beside the relay; all that was measured is in the details."""
    rows = [(load, title, "IOPS", _AT_LEAST, "python", "nbdkit") for load, title in _TITLE.items()]
    rows += [("stream_read", _STREAM_TITLE, "MiB/s", _STREAM_AT_LEAST, "relay", "relay")]
    if skipped:
        return [
            Result(key, title, unit, target, base_name=name, skipped=skipped)
            for key, title, unit, target, _, name in rows
        ]
    details = {side: dict(found) for side, found in rates.items()}
    return [
        Result(key, title, unit, target, *_figures(rates["gateway"][key], rates[base][key]), name, details=details)
        for key, title, unit, target, base, name in rows
    ]


def _figures(ours: list[float], base: list[float]) -> tuple[Figures, Figures]:
    return summarise([[rate] for rate in ours]), summarise([[rate] for rate in base])


@contextmanager
def _servers(ring: Processes) -> Iterator[dict[str, Path]]:
    """Start the gateway, both kinds of nbdkit on the same image, and the relay; gives their sockets by side."""
    folder = ring.folder
    image, plugin = folder / "disk.img", folder / "plugin.py"
    image.write_bytes(os.urandom(IMAGE_BYTES))
    plugin.write_text(PLUGIN, "utf-8")
    ring.start("disk0", "hv0", "nbd")
    ring.wait_for(lambda: bool(read_status(ring.run_dir)["nbd"].content["nbd"]["ready"]), "the gateway", READY_WITHIN_S)
    ring.start_bare("relay", "relay", ring.endpoint("relay"), ring.endpoint("echo"))
    ring.start_bare("echo", "echo", ring.endpoint("echo"))
    sockets = {"gateway": ring.run_dir.path / "nbd.nbd", "python": folder / "py.sock", "file": folder / "file.sock"}
    servers: list[subprocess.Popen[bytes]] = []
    try:
        servers.append(_nbdkit(folder, sockets["python"], "python", str(plugin), f"path={image}"))
        servers.append(_nbdkit(folder, sockets["file"], "file", str(image)))
        yield sockets
    finally:
        for server in servers:
            server.kill()
            server.wait()


def _nbdkit(folder: Path, socket: Path, *plugin: str) -> subprocess.Popen[bytes]:
    """Start nbdkit and wait until it listens."""
    command = ["nbdkit", "--exit-with-parent", "-f", "-U", str(socket), *plugin]
    log = folder / f"{socket.stem}.log"
    with log.open("wb") as output:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)  # noqa: S603 - fixed
    deadline = time.monotonic() + READY_WITHIN_S
    while not socket.exists():
        if server.poll() is not None or time.monotonic() > deadline:
            server.kill()
            server.wait()
            raise LocalError(log.read_text("utf-8", "replace").strip() or "does not start", "nbdkit")
        time.sleep(_LOOK_EVERY_S)
    return server


def _fio_iops(folder: Path, socket: Path, load: FioLoad, seconds: float) -> float:
    """Let fio load a server; returns its requests a second."""
    report = folder / "fio.json"
    command = [
        *("fio", "--name=load", "--ioengine=nbd", f"--uri=nbd+unix:///?socket={socket}", f"--rw={load.pattern}"),
        *(f"--bs={load.block}", f"--iodepth={load.depth}", "--time_based", f"--runtime={seconds:g}"),
        *("--ramp_time=0.5", "--output-format=json", f"--output={report}", f"--aux-path={folder}"),
    ]
    try:
        subprocess.run(command, capture_output=True, cwd=folder, timeout=seconds + 60, check=True)  # noqa: S603 - fixed
        return reported_iops(report.read_text("utf-8", "replace"), load.side)
    except subprocess.SubprocessError as error:
        raise LocalError(f"fio failed: {error}", "nbd") from None


def reported_iops(report: str, side: str) -> float:
    """Find requests a second in fio's report: one object, behind whatever else it has to say.

    Args:
        report: As fio wrote it.
        side: ``read`` or ``write``.

    Raises:
        LocalError: It is none.
    """
    try:
        return float(json.loads(report[report.index("{") :])["jobs"][0][side]["iops"])
    except (ValueError, LookupError, TypeError):
        raise LocalError("fio's report is not understood", "nbd", report[-200:].strip()) from None
