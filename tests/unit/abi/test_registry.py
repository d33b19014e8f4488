"""The tables: numbers as the kernel has them, signatures that both ends can follow, a routine for every call."""

from __future__ import annotations

import pytest

from iovirt_dist.abi.registry import ABIS, LAYOUTS
from iovirt_dist.abi.table import POINTERS, Abi, ArgumentKind
from iovirt_dist.hypervisor.linux.routines import routines_of

every_abi = pytest.mark.parametrize("abi", ABIS.values(), ids=ABIS.keys())


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        (
            "linux_x86_64",
            {"read": 0, "openat": 257, "arch_prctl": 158, "exit_group": 231, "getrandom": 318, "vfork": 58},
        ),
        ("linux_i386", {"read": 3, "open": 5, "_llseek": 140, "mmap2": 192, "openat": 295, "statx": 383, "fork": 2}),
        ("linux_aarch64", {"read": 63, "openat": 56, "newfstatat": 79, "mmap": 222, "clone": 220, "exit_group": 94}),
        ("linux_riscv64", {"read": 63, "openat": 56, "riscv_hwprobe": 258, "brk": 214, "getrandom": 278}),
    ],
)
def test_numbers_are_the_kernels(name: str, numbers: dict[str, int]) -> None:
    """Those of its system-call tables, declared or not."""
    abi = ABIS[name]

    assert {abi.call_name(number) for number in numbers.values()} == numbers.keys()
    assert all(abi.call_name(number) == call for call, number in numbers.items())


@every_abi
def test_every_declared_call_has_a_routine(abi: Abi) -> None:
    """And no other has."""
    assert routines_of(abi).keys() == abi.calls.keys()
    assert not abi.calls.keys() & abi.names.keys()


@every_abi
def test_signatures_can_be_followed(abi: Abi) -> None:
    """At most six arguments, lengths that are arguments, names that differ, pointers that have a length."""
    for call in abi.calls.values():
        for arguments in (call.arguments, *call.variants.values()):
            assert len(arguments) <= 6, call.name
            assert len({argument.name for argument in arguments}) == len(arguments), call.name
            for argument in arguments:
                assert argument.length < len(arguments), call.name
                measured = argument.kind not in POINTERS or argument.kind is ArgumentKind.STRING_IN
                assert measured or argument.bytes or argument.length >= 0, call.name


@every_abi
def test_pointers_of_i386_fit_their_registers(abi: Abi) -> None:
    """The word is that of the architecture's structures."""
    assert abi.word_bytes == LAYOUTS[abi.name].word_bytes


def test_abi_knows_its_elf_machine() -> None:
    """EM_386, EM_X86_64, EM_AARCH64, EM_RISCV."""
    machines = {"linux_i386": 3, "linux_x86_64": 62, "linux_aarch64": 183, "linux_riscv64": 243}
    assert {name: abi.machine for name, abi in ABIS.items()} == machines


def test_selector_chooses_the_arguments() -> None:
    """TCGETS writes a structure; an unknown request has no pointer."""
    ioctl = ABIS["linux_x86_64"].calls[16]

    known, unknown = ioctl.signature((0, 0x5401, 0x1000)), ioctl.signature((0, 0x9999, 0x1000))

    assert (known[2].kind, known[2].bytes) == (ArgumentKind.BUFFER_OUT, 36)
    assert unknown[2].kind is ArgumentKind.VALUE


def test_extent_of_an_array_counts_structures() -> None:
    """Poll's entries have eight bytes; a buffer's length is cut to 4 MiB."""
    poll, read = ABIS["linux_x86_64"].calls[7], ABIS["linux_x86_64"].calls[0]

    assert poll.arguments[0].extent((0x1000, 3, 0)) == 24
    assert read.arguments[1].extent((0, 0x1000, 1 << 40)) == 4 << 20
