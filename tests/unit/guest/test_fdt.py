"""The flattened device tree of the `virt` machine (`iovirt_dist.guest.fdt`)."""

from __future__ import annotations

import shutil
import struct
import subprocess

import pytest

from iovirt_dist.guest.fdt import Node, flatten, virt_blob, virt_tree

Parsed = dict[str, dict[str, bytes]]


def parse(blob: bytes) -> Parsed:
    """Read a flattened tree into properties by path, independently of the code under test."""
    magic, total, structure, strings, reserve, version, compatible, _cpu, _, size = struct.unpack_from(">10I", blob)
    assert (magic, total, version, compatible) == (0xD00DFEED, len(blob), 17, 16)
    assert blob[reserve : reserve + 16] == bytes(16)
    nodes: Parsed = {}
    path: list[str] = []
    at = structure
    while at < structure + size:
        (token,) = struct.unpack_from(">I", blob, at)
        at += 4
        if token == 1:
            end = blob.index(b"\0", at)
            path.append(blob[at:end].decode())
            nodes["/".join(path) or "/"] = {}
            at += -(-(end + 1 - at) // 4) * 4
        elif token == 3:
            length, name_at = struct.unpack_from(">2I", blob, at)
            name = blob[strings + name_at : blob.index(b"\0", strings + name_at)].decode()
            nodes["/".join(path) or "/"][name] = blob[at + 8 : at + 8 + length]
            at += 8 + -(-length // 4) * 4
        elif token == 2:
            path.pop()
    return nodes


def cells(*values: int) -> bytes:
    """Return big-endian 32-bit cells."""
    return struct.pack(f">{len(values)}I", *values)


def test_flatten_round_trips_every_kind_of_value() -> None:
    """Integers, cells, strings, string lists, raw and empty values come back, padded and nested."""
    child = Node("child@1", {"reg": (1, 2), "name-list": ("ab", "c"), "empty": b""})

    nodes = parse(flatten(Node("ignored", {"one": 1, "text": "abc", "raw": b"\1\2\3"}, (child,)), boot_cpu=0))

    assert nodes == {
        "/": {"one": cells(1), "text": b"abc\0", "raw": b"\1\2\3"},
        "/child@1": {"reg": cells(1, 2), "name-list": b"ab\0c\0", "empty": b""},
    }


def test_virt_tree_describes_memory_and_command_line_as_configured() -> None:
    """Memory above 4 GiB uses the upper size cell; the command line becomes bootargs."""
    nodes = parse(virt_blob(5 << 30, "console=ttyS0"))

    assert nodes["/memory@80000000"]["reg"] == cells(0, 0x8000_0000, 1, 0x4000_0000)
    assert nodes["/chosen"] == {"stdout-path": b"/soc/serial@10000000\0", "bootargs": b"console=ttyS0\0"}


def test_virt_tree_without_command_line_has_no_bootargs() -> None:
    """An empty command line leaves the property out."""
    assert "bootargs" not in parse(virt_blob(1 << 24))["/chosen"]


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        ("/cpus", "timebase-frequency", cells(10_000_000)),
        ("/cpus/cpu@0", "riscv,isa", b"rv64imafdc\0"),
        ("/cpus/cpu@0", "mmu-type", b"riscv,sv39\0"),
        ("/soc/serial@10000000", "interrupts", cells(10)),
        ("/soc/serial@10000000", "clock-frequency", cells(3_686_400)),
        ("/soc/plic@c000000", "reg", cells(0, 0x0C00_0000, 0, 0x0400_0000)),
        ("/soc/plic@c000000", "riscv,ndev", cells(95)),
        ("/soc/plic@c000000", "interrupts-extended", cells(1, 11, 1, 9)),
        ("/soc/clint@2000000", "interrupts-extended", cells(1, 3, 1, 7)),
        ("/soc/rtc@101000", "interrupts", cells(11)),
        ("/soc/virtio_mmio@10008000", "interrupts", cells(8)),
        ("/poweroff", "value", cells(0x5555)),
        ("/reboot", "value", cells(0x7777)),
    ],
)
def test_virt_tree_gives_each_device_its_place(path: str, name: str, value: bytes) -> None:
    """Addresses, interrupt numbers and frequencies that firmware relies on."""
    assert parse(virt_blob(1 << 24))[path][name] == value


def test_virt_tree_references_only_existing_phandles() -> None:
    """Every interrupt parent, extended interrupt and register map names a node that has that phandle."""
    nodes = parse(virt_blob(1 << 24))
    handles = {properties["phandle"] for properties in nodes.values() if "phandle" in properties}
    single = {p[key] for p in nodes.values() for key in ("interrupt-parent", "regmap") if key in p}
    extended = {
        p["interrupts-extended"][at : at + 4] for p in nodes.values() if "interrupts-extended" in p for at in (0, 8)
    }

    assert single | extended <= handles


def test_flatten_replaces_zero_bytes_in_strings() -> None:
    """A zero byte in the command line cannot end the property early or smuggle a second string in."""
    assert parse(flatten(virt_tree(1 << 24, "a\0b")))["/chosen"]["bootargs"] == b"a?b\0"


@pytest.mark.skipif(shutil.which("dtc") is None, reason="dtc is missing: install package device-tree-compiler")
def test_virt_blob_passes_the_device_tree_compiler_without_a_warning() -> None:
    """The reference compiler reads the blob and finds nothing to complain about."""
    result = subprocess.run(
        ["dtc", "-I", "dtb", "-O", "dts", "-"],
        input=virt_blob(1 << 27, "quiet"),
        capture_output=True,
        check=False,
    )

    assert (result.returncode, result.stderr) == (0, b"")
    assert b"plic@c000000" in result.stdout
