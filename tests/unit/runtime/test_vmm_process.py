"""The process of a VMM around a small script in its place: devices, console, ends of all kinds, no orphans."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from iovirt_dist.errors import LocalError
from iovirt_dist.runtime import vmm_process
from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.status import read_status, start_ticks
from iovirt_dist.runtime.vmm_process import VmmProcess, absent_sockets
from iovirt_dist.topology import ENVIRONMENT_KEY, Origin, Topology, VmmSpec, load_topology, topology_from_text
from iovirt_dist.topology.vm_specs import serial_socket, vm_socket
from iovirt_dist.vmm.command import VmmCommand

TEXT = """
[topology]
run_dir = "run"
[hypervisor.hv0]
[controller.tty0]
kind = "console"
[controller.disk0]
kind = "block"
image = "d.img"
size = "1MiB"
[guest.a]
kind = "vm"
vmm = "qemu"
hypervisor = "hv0"
kernel = "k"
devices.console = "tty0"
"""
FAKE = Path(__file__).with_name("fake_vmm.py")
DEADLINE_S = 20.0


async def until(holds: Callable[[], object]) -> None:
    """Wait for a condition; the test fails if it does not come."""
    async with asyncio.timeout(DEADLINE_S):
        while not holds():
            await asyncio.sleep(0.005)


class Gateway:
    """The gateway's end of a serial console.

    Attributes:
        output: What the guest has printed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: asyncio.StreamWriter | None = None
        self._server: asyncio.Server | None = None
        self.output = b""

    async def open(self) -> None:
        """Listen."""
        self._server = await asyncio.start_unix_server(self._serve, self._path)

    async def close(self) -> None:
        """Go away, with the socket."""
        if self._server is not None:
            self._server.close()
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(ConnectionError):
                await self._writer.wait_closed()
        self._path.unlink(missing_ok=True)

    async def type(self, text: bytes) -> None:
        """Say something to the guest."""
        await until(lambda: self._writer)
        assert self._writer is not None
        self._writer.write(text)

    async def expect(self, pattern: bytes) -> re.Match[bytes]:
        """Wait until the guest has printed something."""
        await until(lambda: re.search(pattern, self.output))
        match = re.search(pattern, self.output)
        assert match is not None
        return match

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        while data := await reader.read(65536):
            self.output += data
        writer.close()


class Bench:
    """A VMM process on the test's own loop.

    Attributes:
        process: What is tested.
        gateway: The other end of its console, not listening yet.
        stop: Ends it.
    """

    def __init__(self, folder: Path, text: str = TEXT, *arguments: str) -> None:
        self.topology = topology_from_text(text, Origin("t.toml", None, folder))
        (spec,) = [spec for spec in self.topology.specs() if isinstance(spec, VmmSpec)]
        self.folder = folder / "own"
        command = VmmCommand((sys.executable, str(FAKE), *arguments), {"IOVIRT_TEST": "1"}, (self.folder,))
        self.process = VmmProcess(self.topology, spec, command)
        self.gateway = Gateway(serial_socket(self.topology.run_dir, "a"))
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(self.process.run(self.stop))

    async def helper(self) -> int:
        """Wait for the VMM; the number of its helper."""
        return int((await self.gateway.expect(rb"helper (\d+) of (\d+)"))[1])

    async def close(self) -> None:
        """End it however it is."""
        self.stop.set()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.gateway.close()


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Callable[..., Bench]]:
    """Makes benches, and ends them."""
    benches: list[Bench] = []

    def made(text: str = TEXT, *arguments: str) -> Bench:
        benches.append(Bench(tmp_path, text, *arguments))
        return benches[-1]

    yield made
    for bench in benches:
        await bench.close()


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    return start_ticks(pid) is None


async def test_console_is_relayed_both_ways(make: Callable[..., Bench]) -> None:
    """Raw: what is typed is not echoed by the pseudo-terminal, and no carriage return is added."""
    bench = make()
    await bench.gateway.open()

    await bench.gateway.type(b"hello\n")

    await bench.gateway.expect(rb"helper \d+ of \d+\nHELLO\n$")
    assert bench.process.status()["state"] == "running"
    assert bench.process.status()["console"]["bytes_in"] == 6


