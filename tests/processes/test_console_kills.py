"""A console controller that is killed while a guest prints: the log has every line once."""

from __future__ import annotations

from pathlib import Path

from iovirt_dist.testing.live import TopologyFactory
from iovirt_dist.testing.processes import eventually

LINES = 400
KILLS = 2

SCRIPT = f"""
from iovirt_dist.guest.script import ScriptGuest, VirtioSlot, open_console


async def main(guest: ScriptGuest) -> None:
    console = await open_console(guest.virtio(VirtioSlot.CONSOLE), interrupts=True)
    for number in range({LINES}):
        await console.write(b"%d\\n" % number)
"""


async def test_line_is_printed_once_whenever_the_controller_is_killed(iovirt: TopologyFactory, tmp_path: Path) -> None:
    """What was written and not told is not written again, what was not written is not lost."""
    script = tmp_path / "printer.py"
    script.write_text(SCRIPT)
    guest = {"kind": "script", "hypervisor": "hv0", "script": f"{script}:main", "devices": {"virtio_console": "tty0"}}
    topology = await iovirt.up(
        {
            "topology": {"lease": "1s"},
            "hypervisor": {"hv0": {}},
            "controller": {"tty0": {"kind": "console"}},
            "guest": {"printer": guest},
        }
    )
    console = topology.console("printer.hvc0")

    for kill in range(1, KILLS + 1):
        await eventually(lambda: console.text.count("\n") >= kill * LINES // (2 * KILLS), 30, lambda: "too few lines")  # noqa: B023 - it is done before the next
        await topology.controller("tty0").restart()
    await eventually(lambda: f"\n{LINES - 1}\n" in console.text, 30, topology.explain)

    assert console.text.split() == [str(number) for number in range(LINES)]
