"""Kinds of guests: what each needs, what each refuses, and what is derived."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from iovirt_dist.abi.registry import ABIS
from iovirt_dist.errors import ConfigError
from iovirt_dist.platform.level import Level
from iovirt_dist.topology import MachineSpec, Origin, ProgramSpec, ScriptSpec, Topology, topology_from_text
from iovirt_dist.topology.program_abi import PROGRAM_ABIS

HEAD = """
[hypervisor.hv0]
[controller.tty0]
kind = "console"
[controller.rng0]
kind = "rng"
[controller.disk0]
kind = "block"
image = "d.img"
size = "1MiB"
"""
PC = '[guest.a]\nkind = "machine"\nhypervisor = "hv0"\nimage = "bundled:guestos"\n'
VIRT = PC + 'machine = "virt"\n'
PROGRAM = '[guest.cat]\nkind = "program"\nhypervisor = "hv0"\nimage = "bin/busybox"\n'
SCRIPT = '[guest.load]\nkind = "script"\nhypervisor = "hv0"\nscript = "{}"\n'
ALL_DEVICES = 'devices = { disk = "disk0", console = "tty0", virtio_console = "tty0", rng = "rng0" }\n'


def resolve(text: str, base: Path = Path("/base")) -> Topology:
    """Check `text` as if it were t.toml in `base`."""
    return topology_from_text(HEAD + text, Origin("t.toml", base / "t.toml", base))


def machine(text: str) -> MachineSpec:
    """The machine guest of `text`."""
    guest = resolve(text).guest("a")
    assert isinstance(guest, MachineSpec)
    return guest


def program(text: str, base: Path = Path("/base")) -> ProgramSpec:
    """The program guest of `text`."""
    guest = resolve(text, base).guest("cat")
    assert isinstance(guest, ProgramSpec)
    return guest


def script(name: str, rest: str = "") -> ScriptSpec:
    """The script guest that runs `name`."""
    guest = resolve(SCRIPT.format(name) + rest).guest("load")
    assert isinstance(guest, ScriptSpec)
    return guest


def elf(machine_number: int, word_class: int) -> bytes:
    """The first twenty bytes of an executable (System V ABI, "ELF Header")."""
    return struct.pack("<4sBB10xHH", b"\x7fELF", word_class, 1, 2, machine_number)


@pytest.mark.parametrize(
    ("text", "level"),
    [
        (PC, Level.OPERATION),
        (PC + 'level = "driver"\n', Level.DRIVER),
        (PC + 'level = "syscall"\n', Level.SYSCALL),
        (VIRT, Level.DRIVER),
        (VIRT + 'level = "operation"\n', Level.OPERATION),
    ],
)
def test_machine_level_is_as_written_or_the_machines_own(text: str, level: Level) -> None:
    """A PC's disk has registers, the virt machine's is virtio."""
    assert machine(text).level is level


def test_machine_with_all_devices_has_two_terminals_and_each_controller_once() -> None:
    """The virtio console is a terminal of its own name."""
    guest = machine(PC + ALL_DEVICES)
    assert guest.console == ("tty0", "a")
    assert guest.virtio_console == ("tty0", "a.hvc0")
    assert guest.rng is not None
    assert guest.controllers == ("disk0", "tty0", "rng0")
    assert resolve(PC + ALL_DEVICES).terminals_of("tty0") == ["a", "a.hvc0"]


def test_pc_virtio_devices_are_told_on_the_command_line() -> None:
    """Slots are fixed; the disk has one at the driver level only."""
    console, entropy = "virtio_mmio.device=4K@0xfeb01000:9", "virtio_mmio.device=4K@0xfeb02000:10"
    text = PC + 'command_line = "run=job"\n' + ALL_DEVICES
    assert machine(text).command_line == f"run=job {console} {entropy}"
    disk = "virtio_mmio.device=4K@0xfeb00000:5"
    assert machine(text + 'level = "driver"\n').command_line == f"run=job {disk} {console} {entropy}"


@pytest.mark.parametrize("rest", ['machine = "virt"\n', 'format = "rom"\n', 'format = "flat"\n'])
def test_command_line_elsewhere_is_as_written(rest: str) -> None:
    """The virt machine has a device tree; firmware takes no command line."""
    assert machine(PC + rest + 'command_line = "x"\n' + ALL_DEVICES).command_line == "x"


def test_command_line_absent_is_only_the_devices() -> None:
    """No leading space."""
    assert machine(PC + 'devices.rng = "rng0"\n').command_line == "virtio_mmio.device=4K@0xfeb02000:10"


def test_terminal_of_a_guest_is_found_by_both_names() -> None:
    """A guest's name is its first terminal; one without a serial port has its virtio console."""
    topology = resolve(PC + 'devices.virtio_console = "tty0"\n' + PROGRAM + 'devices.console = "tty0"\n')
    assert topology.terminal("a") == topology.terminal("a.hvc0") == ("tty0", "a.hvc0")
    assert topology.terminal("cat").terminal == "cat"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("b", "t.toml: no guest 'b'; guests: a, cat"),
        ("a", "t.toml: guest 'a' has no console; set guest.a.devices.console"),
    ],
)
def test_terminal_absent_raises_and_says_what_to_do(name: str, message: str) -> None:
    """A mistyped name is answered with the list."""
    topology = resolve(PC + PROGRAM + 'devices.console = "tty0"\n')
    with pytest.raises(ConfigError) as caught:
        topology.terminal(name)
    assert str(caught.value).startswith(message)


