"""Processes that trust each other by keys, over tcp: who is let in, who is not, and what is said about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from iovirt_dist.runtime.status import ProcessStatus
from iovirt_dist.testing.live import LiveTopology, TopologyFactory
from iovirt_dist.testing.processes import eventually
from iovirt_dist.topology.keys import key_hosts
from iovirt_dist.transport.curve import Security, load_security, public_path, secret_path
from iovirt_dist.transport.keyring import make_keys
from iovirt_dist.transport.port import ONLY_PEER
from iovirt_dist.transport.zeromq import ZeromqPort, dial
from iovirt_dist.wire.codec import decode
from iovirt_dist.wire.messages import Message, Refuse, Role
from iovirt_dist.wire.opener import Opener
from iovirt_dist.wire.session import SendFrames, SessionConfig

PATIENCE_S = 60.0

SCRIPT = '''
from iovirt_dist.guest.script import ScriptGuest, VirtioSlot, open_disk

async def main(guest: ScriptGuest) -> None:
    """Writes and reads a sector for ever."""
    disk = await open_disk(guest.virtio(VirtioSlot.DISK))
    guest.results["rounds"] = 0
    while True:
        number = guest.results["rounds"] + 1
        await disk.write(3, number.to_bytes(512, "little"))
        assert await disk.read(3, 1) == number.to_bytes(512, "little")
        guest.results["rounds"] = number
'''


@pytest.fixture
def ports() -> Iterator[list[ZeromqPort]]:
    """What a test dials; closed at its end."""
    opened: list[ZeromqPort] = []
    yield opened
    for port in opened:
        port.close()


def tables(folder: Path) -> dict[str, Any]:
    """Two guests of one table and one of another on a disk each, everything over tcp with keys."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    guest = {"kind": "script", "hypervisor": "hv0", "script": f"{script}:main"}
    extents = {name: {"offset": f"{at}MiB", "size": "1MiB"} for at, name in enumerate(("web-1", "web-2", "solo"))}
    disk = {"kind": "block", "image": "d.img", "size": "3MiB", "durability": "write-back", "extents": extents}
    return {
        "topology": {"lease": "1s", "keys": "keys"},
        "hypervisor": {"hv0": {"endpoint": "tcp://127.0.0.1:1"}},
        "controller": {"disk0": {**disk, "endpoint": "tcp://127.0.0.1:1"}},
        "guest": {
            "web": {**guest, "count": 2, "devices": {"disk": "disk0/{name}"}},
            "solo": {**guest, "devices": {"disk": "disk0/solo"}},
        },
    }


def folder_of_keys(live: LiveTopology) -> Path:
    """The topology's."""
    assert live.topology.keys is not None
    return live.topology.keys


def endpoints(live: LiveTopology) -> dict[str, str]:
    """Where the hypervisor and the controller listen."""
    return {"hv0": live.topology.hypervisor("hv0").endpoint, "disk0": live.topology.controller("disk0").endpoint}


async def up(iovirt: TopologyFactory, tmp_path: Path) -> LiveTopology:
    """Make the keys and start everything."""
    live = iovirt.prepare(tables(tmp_path))
    make_keys(folder_of_keys(live), key_hosts(live.topology))
    await live.start()
    return live


def rounds(more_than: int) -> Callable[[ProcessStatus], bool]:
    """Whether a guest has had so many."""
    return lambda status: bool(status.content.get("results", {}).get("rounds", 0) > more_than)


NO_CURVE = frozenset({"bad-handshake", "broken-handshake"})
"""How a peer without keys is counted: as whichever end gave up first."""


async def works(live: LiveTopology) -> None:
    """Wait until every guest has written and read something more."""
    for name in ("web-1", "web-2", "solo"):
        guest = live.guest(name)
        status = guest.status()
        done = int(status.content.get("results", {}).get("rounds", 0)) if status is not None else 0
        await guest.wait_status(rounds(done), PATIENCE_S, what=f"round {done + 1} of {name}")


def counted(wrong_keys: int) -> Callable[[ProcessStatus], bool]:
    """Whether a process has rejected so many names."""
    return lambda status: bool(status.content["rejects"].get("wrong-key", 0) == wrong_keys)


def say_hello(port: ZeromqPort, role: Role, name: str, server: str) -> None:
    """Ask for a session."""
    for output in Opener(SessionConfig(role, name, 1 << 62), server).start(0):
        assert isinstance(output, SendFrames)
        port.send(ONLY_PEER, output.frames)


async def answer(port: ZeromqPort) -> Message:
    """The next message that comes."""
    seen: list[Message] = []

    def comes() -> bool:
        message = port.receive()
        if message is not None:
            seen.append(decode(message[1])[0].body)
        return bool(seen)

    await eventually(comes, PATIENCE_S, lambda: "no answer")
    return seen[0]


