"""``iovirt nbd`` as a user runs it: its address, its limits, its end, and what is in its way."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.processes.nbd_client import NbdClient

START_S = 60.0
STOP_S = 20.0

Start: TypeAlias = Callable[..., Awaitable[asyncio.subprocess.Process]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts ``iovirt nbd`` with options in a folder of its own, which is its folder for temporary files, too."""
    started: list[asyncio.subprocess.Process] = []
    environ = {key: value for key, value in os.environ.items() if not key.startswith("IOVIRT_")}

    async def start(*options: str) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "iovirt_dist.cli.main", "nbd", *options),
            cwd=tmp_path,
            env=environ | {"TMPDIR": str(tmp_path)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def address(process: asyncio.subprocess.Process) -> str:
    """The line that is printed once clients can use the gateway."""
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), START_S)
    return line.decode().strip()


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str]:
    """Wait for its end; returns exit status and what it said on stderr."""
    _, errors = await asyncio.wait_for(process.communicate(), START_S)
    return process.returncode, errors.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_image_is_served_until_a_signal_and_nothing_else_stays(
    start: Start, tmp_path: Path, number: signal.Signals
) -> None:
    """What was written is in the image."""
    process = await start("new.img", "--disk-size", "1MiB", "--socket", "my.sock", "--export", "mine")
    uri = await address(process)
    client = await NbdClient.connect(tmp_path / "my.sock", "mine")
    await client.write(4096, b"kept" * 128)
    await client.leave()
    await client.close()

    process.send_signal(number)
    code, errors = await asyncio.wait_for(ended(process), STOP_S)

    assert uri == f"nbd+unix:///mine?socket={tmp_path}/my.sock"
    assert (code, errors) == (0, "")
    assert (tmp_path / "new.img").read_bytes()[4096:4608] == b"kept" * 128
    assert [path.name for path in tmp_path.iterdir()] == ["new.img"]


async def test_limit_of_requests_holds_for_clients(start: Start, tmp_path: Path) -> None:
    """Sixty requests at fifty a second, of which a few may come at once."""
    process = await start("new.img", "--disk-size", "1MiB", "--socket", "my.sock", "--iops", "50")
    await address(process)
    client = await NbdClient.connect(tmp_path / "my.sock")
    began = time.monotonic()

    await asyncio.gather(*(client.read(4096 * at, 4096) for at in range(60)))
    took_s = time.monotonic() - began
    await client.close()

    assert took_s > 1.0


async def test_port_is_served_on_loopback(start: Start) -> None:
    """Clients of this machine need no path."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = await start("new.img", "--disk-size", "1MiB", "--port", str(port))

    uri = await address(process)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    greeting = await reader.readexactly(8)
    writer.close()
    await writer.wait_closed()

    assert (uri, greeting) == (f"nbd://127.0.0.1:{port}/nbd", b"NBDMAGIC")


async def test_socket_in_use_is_one_line(start: Start, tmp_path: Path) -> None:
    """It is found before the image is made."""
    path = tmp_path / "busy"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        code, errors = await ended(await start("new.img", "--disk-size", "1MiB", "--socket", "busy"))

    assert code == 1
    assert errors == f"iovirt: error: {path}: the path is in use; stop who listens there, or choose another path\n"
    assert sorted(found.name for found in tmp_path.iterdir()) == ["busy"]
