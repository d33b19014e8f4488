"""Topologies over two hosts, and guests for them."""

from __future__ import annotations

from typing import Any

from iovirt_dist.testing.console import ConsoleHandle
from iovirt_dist.testing.live import LiveTopology
from iovirt_dist.testing.processes import ProcessHandle
from tests.guests.support import UBOOT_RISCV_M, machine

MIB = 1 << 20
EXTENT_MIB = 4

NOTICE_S = 10.0
"""Two seconds of lease, half a second between status files, ZeroMQ's own reconnection, and a busy machine."""


def tables(guests: dict[str, Any], **topology: Any) -> dict[str, Any]:
    """Hypervisors hva and hvb; disk0 and tty0 on host a, sw0 on host b; an extent of 4 MiB for each guest."""
    size = EXTENT_MIB * MIB
    extents = {name: {"offset": at * size, "size": size} for at, name in enumerate(guests)}
    disk = {"kind": "block", "image": "disk0.img", "size": len(guests) * size, "extents": extents}
    return {
        "topology": {"lease": "2s", **topology},
        "hypervisor": {"hva": {"host": "a"}, "hvb": {"host": "b"}},
        "controller": {
            "disk0": {**disk, "host": "a"},
            "tty0": {"kind": "console", "host": "a"},
            "sw0": {"kind": "net", "host": "b"},
        },
        "guest": guests,
    }


def bundled(hypervisor: str, job: str) -> dict[str, Any]:
    """The bundled OS on a hypervisor."""
    devices = {"disk": "disk0/{name}", "console": "tty0"}
    return machine("pc", "bundled:guestos", devices, hypervisor=hypervisor, command_line=f"run={job}")


def uboot(hypervisor: str) -> dict[str, Any]:
    """U-Boot with a card."""
    devices = {"console": "tty0", "net": "sw0"}
    return machine("virt", UBOOT_RISCV_M, devices, memory="128MiB", hypervisor=hypervisor)


def verifying(hypervisor: str) -> dict[str, Any]:
    """A script that checks what its disk gives back, and prints, until the line ``stop`` is typed."""
    return {
        "kind": "script",
        "hypervisor": hypervisor,
        "script": "iovirt_dist.guest.script.verify:main",
        "parameters": {"devices": ["disk", "console"], "seconds": 300.0, "blocks": 64, "depth": 8},
        "devices": {"disk": "disk0/{name}", "virtio_console": "tty0"},
    }


async def verified(guest: ProcessHandle, more_than: int) -> int:
    """Wait until a verifying guest has had so many requests; returns how many it has had then."""
    status = await guest.wait_status(lambda s: _requests(s.content) > more_than, what=f"beyond {more_than} requests")
    return _requests(status.content)


async def verdict(guest: ProcessHandle, console: ConsoleHandle) -> dict[str, Any]:
    """Let a verifying guest read everything back, and end; returns its results."""
    console.send_line("stop")
    status = await guest.wait_state("stopped", 60.0)
    results: dict[str, Any] = status.content["results"]
    return results


async def uboot_prompt(console: ConsoleHandle, address: str) -> None:
    """Bring U-Boot to its prompt, with an address."""
    await console.expect(r"Hit any key to stop autoboot", 60.0)
    console.send_line("")
    await console.expect(r"^=> ")
    console.send_line(f"setenv ipaddr {address}")
    await console.expect(r"^=> ")


async def answers(live: LiveTopology, guest: str, line: str) -> None:
    """Type a line into a bundled OS that echoes, and wait for the echo."""
    console = live.console(guest)
    console.send_line(line)
    await console.expect(rf"^echo: {line}$")


def _requests(content: dict[str, Any]) -> int:
    found: int = content.get("results", {}).get("requests", 0)
    return found
