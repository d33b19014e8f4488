"""A disk behind Python elsewhere: nbdkit's Python plugin under fio's nbd engine, beside a script guest at our disk.

Both sides read 4 KiB at random places of the same image with `DEPTH` requests in flight, both have a client process and
a server in Python between it and the page cache; ours has a hypervisor between them. In turns, in the same run.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from iovirt_dist.bench.fleet import EXTENT_BYTES, Fleet, Member
from iovirt_dist.bench.report import Result, Target
from iovirt_dist.bench.sampling import Figures, summarise
from iovirt_dist.errors import LocalError

DEPTH: Final = 64
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
    return os.open(path, os.O_RDONLY)


def close(handle):
    os.close(handle)


def get_size(handle):
    return os.fstat(handle).st_size


def pread(handle, buffer, offset, flags):
    if os.preadv(handle, [buffer], offset) != len(buffer):
        raise OSError("short read")
"""
PACKAGES: Final = {"nbdkit": "nbdkit nbdkit-plugin-python", "fio": "fio"}
"""Programs, and the Debian packages that bring them."""

_READY_WITHIN_S: Final = 10.0
_LOOK_EVERY_S: Final = 0.02
_TITLE: Final = "4 KiB reads : nbdkit, fio"
_TARGET: Final = Target(1.0, at_most=False)


class Span(NamedTuple):
    """How much is measured.

    Attributes:
        rounds: Turns of each side.
        seconds: Of each turn.
    """

    rounds: int = 3
    seconds: float = 3.0


def measure_nbdkit(span: Span, tell: Callable[[str], None]) -> list[Result]:
    """Measure both sides in turns; skipped where a program is missing.

    Raises:
        LocalError: A process does not do what it should.
    """
    missing = [package for program, package in PACKAGES.items() if shutil.which(program) is None]
    if missing:
        reason = f"not installed: {' '.join(missing)}"
        return [Result("random_read", _TITLE, "IOPS", _TARGET, base_name="nbdkit", skipped=reason)]
    ours: list[float] = []
    base: list[float] = []
    guests = [f"g{number}" for number in range(span.rounds)]
    load = Member({"depth": DEPTH, "batch": DEPTH, "seconds": span.seconds, "warm_up_seconds": 0.5})
    with Fleet(dict.fromkeys(guests, load)) as fleet:
        folder = fleet.ring.folder
        server = _serve(folder, EXTENT_BYTES)
        try:
            for number, guest in enumerate(guests, 1):
                tell(f"nbdkit: round {number} of {span.rounds}")
                fleet.start(guest)
                ours.append(fleet.results(guest, span.seconds + 30.0)["iops"])
                fleet.stop(guest)
                base.append(_fio_iops(folder, span.seconds))
        finally:
            server.kill()
            server.wait()
    details = {"iops": ours, "base": base}
    return [Result("random_read", _TITLE, "IOPS", _TARGET, _figures(ours), _figures(base), "nbdkit", details=details)]


def _serve(folder: Path, size: int) -> subprocess.Popen[bytes]:
    """Start nbdkit on the image's first bytes, as many as a guest's extent has."""
    plugin, image, socket = folder / "plugin.py", folder / "nbd.img", folder / "nbd.sock"
    plugin.write_text(PLUGIN, "utf-8")
    with (folder / "disk.img").open("rb") as disk:
        image.write_bytes(disk.read(size))
    command = ["nbdkit", "--exit-with-parent", "-f", "-r", "-U", str(socket), "python", str(plugin), f"path={image}"]
    log = folder / "nbdkit.log"
    with log.open("wb") as output:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)  # noqa: S603 - fixed
    deadline = time.monotonic() + _READY_WITHIN_S
    while not socket.exists():
        if server.poll() is not None or time.monotonic() > deadline:
            server.kill()
            server.wait()
            raise LocalError(log.read_text("utf-8", "replace").strip() or "does not start", "nbdkit")
        time.sleep(_LOOK_EVERY_S)
    return server


def _fio_iops(folder: Path, seconds: float) -> float:
    """Let fio read; returns its requests a second."""
    report = folder / "fio.json"
    command = [
        *("fio", "--name=read", "--ioengine=nbd", f"--uri=nbd+unix:///?socket={folder / 'nbd.sock'}"),
        *("--rw=randread", "--bs=4k", f"--iodepth={DEPTH}", "--time_based", f"--runtime={seconds:g}"),
        *("--ramp_time=0.5", "--output-format=json", f"--output={report}", f"--aux-path={folder}"),
    ]
    try:
        subprocess.run(command, capture_output=True, cwd=folder, timeout=seconds + 60, check=True)  # noqa: S603 - fixed
        return reported_iops(report.read_text("utf-8", "replace"))
    except subprocess.SubprocessError as error:
        raise LocalError(f"fio failed: {error}", "nbdkit") from None


def reported_iops(report: str) -> float:
    """Find reads a second in fio's report: one object, behind whatever else it has to say.

    Raises:
        LocalError: It is none.
    """
    try:
        return float(json.loads(report[report.index("{") :])["jobs"][0]["read"]["iops"])
    except (ValueError, LookupError, TypeError):
        raise LocalError("fio's report is not understood", "nbdkit", report[-200:].strip()) from None


def _figures(rates: list[float]) -> Figures:
    return summarise([[rate] for rate in rates])
