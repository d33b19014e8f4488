"""The pytest plugin: fixtures that start a topology of real processes.

Installed with the package (entry point ``pytest11``), so a test only asks for the fixture:

    async def test_guest_reads_its_disk(iovirt):
        topology = await iovirt.up()                       # the built-in topology: one guest, one disk, one terminal
        await topology.console().expect(r"job: done")
        topology.controller("disk0").kill()                # SIGKILL, and the rest goes on
        await topology.controller("disk0").restart()

Every topology has a run directory and sockets of its own. When the test ends, everything is stopped in order, and the
test fails if a process had to be killed, ended badly, printed a traceback or left a socket, lock or status file behind.
The end of each process's log is added to the report of a test that fails.

It needs pytest-asyncio, in any mode. Nothing else of the package is imported before the fixture is used.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from iovirt_dist.testing.live import TopologyFactory

FACTORY = pytest.StashKey["TopologyFactory"]()

try:
    from pytest_asyncio import fixture as async_fixture
except ImportError:  # then tests that ask for the fixture are told so, and all others do not notice

    @pytest.fixture
    def iovirt() -> None:
        """Without pytest-asyncio there is no event loop to run a topology on."""
        pytest.fail("the fixture 'iovirt' needs pytest-asyncio: pip install pytest-asyncio", pytrace=False)

else:

    @async_fixture
    async def iovirt(request: pytest.FixtureRequest) -> AsyncIterator[TopologyFactory]:  # type: ignore[misc]  # one of two
        """Start topologies of real processes; see `iovirt_dist.testing.live.TopologyFactory.up`."""
        from iovirt_dist.testing.live import TopologyFactory  # noqa: PLC0415 - loading the plugin must cost nothing

        factory = TopologyFactory()
        request.node.stash[FACTORY] = factory
        yield factory
        problems = await factory.down()
        if problems:
            pytest.fail("the topology did not end well: " + "; ".join(problems), pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Add the end of each process's log to the report of a test that failed."""
    report = yield
    factory = item.stash.get(FACTORY, None)
    if factory is not None and report.failed:
        report.sections += [(f"log of {name}", text) for name, text in factory.reports().items()]
    return report
