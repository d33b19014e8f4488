"""The life of a service process: signals, errors, exit status."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Iterator

import pytest

from iovirt_dist.errors import ConfigError, EndpointError, ImageError, IovirtError
from iovirt_dist.runtime.service import EXIT_DONE, EXIT_FAILED, EXIT_USAGE, run_service
from iovirt_dist.topology.selection import UnusedServiceError


@pytest.fixture(autouse=True)
def _logging_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A service sets up logging for its process, which here is the tests' own."""
    monkeypatch.delenv("HONCHO_PROCESS_NAME", raising=False)
    monkeypatch.delenv("IOVIRT_SUPERVISED", raising=False)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_service_that_is_signalled_stops_as_asked(number: signal.Signals) -> None:
    """It takes itself down in its own time, and ends with status 0."""
    steps = []

    async def serve(stop: asyncio.Event) -> None:
        os.kill(os.getpid(), number)
        await asyncio.wait_for(stop.wait(), 5)
        steps.append("took itself down")

    assert run_service("test", serve) == EXIT_DONE
    assert steps == ["took itself down"]


def test_service_that_the_topology_does_not_use_is_idle(caplog: pytest.LogCaptureFixture) -> None:
    """Under honcho its end would be the end of all others."""

    async def serve(stop: asyncio.Event) -> None:
        asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGTERM)
        raise UnusedServiceError("no rng in this topology", "t.toml")

    with caplog.at_level(logging.INFO):
        assert run_service("rng", serve) == EXIT_DONE
    assert "t.toml: no rng in this topology: idle" in caplog.text


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError("unknown key", "topology.toml: guest.x", "remove it"), EXIT_USAGE),
        (ImageError("it is truncated", "kernel.elf"), EXIT_USAGE),
        (EndpointError("address is in use", "ipc:///x"), EXIT_FAILED),
    ],
)
def test_service_that_fails_on_purpose_says_so_in_one_line(
    error: IovirtError, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """What, where, what to do; the status tells a wrong configuration from a failure."""

    async def serve(stop: asyncio.Event) -> None:
        raise error

    code = run_service("test", serve)

    assert code == status
    assert capsys.readouterr().err == f"iovirt: error: test: {error}\n"


def test_service_with_an_error_of_ours_does_not_hide_it() -> None:
    """A defect is a traceback."""

    async def serve(stop: asyncio.Event) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_service("test", serve)
