"""A topology under test: what its processes are started with."""

from __future__ import annotations

import os
from pathlib import Path

from iovirt_dist.testing.documents import free_port, write_topology
from iovirt_dist.testing.live import LiveTopology

TWO_HOSTS = """
[host.a]
address = "127.0.0.1"
[host.b]
address = "127.0.0.2"
first_port = {port}
[controller.tty0]
kind = "console"
host = "a"
[controller.tty1]
kind = "console"
host = "b"
"""


async def test_live_part_of_a_host_starts_its_processes_where_they_belong(tmp_path: Path) -> None:
    """Behind the command that enters the host, with the host's name; nothing of the other host."""
    topology = write_topology(TWO_HOSTS.format(port=free_port()), tmp_path, {})
    live = LiveTopology(topology.at("b"), enter=("env", "PLACE=here"))

    (process,) = live.processes
    await live.start()
    environ = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
    problems = await live.stop()

    assert process.name == "tty1"
    assert {b"PLACE=here", b"IOVIRT_HOST=b"} <= set(environ)
    assert problems == []


async def test_live_excuses_what_a_killed_vmm_has_left_and_nobody_else(tmp_path: Path) -> None:
    """Its lock and status, and the folder that its guest's name is on."""
    text = '[hypervisor.hv0]\n[guest.a]\nkind = "vm"\nvmm = "uml"\nhypervisor = "hv0"\n'
    live = LiveTopology(write_topology(text, tmp_path, {}))
    live.run_dir.create()
    for left in ("sock/a.vmm.lock", "status/a.vmm.json", "vm/a.uml", "sock/hv0.lock"):
        (live.run_dir.path / left).touch()
    live.vmm().killed = True

    assert await live.stop() == ["sock/hv0.lock was left behind"]


async def test_live_process_has_nothing_from_the_server_that_forked_it(tmp_path: Path) -> None:
    """Session, folder, environment and standard descriptors are its own, and it has a socket less than the server."""
    live = LiveTopology(write_topology("[hypervisor.hv0]\n", tmp_path, {}))
    process = live.hypervisor()

    await live.start()
    folder = Path(f"/proc/{process.pid}")
    opened = [str((folder / "fd" / number).readlink()) for number in "012"]
    session, current = os.getsid(process.pid), str((folder / "cwd").readlink())
    parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    shared = _pipes_and_sockets(folder) & _pipes_and_sockets(Path(f"/proc/{parent}"))
    problems = await live.stop()

    log = str(live.run_dir.log("hv0"))
    assert (opened, session, current) == (["/dev/null", log, log], process.pid, str(live.run_dir.path))
    assert shared == set()
    assert problems == []


def _pipes_and_sockets(process: Path) -> set[str]:
    links = {str(entry.readlink()) for entry in (process / "fd").iterdir() if entry.is_symlink()}
    return {link for link in links if link.startswith(("pipe:", "socket:"))}
