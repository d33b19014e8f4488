"""The device tree of the `virt` machine, generated for the machine as configured, and its flattened form.

Two parts: `flatten` serialises any tree (Devicetree Specification 0.4, chapter 5, version 17 of the format);
`virt_tree` describes the machine. Register layouts and interrupt numbers are those of the widely used RISC-V `virt`
board, so that unmodified firmware finds what it expects.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, TypeAlias

from iovirt_dist.platform.virt import (
    CLINT_BASE,
    MEIP,
    MSIP,
    MTIP,
    PLIC_BASE,
    PLIC_SOURCES,
    POWEROFF_VALUE,
    RAM_BASE,
    REBOOT_VALUE,
    RTC_BASE,
    RTC_IRQ,
    SEIP,
    TEST_BASE,
    TIMEBASE_HZ,
    UART_BASE,
    UART_CLOCK_HZ,
    UART_IRQ,
    VIRTIO_BASE,
    VIRTIO_IRQ,
    VIRTIO_SLOTS,
    VIRTIO_STRIDE,
)

FDT_MAGIC: Final = 0xD00DFEED
FDT_VERSION: Final = 17
FDT_LAST_COMPATIBLE_VERSION: Final = 16
FDT_BEGIN_NODE: Final = 1
FDT_END_NODE: Final = 2
FDT_PROP: Final = 3
FDT_END: Final = 9
_HEADER_BYTES: Final = 40
_RESERVATION_BYTES: Final = 16

_CPU_INTC: Final = 1
_PLIC: Final = 2
_TEST: Final = 3
"""Phandles: how one node names another."""

Value: TypeAlias = bytes | str | tuple[str, ...] | int | tuple[int, ...]
"""A property value: raw bytes; one or several strings; one or several 32-bit cells."""


@dataclass(frozen=True, slots=True)
class Node:
    """A device tree node: its name with unit address, its properties and its children, both in order."""

    name: str
    properties: Mapping[str, Value] = field(default_factory=lambda: MappingProxyType({}))
    children: tuple[Node, ...] = ()


def flatten(root: Node, boot_cpu: int = 0) -> bytes:
    """Serialise a tree: header, empty memory reservation block, structure block, strings block (section 5.1).

    Args:
        root: The root node; its name is written as the empty string.
        boot_cpu: Hart id of the boot CPU (``boot_cpuid_phys``).
    """
    names: dict[str, int] = {}
    strings = bytearray()
    structure = bytearray()
    _node(Node("", root.properties, root.children), structure, names, strings)
    structure += struct.pack(">I", FDT_END)
    structure_at = _HEADER_BYTES + _RESERVATION_BYTES
    strings_at = structure_at + len(structure)
    header = struct.pack(
        ">10I",
        FDT_MAGIC,
        strings_at + len(strings),
        structure_at,
        strings_at,
        _HEADER_BYTES,
        FDT_VERSION,
        FDT_LAST_COMPATIBLE_VERSION,
        boot_cpu,
        len(strings),
        len(structure),
    )
    return header + bytes(_RESERVATION_BYTES) + bytes(structure) + bytes(strings)


def virt_tree(memory_bytes: int, command_line: str = "") -> Node:
    """Describe the `virt` machine.

    Args:
        memory_bytes: RAM from 80000000h.
        command_line: ``/chosen/bootargs``; left out when empty.
    """
    chosen: dict[str, Value] = {"stdout-path": f"/soc/serial@{UART_BASE:x}"}
    if command_line:
        chosen["bootargs"] = command_line
    memory: dict[str, Value] = {"device_type": "memory", "reg": _reg(RAM_BASE, memory_bytes)}
    properties: dict[str, Value] = {
        "#address-cells": 2,
        "#size-cells": 2,
        "compatible": ("iovirt,virt", "riscv-virtio"),
        "model": "iovirt,virt",
    }
    children = (
        Node("chosen", chosen),
        Node(f"memory@{RAM_BASE:x}", memory),
        _cpus(),
        _soc(),
        _power_node("poweroff", "syscon-poweroff", POWEROFF_VALUE),
        _power_node("reboot", "syscon-reboot", REBOOT_VALUE),
    )
    return Node("", properties, children)


def virt_blob(memory_bytes: int, command_line: str = "") -> bytes:
    """Return the flattened device tree of the `virt` machine; arguments as in `virt_tree`."""
    return flatten(virt_tree(memory_bytes, command_line))


def _node(node: Node, out: bytearray, names: dict[str, int], strings: bytearray) -> None:
    out += struct.pack(">I", FDT_BEGIN_NODE) + _padded(node.name.encode("ascii") + b"\0")
    for name, value in node.properties.items():
        if name not in names:
            names[name] = len(strings)
            strings += name.encode("ascii") + b"\0"
        data = _encode(value)
        out += struct.pack(">3I", FDT_PROP, len(data), names[name]) + _padded(data)
    for child in node.children:
        _node(child, out, names, strings)
    out += struct.pack(">I", FDT_END_NODE)


def _encode(value: Value) -> bytes:
    if isinstance(value, bytes):
        return value
    items: tuple[str | int, ...] = value if isinstance(value, tuple) else (value,)
    return b"".join(
        item.to_bytes(4, "big") if isinstance(item, int) else item.encode("utf-8").replace(b"\0", b"?") + b"\0"
        for item in items
    )


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _reg(address: int, size: int) -> tuple[int, ...]:
    """One ``reg`` entry with two address and two size cells."""
    return (address >> 32, address & 0xFFFF_FFFF, size >> 32, size & 0xFFFF_FFFF)


def _cpus() -> Node:
    controller = Node(
        "interrupt-controller",
        {
            "#interrupt-cells": 1,
            "#address-cells": 0,
            "interrupt-controller": b"",
            "compatible": "riscv,cpu-intc",
            "phandle": _CPU_INTC,
        },
    )
    cpu = Node(
        "cpu@0",
        {
            "device_type": "cpu",
            "reg": 0,
            "status": "okay",
            "compatible": "riscv",
            "riscv,isa": "rv64imafdc",
            "mmu-type": "riscv,sv39",
        },
        (controller,),
    )
    return Node("cpus", {"#address-cells": 1, "#size-cells": 0, "timebase-frequency": TIMEBASE_HZ}, (cpu,))


def _soc() -> Node:
    slots = (_virtio(slot) for slot in range(VIRTIO_SLOTS))
    properties: dict[str, Value] = {"#address-cells": 2, "#size-cells": 2, "compatible": "simple-bus", "ranges": b""}
    return Node("soc", properties, (_test(), _rtc(), _clint(), _plic(), _uart(), *slots))


def _device(name: str, address: int, size: int, irq: int, **properties: Value) -> Node:
    """Describe a device with one register range and, if `irq` is not 0, one PLIC source."""
    interrupt: dict[str, Value] = {"interrupt-parent": _PLIC, "interrupts": irq} if irq else {}
    return Node(f"{name}@{address:x}", {"reg": _reg(address, size), **interrupt, **properties})


def _test() -> Node:
    return _device("test", TEST_BASE, 0x1000, 0, compatible=("sifive,test1", "sifive,test0", "syscon"), phandle=_TEST)


def _rtc() -> Node:
    return _device("rtc", RTC_BASE, 0x1000, RTC_IRQ, compatible="google,goldfish-rtc")


def _clint() -> Node:
    node = _device("clint", CLINT_BASE, 0x1_0000, 0, compatible=("sifive,clint0", "riscv,clint0"))
    wired = (_CPU_INTC, MSIP, _CPU_INTC, MTIP)
    return Node(node.name, {**node.properties, "interrupts-extended": wired})


def _plic() -> Node:
    node = _device("plic", PLIC_BASE, 0x400_0000, 0, compatible=("sifive,plic-1.0.0", "riscv,plic0"), phandle=_PLIC)
    own: dict[str, Value] = {
        "#interrupt-cells": 1,
        "#address-cells": 0,
        "interrupt-controller": b"",
        "riscv,ndev": PLIC_SOURCES,
        "interrupts-extended": (_CPU_INTC, MEIP, _CPU_INTC, SEIP),
    }
    return Node(node.name, {**node.properties, **own})


def _uart() -> Node:
    node = _device("serial", UART_BASE, 0x100, UART_IRQ, compatible="ns16550a")
    return Node(node.name, {**node.properties, "clock-frequency": UART_CLOCK_HZ})


def _virtio(slot: int) -> Node:
    address = VIRTIO_BASE + slot * VIRTIO_STRIDE
    return _device("virtio_mmio", address, VIRTIO_STRIDE, slot + VIRTIO_IRQ, compatible="virtio,mmio")


def _power_node(name: str, compatible: str, value: int) -> Node:
    return Node(name, {"compatible": compatible, "regmap": _TEST, "offset": 0, "value": value})
