"""Structures: their sizes are those of the kernel's headers, and what does not fit is refused."""

from __future__ import annotations

import pytest

from iovirt_dist.abi import layouts
from iovirt_dist.abi.layouts import Layout, Layouts

FLAGS_OF_ARM = {0o40000: 0o200000, 0o100000: 0o400000, 0o200000: 0o40000, 0o400000: 0o100000, 0o2: 0o2}


@pytest.mark.parametrize(
    ("layout", "size"),
    [
        (layouts.X86_64.stat, 144),
        (layouts.AARCH64.stat, 128),
        (layouts.RISCV64.stat, 128),
        (layouts.I386.stat, 64),
        (layouts.I386.stat64, 96),
        (layouts.I386.sysinfo, 64),
        (layouts.X86_64.sysinfo, 112),
        (layouts.X86_64.sigaction, 32),
        (layouts.RISCV64.sigaction, 24),
        (layouts.I386.sigaction, 20),
        (layouts.X86_64.stack, 24),
        (layouts.I386.stack, 12),
        (layouts.STATX, 256),
        (layouts.TERMIOS, 36),
        (layouts.UTSNAME, 390),
        (layouts.USER_DESCRIPTOR, 16),
        (layouts.POLL, 8),
    ],
)
def test_size_is_the_kernels(layout: Layout, size: int) -> None:
    """As sizeof gives it."""
    assert layout.size == size


@pytest.mark.parametrize(
    ("layout", "offset"), [(layouts.X86_64.stat, 48), (layouts.RISCV64.stat, 48), (layouts.I386.stat64, 44)]
)
def test_size_of_a_file_lies_where_the_kernel_has_it(layout: Layout, offset: int) -> None:
    """As offsetof gives it."""
    packed = layout.pack({"size": 0x1122_3344_5566_7788})

    assert packed.index(b"\x88\x77\x66\x55\x44\x33\x22\x11") == offset


def test_value_that_does_not_fit_is_an_overflow() -> None:
    """A file of 4 GiB in the old structure of i386."""
    with pytest.raises(OverflowError):
        layouts.I386.stat.pack({"size": 1 << 32})


def test_unpack_gives_back_what_was_packed() -> None:
    """Fields by name, missing ones 0."""
    layout = Layout("a:H :2x b:q")

    assert layout.unpack(layout.pack({"b": -5, "unknown": 1})) == {"a": 0, "b": -5}


@pytest.mark.parametrize("own", FLAGS_OF_ARM)
def test_open_flags_of_arm_are_converted_both_ways(own: int) -> None:
    """Four flags have other numbers there."""
    assert layouts.AARCH64.open_flags(own) == FLAGS_OF_ARM[own]
    assert layouts.AARCH64.open_flags(layouts.AARCH64.open_flags(own)) == own


@pytest.mark.parametrize("other", [layouts.X86_64, layouts.I386, layouts.RISCV64])
def test_open_flags_of_others_are_the_common_ones(other: Layouts) -> None:
    """Nothing changes."""
    assert other.open_flags(0o740003) == 0o740003
