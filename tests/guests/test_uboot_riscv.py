"""Unmodified U-Boot in M mode, and unmodified OpenSBI with U-Boot in S mode, on the `virt` machine."""

from __future__ import annotations

import time

from iovirt_dist.testing.live import LiveTopology, TopologyFactory
from tests.guests.support import OPENSBI, PROMPT, UBOOT_RISCV_M, UBOOT_RISCV_S, machine, needs, topology_of, typed

pytestmark = needs(UBOOT_RISCV_M, UBOOT_RISCV_S, OPENSBI)

BOOT_S = 30.0
SLEEP_S = 1.0


async def _at_prompt(iovirt: TopologyFactory, image: object, **keys: str) -> LiveTopology:
    guest = machine("virt", str(image), {"console": "tty0"}, memory="128MiB", **keys)
    topology = await iovirt.up(topology_of({"riscv": guest}))
    await topology.console().expect(r"Hit any key to stop autoboot", BOOT_S)
    await typed(topology, "riscv", "\r", PROMPT)
    return topology


async def test_uboot_in_machine_mode_helps_and_powers_off(iovirt: TopologyFactory) -> None:
    """`help` lists its commands, `poweroff` stops the guest, and both sides say which device asked."""
    topology = await _at_prompt(iovirt, UBOOT_RISCV_M)

    text = await typed(topology, "riscv", "help\r", r"^version +- print[^=]*^=> ")
    topology.console().send_line("poweroff")
    status = await topology.guest().wait_state("stopped")
    hypervisor = await topology.hypervisor().wait_status(lambda s: s.content["guests"]["riscv"]["state"] == "stopped")

    assert "poweroff  - Perform POWEROFF" in text
    assert status.reason == "powered off by test device"
    guest = hypervisor.content["guests"]["riscv"]
    assert guest["reason"] == status.reason
    assert guest["guest_traps"] == guest["traps"]
    assert guest["traps"]["mmio_load"] > 0 < guest["traps"]["mmio_store"]
    assert guest["traps"]["port_in"] == guest["traps"]["port_out"] == 0


async def test_opensbi_serves_uboot_in_supervisor_mode(iovirt: TopologyFactory) -> None:
    """Calls from S to M are answered, exceptions delegated, and time passes as U-Boot's `sleep` counts it."""
    topology = await _at_prompt(iovirt, OPENSBI, payload=str(UBOOT_RISCV_S))

    calls = await typed(topology, "riscv", "sbi\r", r"Extensions:[^=]*^=> ")
    before_s = time.monotonic()
    await typed(topology, "riscv", f"sleep {SLEEP_S:g}\r", r"sleep [^=]*^=> ")
    slept_s = time.monotonic() - before_s
    hypervisor = await topology.hypervisor().wait_status(
        lambda s: s.content["guests"]["riscv"]["touched"].get("clint", 0) > 0
    )
    boot = topology.console().text

    assert "OpenSBI" in calls
    assert "Timer Extension" in calls
    assert "Boot HART MIDELEG         : 0x0000000000000222" in boot
    assert "Boot HART MEDELEG         : 0x000000000000b109" in boot
    assert "Domain0 Next Mode         : S-mode" in boot
    assert slept_s >= SLEEP_S
    assert hypervisor.content["guests"]["riscv"]["malformed"] == 0
