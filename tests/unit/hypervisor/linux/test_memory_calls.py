"""Heap and mapped ranges: where they are, what the guest must do for them, and their bounds."""

from __future__ import annotations

import pytest

from iovirt_dist.hypervisor.linux.memory import MAX_RANGES
from iovirt_dist.wire.syscall_messages import EffectKind
from tests.unit.hypervisor.linux.program import BREAK_START, MAP_TOP, Program

PAGE = 4096
ANONYMOUS, FIXED, NOREPLACE = 0x22, 0x32, 0x100022
READ_WRITE = 3
MAP, UNMAP, PROTECT = EffectKind.MAP, EffectKind.UNMAP, EffectKind.PROTECT


def mapped(program: Program, length: int, address: int = 0, flags: int = ANONYMOUS) -> int:
    """Map memory that can be read and written; returns its address or the error."""
    return program.call("mmap", address, length, READ_WRITE, flags, -1, 0)


def test_brk_starts_behind_the_program() -> None:
    """Asked for 0 it tells where the heap's end is."""
    program = Program()

    assert program.call("brk", 0) == BREAK_START
    assert program.reply.effects == ()


def test_brk_grows_by_whole_pages() -> None:
    """The loader has mapped the page in which the program ends."""
    program = Program()

    first = program.call("brk", BREAK_START + 0x900)
    effects = program.reply.effects
    second = program.call("brk", BREAK_START + 0xA00)

    assert (first, effects) == (BREAK_START + 0x900, ((MAP, 0x501000, PAGE, READ_WRITE),))
    assert (second, program.reply.effects) == (BREAK_START + 0xA00, ())


def test_brk_shrinks_and_grows_zeroed() -> None:
    """What was given back is mapped anew."""
    program = Program()
    program.call("brk", BREAK_START + 3 * PAGE)

    program.call("brk", BREAK_START + PAGE)

    assert program.reply.effects == ((UNMAP, 0x502000, 2 * PAGE, 0),)


@pytest.mark.parametrize("address", [BREAK_START - 1, MAP_TOP, 1 << 60, BREAK_START + (1 << 26) + 2 * PAGE])
def test_brk_that_cannot_be_changes_nothing(address: int) -> None:
    """Below the start, into the stack, out of the address space, or more memory than there may be."""
    program = Program()

    assert program.call("brk", address) == BREAK_START
    assert program.reply.effects == ()


def test_brk_stops_at_mapped_ranges() -> None:
    """They come first."""
    program = Program()
    mapped(program, PAGE, 0x503000, FIXED)

    assert program.call("brk", 0x503001) == BREAK_START
    assert program.call("brk", 0x503000) == 0x503000


def test_mmap_goes_downwards() -> None:
    """The first range lies below the stack, the next one below that; both are whole pages."""
    program = Program()

    assert mapped(program, 5000) == MAP_TOP - 2 * PAGE
    assert program.reply.effects == ((MAP, MAP_TOP - 2 * PAGE, 2 * PAGE, READ_WRITE),)
    assert mapped(program, PAGE) == MAP_TOP - 3 * PAGE


def test_mmap_takes_a_hint_that_is_free() -> None:
    """One that is not free is ignored."""
    program = Program()

    assert mapped(program, PAGE, 0x2000_0123) == 0x2000_0000
    assert mapped(program, PAGE, 0x2000_0000) == MAP_TOP - PAGE


def test_mmap_fills_gaps() -> None:
    """Address space that was given back is used again."""
    program = Program()
    mapped(program, PAGE)
    middle = mapped(program, PAGE)
    mapped(program, PAGE)

    program.call("munmap", middle, PAGE)

    assert mapped(program, PAGE) == middle


def test_mmap_fixed_replaces() -> None:
    """MAP_FIXED_NOREPLACE does not."""
    program = Program()
    address = mapped(program, 4 * PAGE)

    assert mapped(program, PAGE, address + PAGE, FIXED) == address + PAGE
    assert program.reply.effects == ((MAP, address + PAGE, PAGE, READ_WRITE),)
    assert mapped(program, PAGE, address, NOREPLACE) == -17


