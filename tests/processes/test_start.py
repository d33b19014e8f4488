"""Processes may start in any order; two cannot have one name or one address."""

from __future__ import annotations

import os
import socket
import subprocess
from typing import Any

from iovirt_dist.runtime.status import ProcessStatus
from iovirt_dist.testing.live import LiveTopology, TopologyFactory


def _guest_waits_for(status: ProcessStatus, what: str) -> bool:
    return bool(status.content["guests"]["guest"]["waiting"] == f"waiting for controller {what}")


async def test_start_guest_first_and_controllers_last_waits_and_goes_on(iovirt: TopologyFactory) -> None:
    """Who is not there yet is waited for, by name, in status and log; the job runs when the last one has come."""
    topology = iovirt.prepare(guest={"guest": {"command_line": "run=job kib=64"}})

    await topology.start("guest")
    guest = await topology.guest().wait_state("starting")
    await topology.start("hv0")
    await topology.hypervisor().wait_status(lambda status: _guest_waits_for(status, "disk0"))
    await topology.start("disk0")
    await topology.hypervisor().wait_status(lambda status: _guest_waits_for(status, "tty0"))
    await topology.start("tty0")
    await topology.console().expect(r"job: done")

    assert guest.reason == "waiting for hypervisor hv0"
    assert "guest guest: waiting for controller disk0" in topology.hypervisor().log


def _second(topology: LiveTopology, name: str) -> tuple[int, list[str]]:
    """Run a second process of a name that runs; returns its exit status and what it printed."""
    spec = next(spec for spec in topology.topology.processes() if spec.name == name)
    environ = {**os.environ, **topology.topology.environment()}
    done = subprocess.run(
        spec.argv, check=False, env=environ, cwd=topology.run_dir.path, capture_output=True, text=True, timeout=20
    )
    return done.returncode, done.stderr.splitlines()


async def test_second_process_of_a_name_is_refused_in_one_line_and_the_first_goes_on(
    iovirt: TopologyFactory, echo: dict[str, Any]
) -> None:
    """It says so and fails (an image in use is a wrong configuration: 2); the guest of the first still answers."""
    topology = await iovirt.up(**echo)
    await topology.console().expect(r"type lines")

    refused = {name: _second(topology, name) for name in ("hv0", "disk0", "tty0", "guest")}
    topology.console().send_line("still here")
    await topology.console().expect(r"^echo: still here$")

    assert {name: code for name, (code, _) in refused.items()} == {"hv0": 1, "disk0": 2, "tty0": 2, "guest": 1}
    assert {name: len(lines) for name, (_, lines) in refused.items()} == dict.fromkeys(refused, 1)
    assert all(lines[0].startswith("iovirt: error: ") for _, lines in refused.values())


async def test_endpoint_in_use_by_a_stranger_is_a_one_line_error(iovirt: TopologyFactory) -> None:
    """A socket that somebody else listens at is neither taken over nor removed."""
    topology = iovirt.prepare()
    hypervisor = topology.hypervisor()
    hypervisor.expected_exit = 1
    path = topology.run_dir.socket("hv0")
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(path))
        stranger.listen()

        hypervisor.start()
        code = await hypervisor.exited(20)

    assert code == 1
    assert hypervisor.log.splitlines() == [
        f"iovirt: error: hypervisor: ipc://{path}: address is in use by a process that takes no lock; "
        "stop it or choose another address"
    ]
    assert path.exists()
    path.unlink()