def test_program_resolved_has_words_and_paths() -> None:
    """Arguments as given, environment as the C library wants it, files by normalised path."""
    text = PROGRAM + 'arguments = ["busybox", "cat"]\nenvironment = { A = "1", B = "x=y" }\nabi = "linux_i386"\n'
    guest = program(text + 'files = { "/etc//x/../motd" = "motd", "/usr" = "/tree" }\nmemory = "8MiB"\n')
    assert guest.image == Path("/base/bin/busybox")
    assert guest.arguments == ("busybox", "cat")
    assert guest.environment == ("A=1", "B=x=y")
    assert guest.files == {"/etc/motd": Path("/base/motd"), "/usr": Path("/tree")}
    assert (guest.abi, guest.level, guest.memory_bytes) == ("linux_i386", Level.SYSCALL, 8 << 20)


def test_program_without_arguments_has_its_own_name() -> None:
    """As a shell would start it."""
    assert program(PROGRAM).arguments == ("busybox",)


@pytest.mark.parametrize(
    ("content", "abi"),
    [
        (elf(3, 1), "linux_i386"),
        (elf(62, 2), "linux_x86_64"),
        (elf(183, 2), "linux_aarch64"),
        (elf(243, 2), "linux_riscv64"),
        (elf(62, 1), "auto"),
        (b"#!/bin/sh\n# no ELF file", "auto"),
        (b"\x7fELF", "auto"),
    ],
)
def test_program_abi_auto_is_told_from_the_image(tmp_path: Path, content: bytes, abi: str) -> None:
    """Word size and machine decide; what is no known program stays unknown and is reported as an image error."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/busybox").write_bytes(content)
    guest = program(PROGRAM, tmp_path)
    assert guest.abi == abi
    assert [str(error) for error in guest.missing_files()] == [
        f"guest cat: {tmp_path}/bin/busybox: not an ELF program of a known architecture; "
        "set image to a static Linux program"
    ] * (abi == "auto")


def test_program_abis_are_those_that_have_tables() -> None:
    """What the topology accepts is what hypervisor and guest know, with the same ELF header."""
    words = {1: 4, 2: 8}  # EI_CLASS: bytes of a pointer
    known = {name: (words[word_class], machine) for name, (word_class, machine) in PROGRAM_ABIS.items()}
    assert known == {name: (abi.word_bytes, abi.machine) for name, abi in ABIS.items()}


def test_program_and_script_name_what_is_missing(tmp_path: Path) -> None:
    """Image, files and script are named with the key that says them."""
    text = PROGRAM + 'files."/a" = "a"\nfiles."/b" = "b"\n' + SCRIPT.format("load.py:main")
    (tmp_path / "b").mkdir()
    assert [str(error) for error in resolve(text, tmp_path).missing_images()] == [
        f"guest cat: {tmp_path}/bin/busybox: no such image file; set image",
        f'guest cat: {tmp_path}/a: no such file or folder; set files."/a"',
        f"guest load: {tmp_path}/load.py: no such script file; set script",
    ]


def test_script_by_file_and_by_module() -> None:
    """A name that ends in .py is a file beside the topology."""
    by_file, by_module = script("sub/load.py:main"), script("package.module:run")
    assert (by_file.file, by_file.module, by_file.function) == (Path("/base/sub/load.py"), "load", "main")
    assert (by_module.file, by_module.module, by_module.function) == (None, "package.module", "run")
    assert (by_file.machine, by_file.level) == ("virt", Level.DRIVER)


def test_script_gets_its_parameters_and_devices() -> None:
    """Parameters pass as they are."""
    guest = script("a:b", "parameters = { depth = 64, names = ['x'] }\n" + ALL_DEVICES)
    assert guest.parameters == {"depth": 64, "names": ["x"]}
    assert guest.controllers == ("disk0", "tty0", "rng0")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            VIRT + 'level = "syscall"\n',
            "t.toml: guest.a.level: system calls are taken on machine 'pc' and of programs, not on machine 'virt'; set",
        ),
        (
            VIRT + 'level = "operation"\ndevices.disk = "disk0"\n',
            "t.toml: guest.a.level: the disk of machine 'virt' is virtio, without registers of its own to intercept; ",
        ),
        (PC + 'devices.rng = "rng"\n', "t.toml: guest.a.devices.rng: no controller 'rng'; did you mean 'rng0'?"),
        (
            PC + 'devices.rng = "tty0"\n',
            't.toml: guest.a.devices.rng: controller \'tty0\' is of kind "console", expected "rng"; known: rng0',
        ),
        (
            PC + 'devices.virtio_console = "rng0"\n',
            't.toml: guest.a.devices.virtio_console: controller \'rng0\' is of kind "rng", expected "console"',
        ),
        (
            PC
            + 'devices.virtio_console = "tty0"\n'
            + PC.replace("guest.a", 'guest."a.hvc0"')
            + 'devices.console = "tty0"\n',
            "t.toml: guest: guests 'a' and 'a.hvc0' both have terminal 'a.hvc0'; rename one of them",
        ),
        (
            PROGRAM + 'abi = "linux_x86-64"\n',
            "t.toml: guest.cat.abi: no ABI 'linux_x86-64'; did you mean 'linux_x86_64'?",
        ),
        (PROGRAM + 'memory = "1KiB"\n', "t.toml: guest.cat.memory: a program takes 1MiB to 2GiB in steps of 4KiB, got"),
        (PROGRAM + 'arguments = ["a\\u0000"]\n', "t.toml: guest.cat.arguments: an argument holds a NUL"),
        (PROGRAM + 'environment."A=B" = "c"\n', 't.toml: guest.cat.environment."A=B": no name and value of an environ'),
        (PROGRAM + 'environment.A = "\\u0000"\n', "t.toml: guest.cat.environment.A: no name and value of an environ"),
        (
            PROGRAM + 'files."etc/motd" = "m"\n',
            't.toml: guest.cat.files."etc/motd": the program\'s path must start with',
        ),
        (PROGRAM + 'files."/dev/vda" = "m"\n', 't.toml: guest.cat.files."/dev/vda": /dev/vda is the hypervisor\'s own'),
        (PROGRAM + 'files = { "/a" = "m", "/b/../a" = "m" }\n', 't.toml: guest.cat.files."/b/../a": /a is there twice'),
        (
            SCRIPT.format("load"),
            't.toml: guest.load.script: expected "PACKAGE.MODULE:FUNCTION" or "FILE.py:FUNCTION", got "load"; such as',
        ),
        (SCRIPT.format("lo ad:main"), "t.toml: guest.load.script: expected"),
        (SCRIPT.format("load.py:1"), "t.toml: guest.load.script: expected"),
    ],
)
def test_guest_contradictory_raises_with_key_and_fix(text: str, message: str) -> None:
    """What, where and what to do, on one line."""
    with pytest.raises(ConfigError) as caught:
        resolve(text)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_replicas_of_programs_have_extents_of_their_own() -> None:
    """All kinds expand alike."""
    extents = "[controller.disk0.extents]\nd-1 = {size = 512}\nd-2 = {offset = 512, size = 512}\n"
    topology = resolve(extents + PROGRAM + 'count = 2\ndevices.disk = "disk0/d-{n}"\n')
    assert list(topology.guests) == ["cat-1", "cat-2"]