@pytest.mark.parametrize(
    ("address", "length", "flags", "errno"),
    [
        (0, 0, ANONYMOUS, 22),
        (0, 1 << 27, ANONYMOUS, 12),
        (0, 1 << 63, ANONYMOUS, 12),
        (0x2000_0001, PAGE, FIXED, 22),
        (0x40_0000, PAGE, FIXED, 12),
        (MAP_TOP, PAGE, FIXED, 12),
        (0xFFFF_FFFF_FFFF_F000, 2 * PAGE, FIXED, 12),
        (0, PAGE, 0x20, 22),
        (0, PAGE, 2, 9),
    ],
)
def test_mmap_that_cannot_be_is_refused(address: int, length: int, flags: int, errno: int) -> None:
    """Empty, too much, not aligned, over the program or its stack, of no type, of no file."""
    program = Program()

    assert mapped(program, length, address, flags) == -errno
    assert program.reply.effects == ()


def test_mmap_of_a_file_is_enodev() -> None:
    """A caller then reads it; ``/dev/zero`` is anonymous memory."""
    program = Program(files={"/etc/motd": b"x"})
    file = program.call("openat", -100, "/etc/motd", 0, 0)
    zero = program.call("openat", -100, "/dev/zero", 2, 0)

    assert program.call("mmap", 0, PAGE, 1, 2, file, 0) == -19
    assert program.call("mmap", 0, PAGE, 3, 2, zero, 0) == MAP_TOP - PAGE


def test_old_mmap_of_i386_takes_its_arguments_from_memory() -> None:
    """Number 90; mmap2 is the newer one."""
    program = Program("linux_i386")
    arguments = b"".join(word.to_bytes(4, "little") for word in (0, PAGE, 3, ANONYMOUS, 0xFFFF_FFFF, 0))

    assert program.call("mmap", arguments) == MAP_TOP - PAGE
    assert program.call("mmap2", 0, PAGE, 3, ANONYMOUS, -1, 0) == MAP_TOP - 2 * PAGE


def test_memory_is_bounded() -> None:
    """Heap and ranges count together; what is given back counts no more."""
    program = Program(memory_bytes=8 * PAGE)
    program.call("brk", BREAK_START + 4 * PAGE)
    address = mapped(program, 4 * PAGE)

    assert mapped(program, PAGE) == -12
    program.call("munmap", address, PAGE)
    assert mapped(program, PAGE) > 0


def test_ranges_are_bounded() -> None:
    """A program cannot make the hypervisor remember more and more."""
    program = Program()
    results = [mapped(program, PAGE, 0x1000_0000 + 2 * PAGE * at, FIXED) for at in range(MAX_RANGES + 1)]

    assert results[-2] > 0
    assert results[-1] == -12


def test_munmap_of_what_is_not_mapped_succeeds() -> None:
    """It must be aligned and not empty."""
    program = Program()

    assert program.call("munmap", 0x2000_0000, PAGE) == 0
    assert program.call("munmap", 0x2000_0001, PAGE) == -22
    assert program.call("munmap", 0x2000_0000, 0) == -22
    assert program.call("munmap", 0x2000_0000, 1 << 63) == -22


@pytest.mark.parametrize(
    ("abi", "end"), [("linux_x86_64", 0x7FFF_FFFF_F000), ("linux_i386", 0xC000_0000), ("linux_riscv64", 0x40_0000_0000)]
)
@pytest.mark.parametrize(("pages_below", "length"), [(1, 2 * PAGE), (1, PAGE + 1), (0, PAGE), (-0x1000, PAGE)])
def test_memory_behind_the_programs_part_is_refused(abi: str, end: int, pages_below: int, length: int) -> None:
    """Nothing is there: munmap says EINVAL, mprotect and madvise ENOMEM, mremap EFAULT; the program goes on."""
    program = Program(abi)
    address = end - pages_below * PAGE

    assert program.call("munmap", address, length) == -22
    assert program.call("mprotect", address, length, 1) == -12
    assert program.call("madvise", address, length, 3) == -12
    assert program.call("mremap", address, length, PAGE, 0, 0) == -14
    assert program.reply.effects == ()


def test_memory_up_to_the_end_of_the_programs_part_is_its_own() -> None:
    """The stack is there, which is not managed here."""
    program = Program()
    address = 0x7FFF_FFFF_F000 - PAGE

    assert program.call("mprotect", address, PAGE, 1) == 0
    assert program.call("munmap", address, PAGE) == 0
    assert program.reply.effects == ((UNMAP, address, PAGE, 0),)


def test_munmap_of_the_middle_leaves_both_ends() -> None:
    """Each of them can be unmapped on its own, and is no longer one with the other."""
    program = Program()
    address = mapped(program, 3 * PAGE)

    program.call("munmap", address + PAGE, PAGE)

    assert program.call("mprotect", address, PAGE, 1) == 0
    assert program.call("mprotect", address, 3 * PAGE, 1) == -12
    assert program.call("mprotect", address + 2 * PAGE, PAGE, 1) == 0


