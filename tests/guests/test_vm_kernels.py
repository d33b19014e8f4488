"""Unmodified Debian kernels in their VMMs: each boots the initial RAM disk that we build, to a shell and off again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from iovirt_dist.runtime.status import start_ticks
from iovirt_dist.runtime.vmm_process import VmmProcess
from iovirt_dist.topology import ENVIRONMENT_KEY, Origin, VmmSpec, load_topology, topology_from_text
from iovirt_dist.topology.vm_files import Vmm, newest_kernel, vmm_program
from iovirt_dist.topology.vm_specs import serial_socket
from iovirt_dist.vmm.initramfs import InitramfsPlan, kernel_modules, write_initramfs
from tests.guests.support import needs_vmm

SCRIPT = "echo answer=$((6 * 7)); /bin/mke2fs -V\n"
TEXT = """
[topology]
run_dir = "run"
[hypervisor.hv0]
[controller.tty0]
kind = "console"
[guest.a]
kind = "vm"
vmm = "{vmm}"
hypervisor = "hv0"
initrd = "initrd"
command_line = "quiet"
devices.console = "tty0"
"""
BOOT_S = 90.0
"""On two cores with other work QEMU's translator took 22 s."""


class Console:
    """A gateway that serves no device but a serial console.

    Attributes:
        output: What the guest has printed.
    """

    def __init__(self) -> None:
        self.output = b""
        self._writer: asyncio.StreamWriter | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read all that the guest prints."""
        self._writer = writer
        while data := await reader.read(65536):
            self.output += data
        writer.close()

    def type(self, text: bytes) -> None:
        """Say something to the guest."""
        assert self._writer is not None, "it has printed something"
        self._writer.write(text)

    async def expect(self, pattern: bytes) -> re.Match[bytes]:
        """Wait until the guest has printed something."""
        deadline = time.monotonic() + BOOT_S
        while not (match := re.search(pattern, self.output)):
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.output[-2000:]!r}"
            await asyncio.sleep(0.01)
        return match


class Booted:
    """A kernel in its VMM.

    Attributes:
        console: Its terminal.
        process: What runs the VMM.
    """

    def __init__(self, console: Console, process: VmmProcess) -> None:
        self.console = console
        self.process = process

    def status(self) -> dict[str, Any]:
        """What the VMM's process tells."""
        return self.process.status()

    async def stopped(self) -> str:
        """Wait until the guest is off; the reason."""
        deadline = time.monotonic() + BOOT_S
        while self.status()["state"] != "stopped":
            assert time.monotonic() < deadline, f"still {self.status()}"
            await asyncio.sleep(0.01)
        return str(self.status()["reason"])


def write_initrd(path: Path, vmm: Vmm, **content: Any) -> None:
    """Write an initial RAM disk for the kernel that is installed."""
    with path.open("wb") as file:
        write_initramfs(file, InitramfsPlan(vmm=vmm, modules=kernel_modules(vmm, None), **content))


@pytest.fixture
async def booted(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Booted]:
    """A kernel with the initial RAM disk that the test's parameter says."""
    vmm, content = request.param
    write_initrd(tmp_path / "initrd", vmm, **content)
    topology = topology_from_text(TEXT.format(vmm=vmm), Origin("t.toml", None, tmp_path))
    (spec,) = [spec for spec in topology.specs() if isinstance(spec, VmmSpec)]
    stop, console = asyncio.Event(), Console()
    process = VmmProcess(topology, spec)
    path = serial_socket(topology.run_dir, "a")
    path.parent.mkdir(parents=True, exist_ok=True)
    server = await asyncio.start_unix_server(console.serve, path)
    task = asyncio.create_task(process.run(stop))
    yield Booted(console, process)
    stop.set()
    await task
    server.close()
    await server.wait_closed()


