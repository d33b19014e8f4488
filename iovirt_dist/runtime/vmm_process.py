"""A guest's VMM as a process of ours: waits for the guest's devices, runs the VMM as its child, relays its console."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import sys
import termios
import time
import tty
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from iovirt_dist.errors import LocalError
from iovirt_dist.runtime import vmm_keeper
from iovirt_dist.runtime.epoch import next_epoch
from iovirt_dist.runtime.restart import describe_exit
from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.serial_relay import SerialRelay
from iovirt_dist.runtime.telemetry import Telemetry
from iovirt_dist.topology.specs import Topology, VmmSpec
from iovirt_dist.topology.vm_specs import serial_socket, vm_socket
from iovirt_dist.vmm.command import VmmCommand
from iovirt_dist.vmm.start import vmm_command

log = logging.getLogger(__name__)

GRACE_S: Final = 3.0
"""How long a VMM may take to end after SIGTERM."""

POWERED_OFF: Final = "powered off"
"""Reason of a VMM that has ended in order: its guest has switched it off."""

_POLL_S: Final = 0.05
_LISTENS: Final = 0x10000
"""Flag of a socket at which somebody listens: __SO_ACCEPTCON (linux/net.h), as /proc/net/unix shows it."""


def absent_sockets(paths: Sequence[Path]) -> list[Path]:
    """Return those sockets at which nobody listens.

    A file may be left over from a process that was killed, and to try would be a connection for who listens.
    Source: proc(5), /proc/net/unix: the fourth column is the flags, the last one the path as it was bound.
    """
    lines = Path("/proc/net/unix").read_bytes().splitlines()[1:]
    sockets = [line.split(maxsplit=7) for line in lines]
    listening = {fields[7] for fields in sockets if len(fields) == 8 and int(fields[3], 16) & _LISTENS}
    return [path for path in paths if os.fsencode(path) not in listening]


def _make_raw(terminal: int) -> None:
    """Have a terminal pass bytes as they are. QEMU switches output processing on again, so there must be none to do."""
    tty.setraw(terminal)
    attributes = termios.tcgetattr(terminal)
    attributes[tty.OFLAG] = 0
    termios.tcsetattr(terminal, termios.TCSANOW, attributes)


class VmmProcess:
    """Runs the VMM of a guest on the current event loop.

    Args:
        topology: Where everything is.
        spec: Which guest's.
        command: How to start the VMM; None for how the topology says.

    Raises:
        ImageError: VMM, kernel or initial RAM disk is missing.
        ConfigError: A path cannot be said on the VMM's command line.
    """

    def __init__(self, topology: Topology, spec: VmmSpec, command: VmmCommand | None = None) -> None:
        self._topology = topology
        self._spec = spec
        self._run_dir = RunDir(topology.run_dir)
        self._epoch = next_epoch(self._run_dir, spec.name, time.time_ns())
        self._command = vmm_command(spec.guest, topology.run_dir) if command is None else command
        self._state, self._reason = "starting", ""
        self._relay: SerialRelay | None = None
        self._keeper: asyncio.subprocess.Process | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Run the VMM until `stop` is set; one whose guest has switched it off stays, idle, as every guest does.

        Raises:
            EndpointError: Another process of this name runs.
            LocalError: The VMM ended in another way.
        """
        self._run_dir.create()
        with self._run_dir.claimed(self._spec.name), self._terminal() as slave:
            async with Telemetry(self._topology, self._spec, self._epoch, self.status):
                await self._run(slave, stop)

    def status(self) -> dict[str, Any]:
        """What the status file tells: state, the VMM's command line, how its console fares."""
        console = self._relay.status() if self._relay is not None else {}
        keeper = self._keeper.pid if self._keeper is not None and self._keeper.returncode is None else 0
        return {
            "state": self._state,
            "reason": self._reason,
            "keeper_pid": keeper,
            "command": str(self._command),
            "console": console,
        }

    async def _run(self, slave: int, stop: asyncio.Event) -> None:
        if not await self._devices(stop):
            return
        keeper = await self._start(slave)
        ended = asyncio.create_task(keeper.wait())
        asked = asyncio.create_task(stop.wait())
        await asyncio.wait((ended, asked), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            await self._end(keeper, ended)
        asked.cancel()
        self._remove_folders()
        code = ended.result()
        if stop.is_set():
            return
        if code != 0:
            self._tell("failed", describe_exit(code))
            await self._last_words()
            raise LocalError(f"the VMM ended ({describe_exit(code)})", self._spec.name, "see its log")
        self._tell("stopped", POWERED_OFF)
        log.info("%s: %s", self._spec.guest.name, POWERED_OFF)
        await stop.wait()

    async def _devices(self, stop: asyncio.Event) -> bool:
        """Wait until somebody serves all devices; False if `stop` is set before."""
        guest = self._spec.guest
        sockets = [vm_socket(self._topology.run_dir, guest.name, device) for device in guest.devices]
        while absent := absent_sockets(sockets):
            self._tell("waiting", f"for {guest.name} to serve {', '.join(path.name for path in absent)}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _POLL_S)
            if stop.is_set():
                return False
        return not stop.is_set()

    async def _start(self, slave: int) -> asyncio.subprocess.Process:
        self._remove_folders()
        for folder in self._command.folders:
            folder.mkdir(mode=0o700, parents=True)
        keeper = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", vmm_keeper.__file__, str(os.getpid()), *self._command.argv),
            stdin=slave,
            stdout=slave,
            env={**os.environ, **self._command.environment},
            start_new_session=True,
        )
        self._keeper = keeper
        log.info("%s: started: %s", self._spec.guest.name, self._command)
        self._tell("running")
        return keeper

    async def _end(self, keeper: asyncio.subprocess.Process, ended: asyncio.Task[int]) -> None:
        """Ask the VMM to end; kill it if it does not."""
        with contextlib.suppress(ProcessLookupError):
            keeper.terminate()
        await asyncio.wait((ended,), timeout=GRACE_S)
        if not ended.done():
            log.info("%s: does not end: killed", self._spec.guest.name)
            with contextlib.suppress(ProcessLookupError):
                keeper.send_signal(vmm_keeper.END)
        await ended

    async def _last_words(self) -> None:
        assert self._relay is not None, "the terminal is open"
        await self._relay.drain(1.0)

    def _remove_folders(self) -> None:
        for folder in self._command.folders:
            shutil.rmtree(folder, ignore_errors=True)

    def _tell(self, state: str, reason: str = "") -> None:
        self._state, self._reason = state, reason

    @contextlib.contextmanager
    def _terminal(self) -> Iterator[int]:
        """Open the pseudo-terminal that is the VMM's console, with its relay; gives the VMM's side.

        It stays open here, too: what the VMM has printed last can be read when it is gone.
        """
        guest = self._spec.guest
        path = serial_socket(self._topology.run_dir, guest.name) if guest.console is not None else None
        master, slave = os.openpty()
        try:
            _make_raw(slave)
            os.set_blocking(master, False)
            self._relay = SerialRelay(asyncio.get_running_loop(), master, path)
            yield slave
        finally:
            if self._relay is not None:
                self._relay.close()
            os.close(master)
            os.close(slave)
