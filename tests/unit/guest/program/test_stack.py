"""The stack of a new program, read back as the program's start code does."""

from __future__ import annotations

import struct

import pytest

from iovirt_dist.errors import ImageError
from iovirt_dist.guest.program.architecture import I386, RISCV64, X86_64, Architecture
from iovirt_dist.guest.program.elf import parse_program
from iovirt_dist.guest.program.stack import build_stack
from tests.unit.guest.program.support import CODE, RANDOM, program

TOP = 0x7000_0000
AT_PAGESZ, AT_ENTRY, AT_UID, AT_PLATFORM, AT_HWCAP, AT_SECURE, AT_RANDOM, AT_EXECFN = 6, 9, 11, 15, 16, 23, 25, 31
PLATFORMS = {X86_64: b"x86_64", I386: b"i686"}


class Stack:
    """A parsed stack.

    Attributes:
        arguments: argv.
        environment: envp.
        vector: The auxiliary vector.
    """

    def __init__(self, architecture: Architecture, arguments: tuple[str, ...], environment: tuple[str, ...]) -> None:
        image = parse_program(program(architecture, "90"), "x")
        self.pointer, self.data = build_stack(image, TOP, arguments, environment, RANDOM, "/bin/prog")
        self._letter = "Q" if architecture.word_bytes == 8 else "I"
        words = iter(struct.unpack_from(f"<{len(self.data) // architecture.word_bytes}{self._letter}", self.data))
        count = next(words)
        self.arguments = [self.string(next(words)) for _ in range(count)]
        assert next(words) == 0
        self.environment = [self.string(word) for word in iter(lambda: next(words), 0)]
        self.vector = dict(iter(lambda: (next(words), next(words)), (0, 0)))

    def string(self, address: int) -> bytes:
        """The string at an address."""
        return self.data[address - self.pointer :].split(b"\0")[0]


@pytest.mark.parametrize("architecture", [X86_64, I386, RISCV64])
def test_stack_holds_arguments_environment_and_vector(architecture: Architecture) -> None:
    """Everything is found where its pointers say."""
    stack = Stack(architecture, ("prog", "", "häuser"), ("A=1", "B="))
    assert stack.arguments == [b"prog", b"", "häuser".encode()]
    assert stack.environment == [b"A=1", b"B="]
    vector = stack.vector
    seed = vector[AT_RANDOM] - stack.pointer
    assert stack.data[seed : seed + 16] == RANDOM
    assert stack.string(vector[AT_EXECFN]) == b"/bin/prog"
    assert (vector[AT_PAGESZ], vector[AT_ENTRY], vector[AT_UID], vector[AT_SECURE]) == (4096, CODE, 0, 0)
    assert vector[AT_HWCAP] == architecture.capabilities
    platform = vector.get(AT_PLATFORM)
    assert (stack.string(platform) if platform else None) == PLATFORMS.get(architecture)


@pytest.mark.parametrize("length", range(17))
def test_stack_pointer_is_aligned_whatever_the_strings(length: int) -> None:
    """A multiple of 16, as the ABIs demand, and the bytes end at the top."""
    stack = Stack(X86_64, ("x" * length,), ())
    assert stack.pointer % 16 == 0
    assert stack.pointer + len(stack.data) == TOP


def test_stack_that_would_be_too_full_is_one_line() -> None:
    """A quarter of it at most, as Linux allows; not too many strings either."""
    with pytest.raises(ImageError, match="arguments and environment are too long"):
        Stack(X86_64, ("x" * (1 << 18),), ())
    with pytest.raises(ImageError, match="arguments and environment are too long"):
        Stack(X86_64, (), ("x",) * 5000)


def test_string_with_a_zero_byte_is_one_line() -> None:
    """It would end there for the program."""
    with pytest.raises(ImageError, match="contains a zero byte"):
        Stack(X86_64, ("a\0b",), ())
