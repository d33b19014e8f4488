"""The stack of a new program: arguments, environment and the auxiliary vector.

Source: System V ABI, "Process Initialization"; the vector's entries as in Linux (getauxval(3)).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from iovirt_dist.errors import ImageError
from iovirt_dist.guest.program.elf import ProgramImage
from iovirt_dist.guest.program.tables import PAGE_BYTES

STACK_BYTES: Final = 1 << 20
RANDOM_BYTES: Final = 16
_MOST_STRING_BYTES: Final = STACK_BYTES // 4  # as Linux: a quarter of the stack
_MOST_STRINGS: Final = 4096
_CLOCK_TICKS: Final = 100

_AT_NULL: Final = 0
_AT_PHDR: Final = 3
_AT_PHENT: Final = 4
_AT_PHNUM: Final = 5
_AT_PAGESZ: Final = 6
_AT_BASE: Final = 7
_AT_FLAGS: Final = 8
_AT_ENTRY: Final = 9
_AT_UID: Final = 11
_AT_EUID: Final = 12
_AT_GID: Final = 13
_AT_EGID: Final = 14
_AT_PLATFORM: Final = 15
_AT_HWCAP: Final = 16
_AT_CLKTCK: Final = 17
_AT_SECURE: Final = 23
_AT_RANDOM: Final = 25
_AT_EXECFN: Final = 31


def build_stack(
    image: ProgramImage, top: int, arguments: Sequence[str], environment: Sequence[str], random: bytes, name: str
) -> tuple[int, bytes]:
    """Build what lies on the stack at a program's first instruction.

    Args:
        image: The program.
        top: Address behind the stack, a multiple of 16.
        arguments: argv.
        environment: ``NAME=value`` strings.
        random: AT_RANDOM, `RANDOM_BYTES` bytes.
        name: AT_EXECFN, the path of the program.

    Returns:
        The stack pointer, a multiple of 16, and the bytes from there to `top`.

    Raises:
        ImageError: The strings are longer than a quarter of the stack, or one contains a zero byte.
    """
    word_bytes = image.architecture.word_bytes
    area = _Strings(top - word_bytes)
    executable = area.push(name)
    environment_addresses = [area.push(text) for text in environment]
    argument_addresses = [area.push(text) for text in arguments]
    platform = area.push(image.architecture.platform) if image.architecture.platform else 0
    seed = area.push_bytes(random)
    if len(area.data) > _MOST_STRING_BYTES or len(arguments) + len(environment) > _MOST_STRINGS:
        raise ImageError("arguments and environment are too long", name, f"keep them below {_MOST_STRING_BYTES} bytes")
    vector = _auxiliary_vector(image, executable, platform, seed)
    words = [len(arguments), *argument_addresses, 0, *environment_addresses, 0, *vector]
    table = struct.pack(f"<{len(words)}{'Q' if word_bytes == 8 else 'I'}", *words)
    pointer = (area.address - len(table)) & ~15
    return pointer, table + bytes(area.address - pointer - len(table)) + area.data + bytes(word_bytes)


def _auxiliary_vector(image: ProgramImage, executable: int, platform: int, seed: int) -> list[int]:
    entries = [
        (_AT_PHDR, image.headers),
        (_AT_PHENT, image.header_bytes),
        (_AT_PHNUM, image.header_count),
        (_AT_PAGESZ, PAGE_BYTES),
        (_AT_BASE, 0),
        (_AT_FLAGS, 0),
        (_AT_ENTRY, image.entry),
        (_AT_UID, 0),
        (_AT_EUID, 0),
        (_AT_GID, 0),
        (_AT_EGID, 0),
        (_AT_SECURE, 0),
        (_AT_HWCAP, image.architecture.capabilities),
        (_AT_CLKTCK, _CLOCK_TICKS),
        (_AT_RANDOM, seed),
        (_AT_EXECFN, executable),
    ]
    if platform:
        entries.append((_AT_PLATFORM, platform))
    entries.append((_AT_NULL, 0))
    return [word for entry in entries for word in entry]


class _Strings:
    """Strings below `address`, the next one below the last."""

    def __init__(self, address: int) -> None:
        self.address = address
        self.data = b""

    def push(self, text: str) -> int:
        """Add a string with its end, and return its address."""
        raw = text.encode("utf-8", "surrogateescape")
        if b"\0" in raw:
            raise ImageError("an argument or environment string contains a zero byte", text[:20], "remove it")
        return self.push_bytes(raw + b"\0")

    def push_bytes(self, raw: bytes) -> int:
        """Add bytes, and return their address."""
        self.data = raw + self.data
        self.address -= len(raw)
        return self.address