def newcomer(live: LiveTopology, tmp_path: Path, name: str) -> Security:
    """A key pair that was made elsewhere, of somebody who has the public keys."""
    elsewhere = tmp_path / "elsewhere"
    make_keys(elsewhere, [name])
    for server in ("hv0", "disk0"):
        public_path(elsewhere, server).write_bytes(public_path(folder_of_keys(live), server).read_bytes())
    return load_security(elsewhere, name, ["hv0", "disk0"])


async def test_topology_with_keys_works_over_tcp(iovirt: TopologyFactory, tmp_path: Path) -> None:
    """Guests, hypervisor and controller find and trust each other, and nobody is refused."""
    live = await up(iovirt, tmp_path)
    await works(live)
    for process in (live.hypervisor(), live.controller("disk0")):
        status = process.status()
        assert status is not None
        assert (status.content["refused"], status.content["rejects"]) == ({}, {})


async def test_strangers_are_refused_and_counted_and_disturb_nobody(
    iovirt: TopologyFactory, tmp_path: Path, ports: list[ZeromqPort]
) -> None:
    """One without a key and one with a key of its own get no answer at all, at the hypervisor and the controller."""
    live = await up(iovirt, tmp_path)
    mallory = newcomer(live, tmp_path, "mallory")
    for process, role in ((live.hypervisor(), Role.GUEST), (live.controller("disk0"), Role.HYPERVISOR)):
        endpoint = endpoints(live)[process.name]
        ports += [dial(endpoint), dial(endpoint, mallory, process.name)]
        for port in ports[-2:]:
            say_hello(port, role, "solo" if role is Role.GUEST else "hv0", process.name)
        await process.wait_status(
            lambda status: (
                "unknown-key" in status.content["refused"] and not NO_CURVE.isdisjoint(status.content["refused"])
            ),
            PATIENCE_S,
            what="both refusals",
        )
    await works(live)
    assert [port.receive() for port in ports] == [None] * 4


async def test_impostors_with_keys_of_their_own_do_not_get_anothers_session(
    iovirt: TopologyFactory, tmp_path: Path, ports: list[ZeromqPort]
) -> None:
    """The key is good, the name is not its owner's: told and counted, and the real ones go on."""
    live = await up(iovirt, tmp_path)
    await works(live)
    cases = (
        ("hv0", Role.GUEST, "solo", "web-1"),
        ("hv0", Role.GUEST, "web", "solo"),
        ("hv0", Role.GUEST, "web", "nobody"),
        ("disk0", Role.HYPERVISOR, "hv0", "hv1"),
    )
    for server, role, key, name in cases:
        ports.append(dial(endpoints(live)[server], load_security(folder_of_keys(live), key, [server]), server))
        say_hello(ports[-1], role, name, server)
        assert await answer(ports[-1]) == Refuse("wrong-key", f"the key is not that of {name}")
    for process, count in ((live.hypervisor(), 3), (live.controller("disk0"), 1)):
        await process.wait_status(counted(count), PATIENCE_S, what="the rejects")
    await works(live)


async def test_process_with_a_foreign_key_is_refused_until_it_is_known(iovirt: TopologyFactory, tmp_path: Path) -> None:
    """A hypervisor whose pair was renewed is nobody at a controller that has its old public key; guests wait for it."""
    live = await up(iovirt, tmp_path)
    keys = folder_of_keys(live)
    old = [path.read_bytes() for path in (secret_path(keys, "hv0"), public_path(keys, "hv0"))]
    make_keys(keys, ["hv0"], renew=["hv0"])
    live.hypervisor().kill()
    await live.hypervisor().restart()
    await live.controller("disk0").wait_status(
        lambda status: status.content["refused"].get("unknown-key", 0) > 0, PATIENCE_S, what="the refusal"
    )
    for path, content in zip((secret_path(keys, "hv0"), public_path(keys, "hv0")), old, strict=True):
        path.write_bytes(content)
    await live.hypervisor().restart()
    await works(live)


async def test_missing_key_is_one_line_that_names_the_command(iovirt: TopologyFactory, tmp_path: Path) -> None:
    """Whoever misses it, its own or that of somebody else: what, where, what to do."""
    live = iovirt.prepare(tables(tmp_path))
    names = ("disk0", "hv0", "solo")
    for name in names:
        live.process(name).expected_exit = 2
        live.process(name).start()
    for name in names:
        assert await live.process(name).exited(PATIENCE_S) == 2
        assert f"no key of '{name}'; make it with 'iovirt keys'" in live.process(name).log
