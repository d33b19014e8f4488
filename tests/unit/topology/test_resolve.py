"""Cross-checks of a topology: references, collisions, paths, replicas."""

from __future__ import annotations

from pathlib import Path

import pytest

from iovirt_dist.errors import ConfigError
from iovirt_dist.topology import MachineSpec, Origin, Topology, topology_from_text
from iovirt_dist.topology.specs import BlockSpec

BASE = Path("/base")

HEAD = '[hypervisor.hv0]\n[controller.tty0]\nkind = "console"\n'
DISK = '[controller.disk0]\nkind = "block"\nimage = "d.img"\nsize = "1MiB"\n'
GUEST = '[guest.alice]\nkind = "machine"\nhypervisor = "hv0"\nimage = "bundled:guestos"\n'
BOB = '[guest.bob]\nkind = "machine"\nmachine = "pc"\nhypervisor = "hv0"\nimage = "bundled:guestos"\n'


def resolve(text: str) -> Topology:
    """Check `text` as if it were /base/t.toml."""
    return topology_from_text(text, Origin("t.toml", BASE / "t.toml", BASE))


def test_machine_resolved_has_absolute_paths_and_bytes() -> None:
    """Sizes are bytes, paths absolute, devices bound to their controllers."""
    text = HEAD + DISK + GUEST + 'payload = "p.bin"\ndevices.disk = "disk0"\ndevices.console = "tty0"\n'
    guest = resolve(text).guest("alice")
    assert isinstance(guest, MachineSpec)
    assert guest.image.parts[-3:] == ("iovirt_dist", "images", "guestos.elf")
    assert guest.payload == BASE / "p.bin"
    assert guest.memory_bytes == 32 << 20
    assert guest.disk is not None
    assert guest.disk.extent.name == "all"
    assert guest.disk.extent.size_bytes == 1 << 20
    assert guest.console == ("tty0", "alice")
    assert guest.controllers == ("disk0", "tty0")


def test_run_dir_relative_starts_at_the_file() -> None:
    """The endpoints default to sockets in the run directory next to the file."""
    topology = resolve('[topology]\nrun_dir = "./x/../.iovirt"\n' + HEAD)
    assert topology.run_dir == BASE / ".iovirt"
    assert topology.hypervisor("hv0").endpoint == "ipc:///base/.iovirt/sock/hv0"
    assert topology.controller("tty0").endpoint == "ipc:///base/.iovirt/sock/tty0"


def test_replicas_expand_to_numbered_guests() -> None:
    """A count above one numbers the names; {n} and {name} pick an extent per replica."""
    extents = "[controller.disk0.extents]\nd-1 = {size = 512}\nd-2 = {offset = 512, size = 512}\n"
    topology = resolve(HEAD + DISK + extents + BOB + 'count = 2\ndevices.disk = "disk0/d-{n}"\n')
    assert list(topology.guests) == ["bob-1", "bob-2"]
    disks = [guest.disk.extent.offset_bytes for guest in topology.guests.values() if guest.disk is not None]
    assert disks == [0, 512]


def test_extents_read_only_may_overlap() -> None:
    """Readers share bytes without harm."""
    text = (
        DISK + "[controller.disk0.extents]\na = {size = 1024, read_only = true}\nb = {size = 512, read_only = true}\n"
    )
    block = resolve(text).controller("disk0")
    assert isinstance(block, BlockSpec)
    assert [(extent.name, extent.end_bytes) for extent in block.extents] == [("b", 512), ("a", 1024)]


def test_controller_read_only_makes_its_extents_read_only() -> None:
    """What the image cannot take no extent can."""
    block = resolve(DISK + "read_only = true\nextents.a.size = 512\n").controller("disk0")
    assert isinstance(block, BlockSpec)
    assert block.extents[0].read_only


