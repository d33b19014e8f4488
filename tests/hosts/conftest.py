"""Hosts of a test: each is a network namespace in which its part of a topology runs as real processes."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pytest_asyncio import fixture

from iovirt_dist.testing.documents import merged, write_topology
from iovirt_dist.testing.live import LiveTopology
from iovirt_dist.topology import Topology, load_topology
from iovirt_dist.topology.keys import key_hosts
from iovirt_dist.transport.keyring import make_keys
from tests.hosts.networks import NOT_PERMITTED, Networks


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder: where networks are not permitted they are skipped, except where they must run."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.firmware)
            item.add_marker(pytest.mark.skipif(bool(NOT_PERMITTED), reason=NOT_PERMITTED))


class Hosts:
    """A topology over several hosts.

    Attributes:
        networks: The hosts' networks and the wire between them.
        topology: All of it.
        folder: Where its file is.
    """

    def __init__(self, networks: Networks, topology: Topology, folder: Path) -> None:
        self.networks = networks
        self.topology = topology
        self.folder = folder
        self._live = {host: LiveTopology(topology.at(host), networks.enter(host)) for host in networks.hosts}
        self._twins: list[LiveTopology] = []

    def at(self, host: str) -> LiveTopology:
        """The part that runs on a host."""
        return self._live[host]

    def twin(self, host: str, network: str) -> LiveTopology:
        """A host's part once more: in another one's network, with a run directory of its own; nothing is started."""
        assert self.topology.source is not None, "tests' topologies are files"
        folder = self.folder / "twin"
        folder.mkdir()
        text = self.topology.source.read_text()
        (folder / "topology.toml").write_text(text.replace(str(self.folder), str(folder)))
        shutil.copytree(self.folder / "keys", folder / "keys")
        twin = LiveTopology(load_topology(folder / "topology.toml").at(host), self.networks.enter(network))
        self._twins.append(twin)
        return twin

    async def start(self) -> None:
        """Start everything that does not run, everywhere at once."""
        await asyncio.gather(*(live.start() for live in self._live.values()))

    async def stop(self) -> list[str]:
        """Stop everything, guests' hosts first; returns what is wrong, as `LiveTopology.stop` does."""
        ended = await asyncio.gather(*(live.stop() for live in (*self._live.values(), *self._twins)))
        return [problem for problems in ended for problem in problems]

    def reports(self) -> dict[str, str]:
        """The ends of all logs."""
        lives = (*self._live.values(), *self._twins)
        return {f"{live.run_dir.path}: {p.name}": p.tail() for live in lives for p in live.processes if p.started}


class HostsFactory:
    """Makes hosts for one test; what the fixture `hosts` gives."""

    def __init__(self) -> None:
        self.made: list[Hosts] = []

    def prepare(self, tables: Mapping[str, Any], names: tuple[str, ...] = ("a", "b")) -> Hosts:
        """Make networks and keys, and write a topology whose hosts they are; nothing is started.

        Args:
            tables: The topology without its hosts.
            names: The hosts', which get the addresses 10.77.0.1 and so on.
        """
        networks = Networks(names)
        folder = Path(tempfile.mkdtemp(prefix="iovirt-", dir="/tmp"))
        networks.__enter__()
        try:
            addresses = {host: {"address": Networks.address(number)} for number, host in enumerate(names, 1)}
            table = {"topology": {"keys": "keys"}, "host": addresses}
            made = Hosts(networks, write_topology(merged(table, tables), folder, {}), folder)
            make_keys(folder / "keys", key_hosts(made.topology))
        except BaseException:
            networks.remove()
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self.made.append(made)
        return made

    async def up(self, tables: Mapping[str, Any], names: tuple[str, ...] = ("a", "b")) -> Hosts:
        """Make hosts and start the topology on all of them; it is up when this returns."""
        made = self.prepare(tables, names)
        await made.start()
        return made

    async def down(self) -> list[str]:
        """Stop everything and remove networks and folders; returns what is wrong."""
        problems: list[str] = []
        for made in self.made:
            try:
                problems += await made.stop()
            finally:
                made.networks.remove()
                shutil.rmtree(made.folder, ignore_errors=True)
        return problems


HOSTS = pytest.StashKey[HostsFactory]()


@fixture
async def hosts(request: pytest.FixtureRequest) -> AsyncIterator[HostsFactory]:
    """Make hosts; see `HostsFactory.up`."""
    factory = HostsFactory()
    request.node.stash[HOSTS] = factory
    yield factory
    problems = await factory.down()
    if problems:
        pytest.fail("the hosts did not end well: " + "; ".join(problems), pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Add the end of each process's log to the report of a test that failed."""
    report = yield
    factory = item.stash.get(HOSTS, None)
    if factory is not None and report.failed and report.when == "call":
        report.sections += [(f"log of {name}", text) for made in factory.made for name, text in made.reports().items()]
    return report
