"""Supervision with small real processes: order, restart, kill, orphans."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iovirt_dist.errors import LocalError
from iovirt_dist.ids import ProcessName
from iovirt_dist.runtime import child, supervise
from iovirt_dist.runtime.rundir import SUPERVISOR, RunDir
from iovirt_dist.runtime.status import StatusWriter, read_status_file, start_ticks
from iovirt_dist.runtime.supervise import Supervisor, refuse_orphans
from iovirt_dist.runtime.takedown import take_down
from iovirt_dist.topology import Kind, ProcessSpec, Restart

IDLE = "import signal; signal.pause()"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"


def process(name: str, kind: Kind, code: str, restart: Restart = "always") -> ProcessSpec:
    """A process that runs a line of Python."""
    return ProcessSpec(ProcessName(name), kind, (sys.executable, "-I", "-S", "-c", code), restart)


class Harness:
    """A supervisor with its reports in a queue.

    Args:
        run_dir: Where.
    """

    def __init__(self, run_dir: RunDir) -> None:
        self.run_dir = run_dir
        self.reports: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.seen: list[tuple[str, str]] = []
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()

    def run(self, *processes: ProcessSpec, grace_s: float = 5.0) -> asyncio.Task[bool]:
        """Start supervising."""
        self.supervisor = Supervisor(
            self.run_dir,
            processes,
            environ=os.environ,
            cwd=self.run_dir.path,
            report=lambda name, text: self.reports.put_nowait((name, text)),
            grace_s=grace_s,
        )
        return asyncio.create_task(self.supervisor.run(self.stop, self.hurry))

    async def until(self, condition: Callable[[str, str], bool]) -> tuple[str, str]:
        """Wait for a report."""
        while True:
            self.seen.append(await asyncio.wait_for(self.reports.get(), 10))
            if condition(*self.seen[-1]):
                return self.seen[-1]

    async def until_log(self, name: str, text: str) -> None:
        """Wait until a process has printed something."""
        while text not in self.run_dir.log(name).read_text():
            await asyncio.sleep(0.005)


async def until_gone(pid: int) -> None:
    """Wait until a process that is not our child has ended; the test's timeout is the limit."""
    while start_ticks(pid) is not None:
        await asyncio.sleep(0.005)


def pid_of(report: tuple[str, str]) -> int:
    """The process number in ``started (pid N)``."""
    return int(report[1].partition("pid ")[2].rstrip(")"))


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    """A harness on a fresh run directory."""
    run_dir = RunDir(tmp_path / "run")
    run_dir.create()
    return Harness(run_dir)


async def test_stop_goes_from_guests_to_controllers(harness: Harness) -> None:
    """No request loses its server while its client still runs."""
    running = harness.run(
        process("disk0", "block", IDLE), process("hv0", "hypervisor", IDLE), process("alice", "guest", IDLE)
    )
    for _ in range(3):
        await harness.until(lambda _, text: text.startswith("started"))
    harness.stop.set()
    assert await running
    rest = [harness.reports.get_nowait()[0] for _ in range(harness.reports.qsize())]
    assert rest == ["alice", "hv0", "disk0"]
    assert harness.run_dir.leftovers() == []


async def test_process_that_is_killed_while_it_serves_is_back_soon_every_time(harness: Harness) -> None:
    """Its status file tells that it served; the delay stays short however often it happens."""
    serve = 'import os; open("status/hv0.json", "w").write(\'{"name": "hv0", "pid": %d}\' % os.getpid())'
    running = harness.run(process("hv0", "hypervisor", f"{serve}; os.kill(os.getpid(), 9)"))
    for _ in range(4):
        await harness.until(lambda _, text: text.startswith("ended"))
    harness.stop.set()
    await running
    ends = [text for _, text in harness.seen if text.startswith("ended")]
    assert ends == [
        "ended (killed by SIGKILL); starts again in 0.1 s",
        *["ended (killed by SIGKILL); starts again in 0.2 s"] * 3,
    ]


async def test_crash_is_restarted_and_counted(harness: Harness) -> None:
    """SIGKILL of one process is a new process after the first back-off."""
    running = harness.run(process("hv0", "hypervisor", IDLE))
    first = pid_of(await harness.until(lambda _, text: text.startswith("started")))
    os.killpg(first, signal.SIGKILL)
    assert await harness.until(lambda _, text: text == "ended (killed by SIGKILL); starts again in 0.1 s")
    second = pid_of(await harness.until(lambda _, text: text.startswith("started")))
    assert second != first
    harness.stop.set()
    assert await running
    assert start_ticks(second) is None


