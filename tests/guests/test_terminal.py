"""A terminal program on a guest's PTY, and a person at `iovirt console`."""

from __future__ import annotations

import asyncio
import os
import pty
import sys
import termios
import tty

from iovirt_dist.testing.live import TopologyFactory
from tests.guests.support import machine, topology_of

TIMEOUT_S = 15.0


class Screen:
    """What a file descriptor shows, read by the event loop."""

    def __init__(self, descriptor: int) -> None:
        self.text = ""
        self._descriptor = descriptor
        self._changed = asyncio.Event()
        os.set_blocking(descriptor, False)
        asyncio.get_running_loop().add_reader(descriptor, self._read)

    async def shows(self, text: str) -> None:
        """Wait until `text` has been shown."""
        async with asyncio.timeout(TIMEOUT_S):
            while text not in self.text:
                self._changed.clear()
                await self._changed.wait()

    def close(self) -> None:
        """Look no more."""
        asyncio.get_running_loop().remove_reader(self._descriptor)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, 4096)
        except OSError:  # the other end of a PTY is closed
            data = b""
        self.text += data.decode("utf-8", "replace").replace("\r", "")
        self._changed.set()
        if not data:
            self.close()


def _echo() -> dict[str, object]:
    return topology_of({"guest": machine("pc", "bundled:guestos", {"console": "tty0"}, command_line="run=echo")})


async def test_terminal_program_on_the_tty_link_talks_with_the_guest(iovirt: TopologyFactory) -> None:
    """The link is a real terminal device: what is typed arrives, what the guest prints appears."""
    topology = await iovirt.up(_echo())
    await topology.console().expect(r"^echo: type lines")

    terminal = os.open(topology.run_dir.console_tty("guest"), os.O_RDWR | os.O_NOCTTY)
    tty.setraw(terminal)
    screen = Screen(terminal)
    os.write(terminal, b"by wire\r")
    await screen.shows("echo: by wire\n")
    is_terminal = os.isatty(terminal)
    screen.close()
    os.close(terminal)

    assert is_terminal
    await topology.console().expect(r"^echo: by wire$")


async def test_person_at_the_console_command_types_reads_and_leaves(iovirt: TopologyFactory) -> None:
    """On a terminal: history first, keys sent one by one, Ctrl-] leaves and the terminal is as before."""
    topology = await iovirt.up(_echo())
    await topology.console().expect(r"^echo: type lines")
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)

    command = ["-m", "iovirt_dist.cli.main", "console", "guest", "--file", str(topology.topology.source)]
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdin=slave, stdout=slave, stderr=slave)
    screen = Screen(master)
    await screen.shows("type lines")
    for key in b"abc\r":
        os.write(master, bytes([key]))
    await screen.shows("echo: abc\n")
    os.write(master, b"\x1d")
    code = await asyncio.wait_for(process.wait(), TIMEOUT_S)
    after = termios.tcgetattr(slave)
    screen.close()
    os.close(master)
    os.close(slave)

    assert code == 0
    assert after == before
