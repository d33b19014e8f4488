"""SIGTERM and SIGINT: every process ends with status 0 within two seconds and leaves nothing behind."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from iovirt_dist.testing.live import TopologyFactory

STOP_S = 2.0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("order", [("guest", "hv0", "disk0", "tty0"), ("disk0", "tty0", "hv0", "guest")])
async def test_stop_signal_ends_each_process_in_order_or_against_it(
    iovirt: TopologyFactory, echo: dict[str, Any], number: signal.Signals, order: tuple[str, ...]
) -> None:
    """It does not matter whom a process talks to, nor whether that one is still there."""
    topology = await iovirt.up(**echo)
    await topology.console().expect(r"type lines")

    codes = {}
    for name in order:
        topology.process(name).send_signal(number)
        codes[name] = await topology.process(name).exited(STOP_S)

    assert codes == dict.fromkeys(order, 0)
    assert topology.run_dir.leftovers() == []


async def test_stop_signal_ends_a_guest_that_never_looks_up(iovirt: TopologyFactory) -> None:
    """A guest that spins with interrupts off is stopped from outside."""
    topology = await iovirt.up(guest={"guest": {"command_line": "panic=spin"}})
    await topology.console().expect(r"panic=spin")

    topology.guest().terminate()

    assert await topology.guest().exited(STOP_S) == 0


async def test_stop_signal_ends_a_guest_inside_a_trap_that_nobody_answers(
    iovirt: TopologyFactory, echo: dict[str, Any]
) -> None:
    """The hypervisor hangs while the guest waits for it."""
    topology = await iovirt.up(guest={"guest": {"command_line": "run=job kib=16384 bs=512"}})
    await topology.hypervisor().wait_status(lambda status: status.content["guests"]["guest"]["disk_requests"] > 20)

    topology.hypervisor().send_signal(signal.SIGSTOP)
    topology.guest().terminate()
    code = await topology.guest().exited(STOP_S)
    topology.hypervisor().send_signal(signal.SIGCONT)

    assert code == 0