async def test_all_ended_for_good_returns_false(harness: Harness) -> None:
    """A wrong configuration everywhere ends the supervisor too, instead of an empty vigil."""
    running = harness.run(process("hv0", "hypervisor", "raise SystemExit(2)"), process("a", "guest", "", "on-failure"))
    assert not await asyncio.wait_for(running, 10)
    texts = {harness.reports.get_nowait() for _ in range(harness.reports.qsize())}
    assert ("hv0", "ended (exit status 2)") in texts
    assert ("a", "ended (exit status 0)") in texts


async def test_deaf_process_is_killed_after_the_grace(harness: Harness) -> None:
    """SIGTERM ignored is SIGKILL later."""
    running = harness.run(process("hv0", "hypervisor", DEAF), grace_s=0.05)
    await harness.until(lambda _, text: text.startswith("started"))
    await harness.until_log("hv0", "deaf")
    harness.stop.set()
    assert await running
    assert await harness.until(lambda _, text: text == "does not end: killed")


async def test_hurry_kills_without_waiting_for_the_grace(harness: Harness) -> None:
    """A second Ctrl-C is obeyed at once."""
    running = harness.run(process("hv0", "hypervisor", DEAF), grace_s=60.0)
    await harness.until(lambda _, text: text.startswith("started"))
    await harness.until_log("hv0", "deaf")
    harness.stop.set()
    harness.hurry.set()
    assert await asyncio.wait_for(running, 10)
    assert await harness.until(lambda _, text: text == "second interrupt: killed")


