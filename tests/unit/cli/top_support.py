"""A topology and what its processes say, for the tests of ``iovirt top``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from iovirt_dist.cli.processes import process_rows
from iovirt_dist.cli.top_build import make_sample
from iovirt_dist.cli.top_rows import Sample
from iovirt_dist.cli.top_sample import Sampler
from iovirt_dist.runtime.status import ProcessStatus
from iovirt_dist.runtime.view import View
from iovirt_dist.topology import Origin, Topology, topology_from_text

SECOND = 1_000_000_000
AT_NS = 1_767_225_600 * SECOND

TEXT = """
[hypervisor.hv0]
[controller.disk0]
kind = "block"
image = "d.img"
size = "1MiB"
[controller.tty0]
kind = "console"
[guest.a]
kind = "script"
hypervisor = "hv0"
script = "x:main"
devices = { disk = "disk0", virtio_console = "tty0" }
"""

HOSTS = """
[host.a]
address = "127.0.0.1"
[host.b]
address = "127.0.0.2"
[hypervisor.hv0]
host = "a"
[hypervisor.hv1]
host = "b"
[driver_domain.dom0]
host = "a"
[controller.disk0]
kind = "block"
host = "a"
driver = "dom0"
image = "d.img"
size = "1MiB"
"""


def topology(folder: Path, text: str = TEXT) -> Topology:
    """A checked topology whose files are in a folder."""
    return topology_from_text(text, Origin("t.toml", folder / "t.toml", folder))


def status(name: str, kind: str, at_s: float, **content: Any) -> ProcessStatus:
    """What a process says after so many seconds."""
    at_ns = AT_NS + int(at_s * SECOND)
    return ProcessStatus(name=name, kind=kind, pid=7, state="running", epoch=1, updated_ns=at_ns, content=content)


def hypervisor(at_s: float, each: int = 10) -> ProcessStatus:
    """A hypervisor of a guest that does `each` of everything a second; of bytes a MiB for each."""
    n = int(at_s * each)
    disk = {"controller": "disk0", "requests": n, "bytes_in": n << 20, "bytes_out": 0, "waiting": 3, "in_flight": 4}
    quiet = {"controller": "tty0", "requests": 0, "bytes_in": 0, "bytes_out": 0, "waiting": 0, "in_flight": 1}
    guest = {
        "connected": True,
        "traps": {"port_in": n, "doorbell": n},
        "interrupts_raised": n,
        "messages_in": n,
        "messages_out": n,
        "unacknowledged": 2,
        "devices": {"disk": disk, "virtio_console": quiet},
        "qos": {"disk": {"weight": 1, "throttled": 5}},
    }
    pair = {"connected": True, "submitted": n, "in_flight": 4, "credits": 64, "waiting": 3, "resubmitted": 1}
    return status("hv0", "hypervisor", at_s, guests={"a": guest}, controllers={"disk0": pair}, cpu_ns=n * 50_000_000)


def block(at_s: float) -> ProcessStatus:
    """A block controller that takes a hundred commands a second and makes two syncs of them."""
    counts = {"commands": int(100 * at_s), "syncs": int(2 * at_s), "strays": 6, "medium_errors": 0}
    return status("disk0", "block", at_s, rss_bytes=33 << 20, **counts)


def sample_of(known: Topology, *moments: list[ProcessStatus]) -> Sample:
    """The sample that shows the last of some moments, a second apart."""
    sampler, view = Sampler(), View()
    for at, statuses in enumerate(moments):
        view = View({entry.name: entry for entry in statuses}, frozenset(entry.name for entry in statuses))
        sampler.take(view.living(), at * SECOND)
    return make_sample(known, process_rows(known, AT_NS, view), sampler, AT_NS)