UML: tuple[Vmm, dict[str, Any]] = ("uml", {})
QEMU: tuple[Vmm, dict[str, Any]] = ("qemu", {})
needs_uml = needs_vmm("uml")
needs_qemu = needs_vmm("qemu")


async def shell_works(booted: Booted) -> None:
    """Job control, a terminal, Ctrl-C to the guest alone, drivers, and the end."""
    await booted.console.expect(rb"# (\x1b\[6n)?$")
    booted.console.type(b"echo mode=$- modules=$(lsmod | grep -c ^virtio_blk)\n")
    await booted.console.expect(rb"mode=\w*m\w* modules=1\r\n")
    booted.console.type(b"sh -c 'echo child=$((6 * 7)); exec sleep 1000'\n")  # who prints is who gets the Ctrl-C
    await booted.console.expect(rb"child=42\r\n")
    booted.console.type(b"\x03")
    await booted.console.expect(rb"\^C\r\n/ # ")
    booted.console.type(b"echo arrived=$?\n")
    await booted.console.expect(rb"arrived=130\r\n")
    keeper = booted.status()["keeper_pid"]
    booted.console.type(b"exit\n")
    assert await booted.stopped() == "powered off"
    assert start_ticks(keeper) is None


@pytest.mark.firmware
@needs_uml
@pytest.mark.parametrize("booted", [UML], indirect=True)
async def test_user_mode_linux_boots_to_a_shell_and_powers_off(booted: Booted) -> None:
    """Without any device but its console."""
    await shell_works(booted)


@pytest.mark.firmware
@needs_qemu
@pytest.mark.timeout(300)
@pytest.mark.parametrize("booted", [QEMU], indirect=True)
async def test_qemu_boots_to_a_shell_and_powers_off(booted: Booted) -> None:
    """The same RAM disk with the modules of the other kernel."""
    await shell_works(booted)


@pytest.mark.firmware
@needs_uml
@pytest.mark.parametrize("booted", [("uml", {"script": SCRIPT, "programs": (Path("/sbin/mke2fs"),)})], indirect=True)
async def test_script_runs_and_a_program_finds_its_libraries(booted: Booted) -> None:
    """Behind the script the guest switches itself off."""
    await booted.console.expect(rb"answer=42\r\n")
    await booted.console.expect(rb"mke2fs 1\.\d+")
    await booted.console.expect(rb"script ended with status 0\r\n")

    assert await booted.stopped() == "powered off"


def processes_about(path: Path) -> list[int]:
    """Numbers of the processes that have a path on their command line."""
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found += [int(entry.parent.name)] if os.fsencode(path) in entry.read_bytes() else []
    return found


@pytest.mark.firmware
@needs_uml
async def test_nothing_of_user_mode_linux_survives_a_kill_of_its_process(tmp_path: Path) -> None:
    """Its helpers do not end with it, and one of them is in a session of its own."""
    write_initrd(tmp_path / "initrd", "uml")
    (tmp_path / "t.toml").write_text(TEXT.format(vmm="uml"))
    path = serial_socket(load_topology(tmp_path / "t.toml").run_dir, "a")
    path.parent.mkdir(parents=True)
    console = Console()
    async with await asyncio.start_unix_server(console.serve, path):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "services.vmm"),
            env=os.environ | {ENVIRONMENT_KEY: str(tmp_path / "t.toml")},
            start_new_session=True,
        )
        await console.expect(rb"# (\x1b\[6n)?$")
        own = path.with_name("a.uml")
        assert len(processes_about(own)) > 3

        process.kill()
        await process.wait()

        deadline = time.monotonic() + BOOT_S
        while left := processes_about(own):
            assert time.monotonic() < deadline, f"{left} are left"
            await asyncio.sleep(0.01)


def test_installed_vmms_and_kernels_are_found() -> None:
    """What is there is a file; what is not is None."""
    found = [vmm_program("qemu"), vmm_program("uml"), newest_kernel()]

    assert all(path is None or path.is_file() for path in found)