async def test_start_that_the_system_refuses_is_tried_again(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many processes for the moment is no reason to end the supervisor."""
    spawn = asyncio.create_subprocess_exec
    refusals = [BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))]

    async def refuse_once(*argv: str, **options: Any) -> asyncio.subprocess.Process:
        for refusal in refusals[:]:
            refusals.clear()
            raise refusal
        return await spawn(*argv, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse_once)
    running = harness.run(process("hv0", "hypervisor", IDLE))
    assert await harness.until(lambda _, text: text.startswith("started"))
    refused = "ended (cannot start: Resource temporarily unavailable); starts again in 0.1 s"
    assert harness.seen[0] == ("hv0", refused)
    harness.stop.set()
    assert await running


async def test_full_file_system_ends_nobodys_supervision(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """What crashes is started again, and the status file is written once there is room."""
    update, full = StatusWriter.update, [True]

    def refuse(writer: StatusWriter, *arguments: Any, **content: Any) -> bool:
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return update(writer, *arguments, **content)

    monkeypatch.setattr(StatusWriter, "update", refuse)
    monkeypatch.setattr(supervise, "WRITE_AGAIN_S", 0.01)
    running = harness.run(process("hv0", "hypervisor", IDLE))
    first = pid_of(await harness.until(lambda _, text: text.startswith("started")))
    os.killpg(first, signal.SIGKILL)
    second = pid_of(await harness.until(lambda _, text: text.startswith("started")))
    before = read_status_file(harness.run_dir.status(SUPERVISOR))
    full.clear()
    while (told := read_status_file(harness.run_dir.status(SUPERVISOR))) is None:
        await asyncio.sleep(0.005)
    harness.stop.set()

    assert await running
    assert before is None
    assert told.content["processes"]["hv0"]["pid"] == second
    assert harness.run_dir.leftovers() == []


async def test_grandchild_dies_with_its_crashed_parent(harness: Harness) -> None:
    """What a process started itself is in its group."""
    code = (
        "import os, signal; read, write = os.pipe()\n"
        "if os.fork() == 0: print('pid', os.getpid(), flush=True); os.close(read); signal.pause()\n"
        "os.close(write); print('up', flush=True); os.read(read, 1)"
    )
    running = harness.run(process("hv0", "hypervisor", code, "never"))
    first = pid_of(await harness.until(lambda _, text: text.startswith("started")))
    await harness.until_log("hv0", "up")
    await harness.until_log("hv0", "pid ")
    os.kill(first, signal.SIGKILL)
    assert not await asyncio.wait_for(running, 10)
    await until_gone(int(harness.run_dir.log("hv0").read_text().split("pid ")[1].split()[0]))


async def test_child_whose_supervisor_is_gone_does_not_start() -> None:
    """The window between fork and PR_SET_PDEATHSIG is closed by looking at the parent once more."""
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", child.__file__, "1", sys.executable, "-c", "raise SystemExit(9)")
    )
    assert await started.wait() == 0


def test_refuse_orphans_names_the_living(harness: Harness) -> None:
    """Two lives of one topology must not share a run directory."""
    StatusWriter(harness.run_dir, "hv0", "hypervisor", epoch=1, started_ns=0).update(0)
    with pytest.raises(LocalError, match=rf"still run .*: hv0 \(pid {os.getpid()}\); stop them with 'iovirt down'"):
        refuse_orphans(harness.run_dir)


async def test_take_down_ends_orphans_and_cleans(harness: Harness) -> None:
    """Without a supervisor the status files say whom to stop."""
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path; from iovirt_dist.runtime.rundir import RunDir\n"
        "from iovirt_dist.runtime.status import StatusWriter; import signal\n"
        "StatusWriter(RunDir(Path(sys.argv[1])), 'hv0', 'hypervisor', 1, 0).update(0); print('up', flush=True)\n"
        "signal.pause()"
    )
    orphan = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, str(harness.run_dir.path), *sys.path), stdout=asyncio.subprocess.PIPE
    )
    assert orphan.stdout is not None
    assert await orphan.stdout.readline() == b"up\n"
    result = await asyncio.to_thread(take_down, harness.run_dir)
    assert result == (["hv0"], [], ["status/hv0.json"])
    assert await orphan.wait() == -signal.SIGTERM


def test_take_down_of_nothing_does_nothing(tmp_path: Path) -> None:
    """Going down twice is no error."""
    assert take_down(RunDir(tmp_path / "absent")) == ([], [], [])


def test_take_down_leaves_a_later_process_of_that_number_alone(harness: Harness) -> None:
    """The status file of the dead names our own number, but another start time."""
    harness.run_dir.status("hv0").write_text(f'{{"name": "hv0", "pid": {os.getpid()}, "start_ticks": 1}}')
    assert take_down(harness.run_dir) == ([], [], ["status/hv0.json"])


async def test_processes_come_and_go_while_others_run(harness: Harness) -> None:
    """One that is removed is stopped for good, one that waits for its restart is not started again."""
    running = harness.run(process("hv0", "hypervisor", IDLE))
    await harness.until(lambda _, text: text.startswith("started"))

    harness.supervisor.add([process("alice", "guest", IDLE), process("bob", "guest", "raise SystemExit(1)")])
    alice = pid_of(await harness.until(lambda name, text: name == "alice" and text.startswith("started")))
    await harness.until(lambda name, text: name == "bob" and "starts again" in text)
    await harness.supervisor.remove({"alice", "bob"})
    harness.supervisor.tell(revision=3)
    status = read_status_file(harness.run_dir.status(SUPERVISOR))

    assert start_ticks(alice) is None
    assert status is not None
    assert (list(status.content["processes"]), status.content["revision"]) == (["hv0"], 3)
    harness.stop.set()
    assert await running


async def test_process_that_is_removed_and_does_not_end_is_killed(harness: Harness) -> None:
    """After its grace, as when everything is stopped."""
    running = harness.run(process("hv0", "hypervisor", IDLE), process("deaf", "guest", DEAF), grace_s=0.2)
    deaf = pid_of(await harness.until(lambda name, text: name == "deaf" and text.startswith("started")))
    await harness.until_log("deaf", "deaf")

    await harness.supervisor.remove({"deaf"})

    assert start_ticks(deaf) is None
    assert ("deaf", "does not end: killed") in [harness.reports.get_nowait() for _ in range(harness.reports.qsize())]
    harness.stop.set()
    assert await running


async def test_process_that_is_added_while_everything_stops_is_not_started(harness: Harness) -> None:
    """Nothing would stop it."""
    running = harness.run(process("hv0", "hypervisor", DEAF), grace_s=0.2)
    await harness.until(lambda _, text: text.startswith("started"))
    await harness.until_log("hv0", "deaf")
    harness.stop.set()
    await harness.until(lambda _, text: text == "does not end: killed")

    harness.supervisor.add([process("alice", "guest", IDLE)])

    assert await running
    assert "alice" not in [name for name, _ in [harness.reports.get_nowait() for _ in range(harness.reports.qsize())]]