def test_mprotect_of_the_program_itself_is_passed_on() -> None:
    """A C library protects what it has relocated; it lies outside of what is managed here."""
    program = Program()

    assert program.call("mprotect", 0x40_0000, 2 * PAGE, 1) == 0
    assert program.reply.effects == ((PROTECT, 0x40_0000, 2 * PAGE, 1),)


def test_mprotect_checks_its_arguments() -> None:
    """Bits that are no protection, an address that is not aligned; an empty range is fine."""
    program = Program()

    assert program.call("mprotect", 0x40_0000, PAGE, 8) == -22
    assert program.call("mprotect", 0x40_0001, PAGE, 1) == -22
    assert program.call("mprotect", 0x40_0000, 0, 1) == 0
    assert program.call("mprotect", 0x40_0000, 1 << 63, 1) == -12


def test_mremap_grows_into_free_space_and_shrinks() -> None:
    """In place only."""
    program = Program()
    mapped(program, PAGE)
    address = mapped(program, PAGE, 0x2000_0000)

    assert program.call("mremap", address, PAGE, 3 * PAGE, 1, 0) == address
    assert program.reply.effects == ((MAP, address + PAGE, 2 * PAGE, READ_WRITE),)
    assert program.call("mremap", address, 3 * PAGE, PAGE, 1, 0) == address
    assert program.reply.effects == ((UNMAP, address + PAGE, 2 * PAGE, 0),)


def test_mremap_grows_with_the_protection_that_is_there() -> None:
    """That of mmap, or what mprotect has made of it; the neighbours' does not matter."""
    program = Program()
    address = program.call("mmap", 0x2000_0000, 2 * PAGE, 1, ANONYMOUS, -1, 0)
    program.call("mremap", address, 2 * PAGE, 3 * PAGE, 0, 0)
    read_only = program.reply.effects
    program.call("mprotect", address + PAGE, 2 * PAGE, 0)
    program.call("mremap", address + PAGE, 2 * PAGE, 3 * PAGE, 0, 0)

    assert read_only == ((MAP, address + 2 * PAGE, PAGE, 1),)
    assert program.reply.effects == ((MAP, address + 3 * PAGE, PAGE, 0),)


def test_mremap_of_different_protections_shrinks_but_does_not_grow() -> None:
    """EFAULT, as for several mappings in Linux; protected alike they are one again."""
    program = Program()
    address = mapped(program, 3 * PAGE, 0x2000_0000)
    program.call("mprotect", address + PAGE, PAGE, 1)

    assert program.call("mremap", address, 3 * PAGE, 4 * PAGE, 0, 0) == -14
    assert program.call("mremap", address, 3 * PAGE, 2 * PAGE, 0, 0) == address
    program.call("mprotect", address, 2 * PAGE, READ_WRITE)
    assert program.call("mremap", address, 2 * PAGE, 4 * PAGE, 0, 0) == address


def test_mprotect_is_bounded() -> None:
    """Pages that are protected differently are ranges of their own, of which there are only so many."""
    program = Program()
    address = mapped(program, 4 * MAX_RANGES * PAGE, 0x1000_0000)

    results = [program.call("mprotect", address + 2 * at * PAGE, PAGE, 1) for at in range(MAX_RANGES)]

    assert set(results) == {0, -12}
    assert program.call("munmap", address, PAGE) == -12


def test_mremap_without_room_is_enomem() -> None:
    """The C library's realloc then copies."""
    program = Program()
    mapped(program, PAGE)
    address = mapped(program, PAGE)

    assert program.call("mremap", address, PAGE, 2 * PAGE, 1, 0) == -12
    assert program.call("mremap", address - PAGE, PAGE, 2 * PAGE, 1, 0) == -14
    assert program.call("mremap", address, PAGE, 2 * PAGE, 2, 0) == -22


def test_madvise_is_taken_where_it_promises_nothing() -> None:
    """MADV_DONTNEED would have to make the memory zero."""
    program = Program()
    address = mapped(program, PAGE)

    assert program.call("madvise", address, PAGE, 3) == 0
    assert program.call("madvise", address, PAGE, 4) == -22
    assert program.call("madvise", address - PAGE, PAGE, 3) == -12
    assert program.call("madvise", address + 1, PAGE, 3) == -22