def test_size_absent_is_taken_from_the_file(tmp_path: Path) -> None:
    """An existing image needs no size; a last partial sector is not presented."""
    (tmp_path / "d.img").write_bytes(bytes(1025))
    text = '[controller.disk0]\nkind = "block"\nimage = "d.img"\n'
    block = topology_from_text(text, Origin("t.toml", tmp_path / "t.toml", tmp_path)).controller("disk0")
    assert isinstance(block, BlockSpec)
    assert block.size_bytes == 1024


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[topology]\nlease = "2h"', 't.toml: topology.lease: expected a duration such as "500ms" or "2s", got "2h"'),
        ('[topology]\nlease = "0s"', "t.toml: topology.lease: the lease must be longer than 0"),
        ("[hypervisor.-a]", "t.toml: hypervisor.-a: '-a' is no name; use letters"),
        ("[hypervisor.tty0]\n" + HEAD, "t.toml: controller.tty0: the name 'tty0' is taken by hypervisor.tty0; rename"),
        (
            HEAD
            + BOB
            + 'count = 2\n[guest.bob-2]\nkind = "machine"\nmachine = "pc"\nhypervisor = "hv0"\nimage = "a"\n',
            "t.toml: guest.bob-2: the name 'bob-2' is taken by guest.bob; rename one of them",
        ),
        (
            HEAD + GUEST.replace("hv0", "hv1"),
            "t.toml: guest.alice.hypervisor: no hypervisor 'hv1'; did you mean 'hv0'?",
        ),
        (GUEST, "t.toml: guest.alice.hypervisor: no hypervisor 'hv0'; there are none"),
        (HEAD + GUEST + 'memory = "1GB"', "t.toml: guest.alice.memory: expected a size such as"),
        (
            HEAD + GUEST + "memory = 1024",
            "t.toml: guest.alice.memory: machine 'pc' takes 1MiB to 2GiB in steps of 4KiB",
        ),
        (HEAD + GUEST + "memory = 1048577", "t.toml: guest.alice.memory: machine 'pc' takes 1MiB to 2GiB"),
        (
            HEAD + GUEST.replace("guestos", "guestso"),
            "t.toml: guest.alice.image: no bundled image 'guestso'; did you mean 'guestos'?",
        ),
        (
            HEAD + DISK + GUEST + 'devices.disk = "disk1"',
            "t.toml: guest.alice.devices.disk: no controller 'disk1'; did",
        ),
        (
            HEAD + DISK + GUEST + 'devices.disk = "tty0"',
            't.toml: guest.alice.devices.disk: controller \'tty0\' is of kind "console", expected "block"',
        ),
        (
            HEAD + DISK + GUEST + 'devices.disk = "disk0/al"',
            "t.toml: guest.alice.devices.disk: controller 'disk0' has no",
        ),
        (
            HEAD
            + DISK
            + "extents.a.size = 512\nextents.b = {offset = 512, size = 512}\n"
            + GUEST
            + 'devices.disk = "disk0"',
            "t.toml: guest.alice.devices.disk: 'disk0' has 2 extents; write disk0/a",
        ),
        (
            DISK + "extents.a.size = 1024\nextents.b = {offset = 512, size = 512}\n",
            "t.toml: controller.disk0.extents: extents 'a' [0, 1024) and 'b' [512, 1024) overlap; move one",
        ),
        (
            DISK
            + "extents.a = {size = 2048, read_only = true}\nextents.b = {offset = 512, size = 512, read_only = true}\n"
            "extents.c = {offset = 1536, size = 512}\n",
            "t.toml: controller.disk0.extents: extents 'a' [0, 2048) and 'c' [1536, 2048) overlap",
        ),
        (
            DISK + "extents.a = {size = 2048}\nextents.b = {offset = 1024, size = 512, read_only = true}\n",
            "t.toml: controller.disk0.extents: extents 'a' [0, 2048) and 'b' [1024, 1536) overlap",
        ),
        (
            DISK + "extents.a.size = 513\n",
            "t.toml: controller.disk0.extents.a: offset and size must be multiples of 512",
        ),
        (
            DISK + 'extents.a.size = "2MiB"\n',
            "t.toml: controller.disk0.extents.a: the extent ends at 2097152, the image",
        ),
        (DISK.replace("1MiB", "0"), "t.toml: controller.disk0.size: /base/d.img does not exist and no size is given"),
        (DISK.replace("1MiB", "100"), "t.toml: controller.disk0.size: 100 bytes is not a positive multiple of 512"),
        (
            DISK + DISK.replace("disk0", "disk1").replace("d.img", "./x/../d.img"),
            "t.toml: controller.disk1.image: 'disk0' and 'disk1' use one image, /base/d.img",
        ),
        (
            '[hypervisor.a]\nendpoint = "tcp://h:1"\n[hypervisor.b]\nendpoint = "tcp://h:1"\n',
            "t.toml: hypervisor.b.endpoint: tcp://h:1 is the endpoint of 'a' too; change one",
        ),
        (
            HEAD + DISK + GUEST + 'devices.disk = "disk0"\n' + BOB + 'devices.disk = "disk0/all"\n',
            "t.toml: guest: guests 'alice' and 'bob' both write extent 'disk0/all'; give each an extent",
        ),
    ],
)
def test_topology_contradictory_raises_with_both_sides(text: str, message: str) -> None:
    """A contradiction names its key, and both parties of a collision."""
    with pytest.raises(ConfigError) as caught:
        resolve(text)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("writer_first", [True, False])
def test_extent_below_an_overlay_that_somebody_writes_is_refused(writer_first: bool) -> None:
    """The overlay's base would change below it; the order in the file does not matter."""
    overlay = BOB + 'devices = {disk = "disk0", overlay = true}\n'
    writer = GUEST + 'devices.disk = "disk0"\n'
    text = HEAD + DISK + (writer + overlay if writer_first else overlay + writer)

    with pytest.raises(ConfigError) as caught:
        resolve(text)

    assert str(caught.value) == (
        "t.toml: guest: guest 'alice' writes extent 'disk0/all', the base of 'bob';"
        " set overlay = true for 'alice', too, or make the extent read_only = true"
    )


def test_overlays_of_a_controller_are_those_of_its_guests() -> None:
    """By unit: the extent at the guest's name; whoever has no overlay has none."""
    disk = DISK + "extents.a = {size = 512, read_only = true}\n"
    guests = BOB + 'count = 2\ndevices = {disk = "disk0/a", overlay = true}\n' + GUEST + 'devices.disk = "disk0/a"\n'

    topology = resolve(HEAD + disk + guests)

    assert topology.overlays_of("disk0") == {"a@bob-1", "a@bob-2"}
    assert topology.overlays_of("tty0") == frozenset()


def test_guests_may_share_a_read_only_extent() -> None:
    """Only a second writer is refused."""
    disk = DISK + "extents.a = {size = 512, read_only = true}\n"
    topology = resolve(HEAD + disk + BOB + 'count = 3\ndevices.disk = "disk0/a"\n')
    assert len(topology.guests) == 3
