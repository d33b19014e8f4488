"""Handles of real processes: start, break, look at, and know afterwards whether they ended well."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence

from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.status import ProcessStatus, read_status_file
from iovirt_dist.testing.forked import ForkedService
from iovirt_dist.topology.specs import ProcessSpec

POLL_S = 0.02
"""How often a condition is looked at; never how long something is assumed to take."""

START_S = 20.0
"""Default time for a process to start, or to notice something: generous, because a test machine may be busy."""

TAIL_LINES = 40


async def eventually(done: Callable[[], bool], timeout_s: float, failure: Callable[[], str]) -> None:
    """Wait until a condition holds.

    Raises:
        AssertionError: It does not hold in time; the text is what `failure` returns then.
    """
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline:
            raise AssertionError(f"{failure()}\n(waited {timeout_s:g} s)")
        await asyncio.sleep(POLL_S)


class ProcessHandle:
    """One process of a topology, through all its lives.

    Args:
        spec: How to start it.
        run_dir: Where its log and status are.
        environ: Its environment.
        enter: Command in front of its own, which replaces itself with it; without one it is forked, which is faster.

    Attributes:
        name: Its name in the topology.
        kind: Its process type.
        killed: Its last life was ended with SIGKILL by the test, so what it leaves behind is not its fault.
        expected_exit: Exit status with which the test lets it end; any other one fails the test.
    """

    def __init__(self, spec: ProcessSpec, run_dir: RunDir, environ: dict[str, str], enter: Sequence[str] = ()) -> None:
        self.name = str(spec.name)
        self.kind = spec.kind
        self.killed = False
        self.expected_exit = 0
        self._spec = spec
        self._run_dir = run_dir
        self._environ = environ
        self._enter = enter
        self._process: ForkedService | subprocess.Popen[bytes] | None = None

    # --- life

    def start(self) -> None:
        """Start it and return at once; `wait_running` waits.

        Raises:
            RuntimeError: It runs already.
        """
        if self.running:
            raise RuntimeError(f"{self.name} runs already (pid {self.pid})")
        self.killed = False
        log = self._run_dir.open_log(self.name)
        try:
            self._process = self._executed(log) if self._enter else self._forked()
        finally:
            os.close(log)

    def _forked(self) -> ForkedService:
        return ForkedService(self._spec, self._run_dir.log(self.name), self._environ, self._run_dir.path)

    def _executed(self, log: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - the topology says what to run
            (*self._enter, *self._spec.argv),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=self._environ,
            cwd=self._run_dir.path,
            start_new_session=True,
        )

    @property
    def started(self) -> bool:
        """Whether it was ever started."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """Process number of the present or last life; 0 if it was never started."""
        return self._process.pid if self._process is not None else 0

    @property
    def returncode(self) -> int | None:
        """Exit status of the last life, negative for a signal; None while it lives or if it was never started."""
        return self._process.poll() if self._process is not None else None

    @property
    def running(self) -> bool:
        """Whether it lives now."""
        return self.started and self.returncode is None

    def kill(self) -> None:
        """SIGKILL; it is gone when this returns."""
        if self.running and self._process is not None:
            self.killed = True
            self._process.kill()
            self._process.wait()

    def terminate(self) -> None:
        """Send SIGTERM and return at once; `exited` waits."""
        self.send_signal(signal.SIGTERM)

    def send_signal(self, number: signal.Signals) -> None:
        """Send any signal, if it lives: SIGINT, or SIGSTOP and SIGCONT for a process that hangs."""
        if self.running and self._process is not None:
            self._process.send_signal(number)

    async def exited(self, timeout: float = 5.0) -> int:
        """Wait until it has ended; returns its exit status.

        Raises:
            AssertionError: It lives on.
        """
        await eventually(lambda: not self.running, timeout, lambda: f"{self.name} does not end\n{self.tail()}")
        code = self.returncode
        assert code is not None, f"{self.name} was never started"
        return code

    async def restart(self) -> None:
        """Kill it if it lives, start it, and wait until it runs."""
        self.kill()
        self.start()
        await self.wait_running()

    # --- looking

    @property
    def log(self) -> str:
        """Everything that it printed, over all lives."""
        path = self._run_dir.log(self.name)
        return path.read_text("utf-8", "replace") if path.is_file() else ""

    def tail(self, lines: int = TAIL_LINES) -> str:
        """Return the end of its log, under a heading."""
        text = "\n".join(self.log.splitlines()[-lines:])
        return f"--- log of {self.name} ---\n{text or '(empty)'}"

    def status(self) -> ProcessStatus | None:
        """Return what this life of the process says about itself; None before it does."""
        status = read_status_file(self._run_dir.status(self.name))
        return status if status is not None and status.pid == self.pid and status.alive else None

    async def wait_status(
        self,
        holds: Callable[[ProcessStatus], bool],
        timeout: float = START_S,
        what: str = "the status that is waited for",
    ) -> ProcessStatus:
        """Wait until its status file says something; returns that status.

        Raises:
            AssertionError: It does not say so in time, or has ended; the text shows status and log.
        """
        found: list[ProcessStatus] = []

        def look() -> bool:
            status = self.status()
            if status is not None and holds(status):
                found.append(status)
                return True
            assert self.running, f"{self.name} is not running (exit status {self.returncode})\n{self.tail()}"
            return False

        await eventually(look, timeout, lambda: f"{self.name}: not {what}: {self.status()}\n{self.tail()}")
        return found[0]

    async def wait_state(self, state: str, timeout: float = START_S) -> ProcessStatus:
        """Wait until it is in a state, e.g. ``running``, ``halted``, ``stopped``; raises as `wait_status` does."""
        return await self.wait_status(lambda status: status.state == state, timeout, f"in state {state}")

    async def wait_running(self, timeout: float = START_S) -> ProcessStatus:
        """Wait until it has a status file: it is up and serves; raises as `wait_status` does."""
        return await self.wait_status(lambda _: True, timeout, "up")

    async def wait_log(self, text: str, timeout: float = START_S, since: int = 0) -> None:
        """Wait until its log holds `text` at or behind the character `since`.

        Raises:
            AssertionError: It does not.
        """
        await eventually(
            lambda: text in self.log[since:], timeout, lambda: f"{self.name} did not log {text!r}\n{self.tail()}"
        )
