"""The bundled guest OS in a topology of real processes: its job, its limits, its terminal."""

from __future__ import annotations

import hashlib

import pytest

from iovirt_dist.testing.live import LiveTopology, TopologyFactory
from tests.guests.support import KIB, MIB, disk, fill, machine, pattern, settled, topology_of, typed

DEVICES = {"disk": "disk0/all", "console": "tty0"}


async def _started(iovirt: TopologyFactory, command_line: str, content: bytes = b"") -> LiveTopology:
    guest = machine("pc", "bundled:guestos", DEVICES, command_line=command_line)
    topology = iovirt.prepare(topology_of({"guest": guest}))
    fill(topology, content)
    await topology.start()
    return topology


def _result(content: bytes) -> bytes:
    """The block that `job` stores behind what it has read."""
    digest = hashlib.sha256(content).hexdigest()
    return f"iovirt-dist job result\nsha256 {digest}\nkib {len(content) // KIB}\n".encode().ljust(512, b"\0")


async def test_job_and_poke_do_their_work_and_both_sides_count_the_same(iovirt: TopologyFactory) -> None:
    """A MiB through ATA ports, hashed, stored; user mode kept from every device; no trap uncounted (C3, C5, C10)."""
    content = pattern(MIB)
    topology = await _started(iovirt, "run=job,poke,halt", content)

    read = await topology.console().expect(r"^job: read 1024 KiB in \d+ requests, sha256 ([0-9a-f]{64})$")
    await topology.console().expect(r"^job: done$")
    await topology.console().expect(r"^poke: 9 of 9 refused$")
    guest = await settled(topology, "guest")

    assert read[1] == hashlib.sha256(content).hexdigest()
    assert disk(topology).read_bytes()[MIB : MIB + 512] == _result(content)
    assert guest["traps"] == guest["traps_at_report"] == guest["guest_traps"]
    assert guest["traps"]["port_in"] > 0 < guest["traps"]["port_out"]
    assert guest["refused"] == guest["faults_taken"] > 0
    assert guest["disk_bytes_read"] >= MIB
    assert guest["malformed"] == 0


async def test_job_with_string_instructions_takes_one_trap_for_many_words(iovirt: TopologyFactory) -> None:
    """`rep insw` moves a sector or more per trap; the same data with one IN a word takes over a hundred times more."""
    content = pattern(16 * KIB)
    strings = await _started(iovirt, "run=job,halt kib=16 insn=rep", content)
    await strings.console().expect(r"^job: done$")
    by_string = await settled(strings, "guest")
    single = await _started(iovirt, "run=job,halt kib=16 insn=single", content)
    read = await single.console().expect(r"^job: read 16 KiB in \d+ requests, sha256 ([0-9a-f]{64})$")
    await single.console().expect(r"^job: done$")
    by_word = await settled(single, "guest")

    assert read[1] == hashlib.sha256(content).hexdigest()
    assert disk(single).read_bytes()[16 * KIB :][:512] == disk(strings).read_bytes()[16 * KIB :][:512]
    words = 16 * KIB // 2
    assert by_word["traps"]["port_in"] - by_string["traps"]["port_in"] > words * 0.9
    assert by_word["guest_traps"] == by_word["traps_at_report"]


async def test_echo_answers_what_is_typed_at_the_console_command(iovirt: TopologyFactory) -> None:
    """Keys from `iovirt console` reach the guest's program and its lines come back, again and again."""
    topology = await _started(iovirt, "run=echo")
    await topology.console().expect(r"^echo: type lines")

    first = await typed(topology, "guest", "hello, ring\r", r"^echo: hello, ring$")
    second = await typed(topology, "guest", "exit\r", r"^echo: done$")

    assert "hello, ring\necho: hello, ring" in first
    assert "hello" not in second


async def test_two_guests_at_once_keep_to_their_own_extents(iovirt: TopologyFactory) -> None:
    """One controller, two guests: each hashes its own half and leaves the other's alone (C2)."""
    halves = {"alice": pattern(512 * KIB, 1), "bob": pattern(512 * KIB, 2)}
    extents = {"alice": {"size": "1MiB"}, "bob": {"offset": "1MiB", "size": "1MiB"}}
    guests = {
        name: machine(
            "pc", "bundled:guestos", {"disk": f"disk0/{name}", "console": "tty0"}, command_line="run=job kib=512"
        )
        for name in halves
    }
    topology = iovirt.prepare(topology_of(guests, size="2MiB", extents=extents))
    fill(topology, b"".join(half.ljust(MIB, b"\xee") for half in halves.values()))

    await topology.start()
    for name in halves:
        await topology.console(name).expect(r"^job: done$")

    rest = b"\xee" * (512 * KIB - 512)
    assert disk(topology).read_bytes() == b"".join(half + _result(half) + rest for half in halves.values())


@pytest.mark.parametrize("size", [1, 100])
async def test_job_ends_when_the_disk_does(iovirt: TopologyFactory, size: int) -> None:
    """Reading beyond the last sector is an error that the guest OS reports; hypervisor and controller go on."""
    tables = topology_of(
        {"guest": machine("pc", "bundled:guestos", DEVICES, command_line="run=job,echo")}, size=f"{size}KiB"
    )
    topology = await iovirt.up(tables)

    await topology.console().expect(r"^job: .*error \d+|^init: job exited with status 1")
    await topology.console().expect(r"^echo: type lines")
    answer = await typed(topology, "guest", "still here\r", r"^echo: still here$")

    assert answer.endswith("echo: still here\n")
