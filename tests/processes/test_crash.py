"""SIGKILL of any one process: the others notice within the lease, and recover when it returns."""

from __future__ import annotations

import hashlib
import signal
from typing import Any

from iovirt_dist.testing.live import TopologyFactory

NOTICE_S = 10.0
"""A second of lease, and the rest for a busy machine."""


async def test_kill_of_the_block_controller_pauses_the_guest_until_it_returns(iovirt: TopologyFactory) -> None:
    """The job is in the middle of its reads; its request is submitted again, and its checksum is right."""
    zeroes_sha256 = hashlib.sha256(bytes(1024 << 10)).hexdigest()
    topology = await iovirt.up(topology={"lease": "1s"}, guest={"guest": {"command_line": "run=job kib=1024 bs=4096"}})
    await topology.hypervisor().wait_status(lambda status: status.content["guests"]["guest"]["disk_requests"] > 20)

    topology.controller("disk0").kill()
    await topology.hypervisor().wait_log("controller disk0 lost: silent", NOTICE_S)
    await topology.controller("disk0").restart()
    done = await topology.console().expect(r"job: read 1024 KiB in 256 requests, sha256 ([0-9a-f]{64})", 60)

    assert done[1] == zeroes_sha256
    assert topology.guest().running


async def test_kill_of_the_console_controller_pauses_the_terminal_until_it_returns(
    iovirt: TopologyFactory, echo: dict[str, Any]
) -> None:
    """What is typed into the new life reaches the guest, and what it prints is in the same log."""
    topology = await iovirt.up(**echo)
    await topology.console().expect(r"type lines")

    topology.controller("tty0").kill()
    await topology.hypervisor().wait_log("controller tty0 lost: silent", NOTICE_S)
    await topology.controller("tty0").restart()
    await topology.controller("tty0").wait_log(
        "terminal opened", since=topology.controller("tty0").log.rfind("listening")
    )
    topology.console().send_line("hello again")

    await topology.console().expect(r"^echo: hello again$")


async def test_kill_of_the_hypervisor_powers_the_guest_on_afresh(iovirt: TopologyFactory, echo: dict[str, Any]) -> None:
    """Its devices were in the hypervisor: the guest notices, waits, and boots again."""
    topology = await iovirt.up(**echo)
    await topology.console().expect(r"type lines")

    topology.hypervisor().kill()
    await topology.guest().wait_log("hypervisor hv0 lost", NOTICE_S)
    await topology.controller("disk0").wait_log("hypervisor hv0 lost", NOTICE_S)
    await topology.hypervisor().restart()
    await topology.console().expect(r"guestos: \d+ KiB memory")
    await topology.console().expect(r"type lines")
    topology.console().send_line("afresh")

    await topology.console().expect(r"^echo: afresh$")


async def test_kill_of_a_guest_leaves_the_other_alone_and_it_boots_again(
    iovirt: TopologyFactory, two_guests: dict[str, Any]
) -> None:
    """The hypervisor notices within the lease; bob goes on all the time; alice comes back as a new machine."""
    topology = await iovirt.up(two_guests)
    await topology.console("alice").expect(r"type lines")
    await topology.console("bob").expect(r"type lines")

    topology.guest("alice").kill()
    await topology.hypervisor().wait_log("guest alice lost: silent", NOTICE_S)
    topology.console("bob").send_line("bob lives")
    await topology.console("bob").expect(r"^echo: bob lives$")
    await topology.guest("alice").restart()
    await topology.console("alice").expect(r"guestos: \d+ KiB memory")

    await topology.console("alice").expect(r"type lines")

    assert "guest bob lost" not in topology.hypervisor().log


async def test_triple_fault_stops_one_guest_and_says_why(iovirt: TopologyFactory, two_guests: dict[str, Any]) -> None:
    """A guest that runs wild is stopped, its process stays and tells the reason, the other guest goes on."""
    topology = await iovirt.up(two_guests, guest={"alice": {"command_line": "panic=triple"}})

    alice = await topology.guest("alice").wait_state("stopped")
    await topology.console("bob").expect(r"type lines")
    topology.console("bob").send_line("bob lives")
    await topology.console("bob").expect(r"^echo: bob lives$")
    known = await topology.hypervisor().wait_status(lambda s: s.content["guests"]["alice"]["state"] == "stopped")

    assert alice.reason.startswith("triple fault at ")
    assert known.content["guests"]["alice"]["reason"] == alice.reason


async def test_guest_that_hangs_is_noticed_and_comes_back_where_it_was(
    iovirt: TopologyFactory, echo: dict[str, Any]
) -> None:
    """SIGSTOP looks like a crash for as long as it lasts; the session resumes, and nothing was lost."""
    topology = await iovirt.up(**echo)
    await topology.console().expect(r"type lines")

    topology.guest().send_signal(signal.SIGSTOP)
    await topology.hypervisor().wait_log("guest guest lost: silent", NOTICE_S)
    topology.console().send_line("typed meanwhile")
    topology.guest().send_signal(signal.SIGCONT)
    await topology.console().expect(r"^echo: typed meanwhile$")

    assert "guest guest is back" in topology.hypervisor().log
    assert topology.guest().log.count("power on") == 1
