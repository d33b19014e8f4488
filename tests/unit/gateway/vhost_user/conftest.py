"""A back end with its front end, and a device with its socket."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from tests.unit.gateway.vhost_user.front_end import FrontEnd
from tests.unit.gateway.vhost_user.socket_client import Device, open_descriptors


@pytest.fixture
def front_end() -> FrontEnd:
    """One that has negotiated everything."""
    made = FrontEnd()
    made.negotiate()
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of the socket."""
    return tmp_path / "disk.sock"


@pytest_asyncio.fixture
async def device(path: Path) -> AsyncIterator[Device]:
    """A device that listens; afterwards no descriptor of a connection is left."""
    before = open_descriptors()
    made = Device(path)
    made.listener.start()
    yield made
    made.listener.stop()
    assert open_descriptors() == before
    assert not path.exists()


@pytest.fixture
def fds() -> Iterator[Callable[[], int]]:
    """Makes eventfds, which are closed."""
    with ExitStack() as stack:

        def make() -> int:
            fd = os.eventfd(0, os.EFD_NONBLOCK)
            stack.callback(os.close, fd)
            return fd

        yield make