async def test_nothing_printed_is_lost_while_the_gateway_is_away(make: Callable[..., Bench]) -> None:
    """A second life of the gateway gets what was printed behind the first one's end, and can type."""
    bench = make()
    await bench.gateway.open()
    await bench.gateway.type(b"first\n")
    await bench.gateway.expect(b"FIRST\n")
    await bench.gateway.type(b"second\nthird\n")
    await bench.gateway.expect(b"THIRD\n")
    await bench.gateway.close()
    await until(lambda: not bench.process.status()["console"]["connected"])
    second = Gateway(serial_socket(bench.topology.run_dir, "a"))

    await second.open()
    await second.type(b"x" * 3000 + b"\nlast\n")

    await second.expect(b"^X{3000}\nLAST\n$")
    assert bench.process.status()["console"]["connections"] == 2
    await second.close()


async def test_output_before_the_gateway_comes_waits_for_it(make: Callable[..., Bench]) -> None:
    """The gateway may be the slower one to start."""
    bench = make()
    await until(lambda: bench.process.status()["console"].get("waiting_bytes"))

    await bench.gateway.open()

    await bench.helper()
    assert bench.process.status()["console"]["waiting_bytes"] == 0


async def test_guest_that_powers_off_is_stopped_and_its_process_stays(make: Callable[..., Bench]) -> None:
    """Whoever keeps it running would start the guest again and again."""
    bench = make()
    await bench.gateway.open()
    helper = await bench.helper()

    await bench.gateway.type(b"off\n")

    await until(lambda: bench.process.status()["state"] == "stopped")
    status = bench.process.status()
    assert (status["reason"], status["keeper_pid"]) == ("powered off", 0)
    assert gone(helper)
    assert not bench.folder.exists()
    await bench.gateway.expect(b"told off\n")
    assert not bench.task.done()


async def test_vmm_that_fails_ends_the_process_behind_its_last_words(make: Callable[..., Bench]) -> None:
    """Supervision decides what is next."""
    bench = make()
    await bench.gateway.open()
    helper = await bench.helper()

    await bench.gateway.type(b"fail\n")

    with pytest.raises(LocalError, match=r"a\.vmm: the VMM ended \(exit status 3\); see its log"):
        await bench.task
    assert gone(helper)
    await bench.gateway.expect(b"told fail\n")


