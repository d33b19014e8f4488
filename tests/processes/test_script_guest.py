"""Script guests as processes: devices, load, failure, and the loss of the hypervisor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from iovirt_dist.cli.main import main
from iovirt_dist.runtime.status import ProcessStatus
from iovirt_dist.testing.live import TopologyFactory

LOAD = "iovirt_dist.guest.script.load:main"

SCRIPT = '''
from iovirt_dist.guest.script import ScriptGuest, VirtioSlot, open_console, open_disk, open_entropy

async def devices(guest: ScriptGuest) -> None:
    """Uses every device once."""
    interrupts = guest.parameters["interrupts"]
    disk = await open_disk(guest.virtio(VirtioSlot.DISK), interrupts=interrupts)
    await disk.write(100, b"script" + bytes(506))
    await disk.flush()
    guest.results["sector"] = (await disk.read(100, 1))[:6].decode()
    rng = await open_entropy(guest.virtio(VirtioSlot.ENTROPY), interrupts=interrupts)
    guest.results["random"] = len(set(await rng.read(4096)))
    console = await open_console(guest.virtio(VirtioSlot.CONSOLE), interrupts=interrupts)
    await console.write(b"say something: ")
    line = await console.read_line()
    await console.write(b"you said " + line + b"\\r\\n")
    guest.results["interrupts"] = guest.interrupts_taken

async def idle(guest: ScriptGuest) -> None:
    """Waits."""
    await guest.event()

async def fail(guest: ScriptGuest) -> None:
    """Fails."""
    raise ValueError("on purpose")
'''


def tables(script: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
    """A topology with one script guest that has every device."""
    return {
        "topology": {"lease": "1s"},
        "hypervisor": {"hv0": {}},
        "controller": {
            "disk0": {"kind": "block", "image": "disk0.img", "size": "1MiB", "durability": "write-back"},
            "tty0": {"kind": "console"},
            "rng0": {"kind": "rng"},
        },
        "guest": {
            "script": {
                "kind": "script",
                "hypervisor": "hv0",
                "script": script,
                "parameters": parameters or {},
                "devices": {"disk": "disk0", "console": "tty0", "virtio_console": "tty0", "rng": "rng0"},
            }
        },
    }


@pytest.fixture
def script(tmp_path: Path) -> str:
    """The file above, as a topology names it; append a function."""
    path = tmp_path / "double.py"
    path.write_text(SCRIPT)
    return str(path)


def _of_script(hypervisor: ProcessStatus) -> dict[str, Any]:
    """What a hypervisor tells of the guest."""
    guest: dict[str, Any] = hypervisor.content["guests"]["script"]
    return guest


@pytest.mark.parametrize("interrupts", [False, True])
async def test_script_uses_every_device(iovirt: TopologyFactory, script: str, interrupts: bool) -> None:
    """Disk, entropy and console, polled and with interrupts; the console is a terminal one can type into."""
    topology = await iovirt.up(tables(f"{script}:devices", {"interrupts": interrupts}))
    console = topology.console("script.hvc0")

    await console.expect("say something: ")
    console.send_line("hello")
    await console.expect(r"^you said hello$")
    status = await topology.guest().wait_state("stopped")

    results = status.content["results"]
    assert status.reason == "script ended"
    assert results["sector"] == "script"
    assert results["random"] > 200
    assert (results["interrupts"] > 0) == interrupts
    assert (topology.run_dir.path / "disk0.img").read_bytes()[51200:51206] == b"script"


async def test_load_generator_keeps_the_depth_in_flight_and_both_sides_count_the_same(
    iovirt: TopologyFactory,
) -> None:
    """A thousand reads in far fewer doorbells, none of them lost."""
    parameters = {"depth": 64, "requests": 1024, "warm_up_seconds": 0.0, "seconds": 60.0, "batch": 32}
    topology = await iovirt.up(tables(LOAD, parameters))

    status = await topology.guest().wait_state("stopped")
    known = await topology.hypervisor().wait_status(lambda known: _of_script(known)["state"] == "stopped")
    traps = status.content["traps"]

    assert status.reason == "script ended"
    assert (status.content["results"]["requests"], status.content["results"]["failed"]) == (1024, 0)
    assert traps == _of_script(known)["traps"]
    assert traps["doorbell"] <= 1024 // 32 + 1


async def test_script_that_raises_stops_with_one_line(iovirt: TopologyFactory, script: str) -> None:
    """The process stays, as a guest's does; the log has the traceback."""
    topology = await iovirt.up(tables(f"{script}:fail"))
    topology.tracebacks_expected = True

    status = await topology.guest().wait_state("stopped")

    assert status.reason.startswith("script failed: ValueError: on purpose (double.py:")
    assert "Traceback (most recent call last)" in topology.guest().log
    assert topology.guest().running


async def test_script_survives_the_hypervisor(iovirt: TopologyFactory, script: str) -> None:
    """A new hypervisor has new devices: the script starts from its beginning."""
    topology = await iovirt.up(tables(f"{script}:idle"))
    await topology.guest().wait_state("running")

    topology.hypervisor().kill()
    await topology.guest().wait_log("hypervisor hv0 lost")
    await topology.hypervisor().restart()
    await topology.guest().wait_status(lambda _: topology.guest().log.count("power on") == 2)

    assert topology.guest().running


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("devcies", "no function 'devcies'; did you mean 'devices'?"),
        ("ScriptGuest", "'ScriptGuest' is no coroutine function"),
    ],
)
def test_script_that_is_none_ends_the_run_with_one_line(
    script: str, name: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The process says what is wrong with it, and ``iovirt run`` says it again."""
    assert main(["run", "--script", f"{script}:{name}", "--timeout", "30"]) == 1
    assert message in capfd.readouterr().err


def test_run_of_a_script_shows_what_it_says(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The load generator in one command."""
    monkeypatch.chdir(tmp_path)
    command = ["run", "--script", LOAD, "--disk", "d.img", "--disk-size", "1MiB", "--timeout", "60"]
    assert main([*command, "-p", "requests=100", "-p", "warm_up_seconds=0.0", "-p", "depth=4"]) == 0
    assert "script: requests=100 " in capfd.readouterr().err


CLEARING = '''

async def clear(guest: ScriptGuest) -> None:
    """Fills its disk, clears most of it in two ways, and looks at all of it."""
    disk = await open_disk(guest.virtio(VirtioSlot.DISK))
    await disk.write(0, b"x" * (1 << 20))
    await disk.write_zeroes(10, 990)
    await disk.write_zeroes(1000, 1000, unmap=True)
    await disk.discard(2000, 40)
    await disk.flush()
    left = await disk.read(0, 2048)
    guest.results["right"] = left == b"x" * 5120 + bytes(2030 * 512) + b"x" * 4096
'''


async def test_script_clears_sectors_without_sending_zeroes(iovirt: TopologyFactory, script: str) -> None:
    """WRITE_ZEROES with and without unmap, and DISCARD, all the way to the image."""
    path = Path(script)
    path.write_text(path.read_text() + CLEARING)
    topology = await iovirt.up(tables(f"{script}:clear"))

    status = await topology.guest().wait_state("stopped")
    image = (topology.run_dir.path / "disk0.img").read_bytes()

    assert status.content["results"] == {"right": True}
    assert image == b"x" * 5120 + bytes(2030 * 512) + b"x" * 4096