async def test_vmm_that_cannot_be_started_is_a_failure(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The log says what and why."""
    topology = topology_from_text(TEXT, Origin("t.toml", None, tmp_path))
    (spec,) = [spec for spec in topology.specs() if isinstance(spec, VmmSpec)]

    with pytest.raises(LocalError, match=r"exit status 127"):
        await VmmProcess(topology, spec, VmmCommand(("/no/vmm",))).run(asyncio.Event())

    assert "cannot start /no/vmm: No such file or directory" in capfd.readouterr().err


async def test_stop_ends_the_vmm_and_its_helper(make: Callable[..., Bench]) -> None:
    """SIGTERM is enough for most."""
    bench = make()
    await bench.gateway.open()
    helper = await bench.helper()
    assert bench.folder.is_dir()

    bench.stop.set()
    await bench.task

    assert gone(helper)
    assert not bench.folder.exists()
    assert RunDir(bench.topology.run_dir).leftovers() == [serial_socket(bench.topology.run_dir, "a")]


async def test_vmm_that_takes_no_notice_of_sigterm_is_killed(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a grace."""
    monkeypatch.setattr(vmm_process, "GRACE_S", 0.1)
    bench = make(TEXT, "deaf")
    await bench.gateway.open()
    helper = await bench.helper()

    bench.stop.set()
    await bench.task

    assert gone(helper)


async def test_vmm_starts_when_its_devices_are_served(make: Callable[..., Bench]) -> None:
    """Its state says what it waits for; a socket that a killed gateway has left does not count."""
    bench = make(TEXT + 'devices.disk = "disk0"\n')
    path = vm_socket(bench.topology.run_dir, "a", "disk")
    await until(lambda: bench.process.status()["state"] == "waiting")
    assert bench.process.status()["reason"] == "for a to serve a.disk.vu"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    assert absent_sockets([path]) == [path]
    path.unlink()

    with socket.socket(socket.AF_UNIX) as served:
        served.bind(str(path))
        served.listen()
        await bench.gateway.open()
        await bench.helper()

    assert bench.process.status()["state"] == "running"


async def test_stop_while_it_waits_starts_nothing(make: Callable[..., Bench]) -> None:
    """There may never be a gateway."""
    bench = make(TEXT + 'devices.disk = "disk0"\n')
    await until(lambda: bench.process.status()["state"] == "waiting")

    bench.stop.set()
    await bench.task

    assert bench.process.status()["keeper_pid"] == 0


async def test_guest_without_a_console_prints_for_nobody(
    make: Callable[..., Bench], capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is kept, and the VMM does not wait: what it does behind its first line is done."""
    bench = make(TEXT.replace('devices.console = "tty0"\n', ""))

    await until(lambda: "a word for the log" in capfd.readouterr().err)

    assert bench.process.status()["console"]["waiting_bytes"] == 0


class Service:
    """``python -m services.vmm`` with a script in the place of QEMU.

    Attributes:
        gateway: The other end of its console.
    """

    def __init__(self, folder: Path) -> None:
        qemu = folder / "bin/qemu-system-x86_64"
        qemu.parent.mkdir()
        qemu.write_text(f"#!/bin/sh\nexec {sys.executable} {FAKE}\n")
        qemu.chmod(0o755)
        (folder / "k").touch()
        (folder / "t.toml").write_text(TEXT)
        self.topology: Topology = load_topology(folder / "t.toml")
        RunDir(self.topology.run_dir).create()
        self.gateway = Gateway(serial_socket(self.topology.run_dir, "a"))
        self._environ = os.environ | {ENVIRONMENT_KEY: str(folder / "t.toml")}
        self._environ["PATH"] = f"{qemu.parent}:{os.environ['PATH']}"

    async def start(self) -> asyncio.subprocess.Process:
        """Start it, and wait for its VMM."""
        await self.gateway.open()
        command = (sys.executable, "-P", "-m", "services.vmm", "a.vmm")
        process = await asyncio.create_subprocess_exec(
            *command, env=self._environ, stderr=asyncio.subprocess.PIPE, start_new_session=True
        )
        await self.gateway.expect(rb"helper (\d+) of (\d+)\n")
        return process


@pytest.mark.parametrize("victim", ["process", "keeper"])
async def test_nothing_survives_a_kill(tmp_path: Path, victim: str) -> None:
    """Neither of the process nor of the keeper between it and the VMM."""
    service = Service(tmp_path)
    process = await service.start()
    match = await service.gateway.expect(rb"helper (\d+) of (\d+)\n")
    await until(lambda: read_status(RunDir(service.topology.run_dir))["a.vmm"].content.get("keeper_pid"))
    keeper = read_status(RunDir(service.topology.run_dir))["a.vmm"].content["keeper_pid"]

    os.kill({"process": process.pid, "keeper": keeper}[victim], signal.SIGKILL)
    await process.communicate()

    await until(lambda: gone(keeper) and gone(int(match[1])) and gone(int(match[2])))
    await service.gateway.close()


async def test_service_says_in_its_log_what_the_vmm_says_there(tmp_path: Path) -> None:
    """And how it was started; it ends with status 0 when it is asked to."""
    service = Service(tmp_path)
    process = await service.start()
    await service.gateway.type(b"behind that\n")
    await service.gateway.expect(b"BEHIND THAT\n")

    process.terminate()
    _, log = await process.communicate()

    assert process.returncode == 0
    assert b"vmm: a: started: " in log
    assert b"a word for the log" in log
    await service.gateway.close()
