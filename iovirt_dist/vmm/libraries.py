"""Shared libraries that a program needs, found as the dynamic loader finds them where it knows no cache.

Source: ld.so(8), "Dynamic string tokens" and the search order: DT_RPATH or DT_RUNPATH of who needs the library, then
the loader's own folders. LD_LIBRARY_PATH and /etc/ld.so.cache are left out: an initial RAM disk has neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSegment, DynamicTag
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import InterpSegment

from iovirt_dist.errors import ImageError

_MULTIARCH: Final = {
    "EM_X86_64": "x86_64-linux-gnu",
    "EM_386": "i386-linux-gnu",
    "EM_AARCH64": "aarch64-linux-gnu",
    "EM_RISCV": "riscv64-linux-gnu",
}
"""Debian's folders of libraries by the machine of their ELF header."""


class Needs(NamedTuple):
    """What the header of a program or library says.

    Attributes:
        machine: Architecture, as in `elftools`.
        interpreter: Absolute path of the dynamic loader; empty for a static program or a library.
        names: Names of the libraries that it needs.
        folders: Where to look first; with ``$ORIGIN`` replaced.
    """

    machine: str
    interpreter: str
    names: tuple[str, ...]
    folders: tuple[str, ...]


def is_elf(path: Path) -> bool:
    """Whether a file is a program or library in ELF."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def shared_libraries(program: Path, root: Path = Path("/")) -> list[Path]:
    """Return the dynamic loader of a program and all libraries that it needs, as paths under `root`, each once.

    Args:
        program: Under `root`.
        root: Where the file system begins.

    Raises:
        ImageError: It is no ELF file, or a library is missing.
    """
    found: dict[Path, None] = {}
    waiting = [program]
    while waiting:
        current = waiting.pop()
        needs = read_needs(current, root)
        for path in _resolve(current, needs, root):
            if path not in found:
                found[path] = None
                waiting.append(path)
    return list(found)


def _resolve(current: Path, needs: Needs, root: Path) -> Iterator[Path]:
    if needs.interpreter:
        yield root / needs.interpreter.lstrip("/")
    triplet = _MULTIARCH.get(needs.machine, "")
    trusted = [f"/lib/{triplet}", f"/usr/lib/{triplet}", "/lib64", "/usr/lib64", "/lib", "/usr/lib"]
    for name in needs.names:
        places = [name] if "/" in name else [f"{folder}/{name}" for folder in (*needs.folders, *trusted)]
        paths = [root / place.lstrip("/") for place in places]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            raise ImageError(f"needs library {name}, which is not here", str(current), "install its package")
        yield path


def read_needs(path: Path, root: Path = Path("/")) -> Needs:
    """Read what a program or library says of itself.

    Raises:
        ImageError: It is missing or no ELF file.
    """
    try:
        with path.open("rb") as file:
            elf = ELFFile(file)
            interpreters = [part.get_interp_name() for part in elf.iter_segments() if isinstance(part, InterpSegment)]
            parts = [part for part in elf.iter_segments() if isinstance(part, DynamicSegment)]
            tags = [tag for part in parts for tag in part.iter_tags()]
            names = tuple(_strings(tags, "needed"))
            paths = _strings(tags, "rpath", "runpath")
            origin = f"/{path.parent.relative_to(root)}"
            folders = [expand_origin(folder, origin) for text in paths for folder in text.split(":") if folder]
            return Needs(str(elf["e_machine"]), interpreters[0] if interpreters else "", names, tuple(folders))
    except OSError as error:
        raise ImageError(f"cannot read it: {error.strerror}", str(path)) from None
    except (ELFError, ValueError, UnicodeDecodeError) as error:
        raise ImageError(f"no ELF file: {error}", str(path)) from None


def _strings(tags: list[DynamicTag], *kinds: str) -> list[str]:
    """What tags of some kinds say; `elftools` has an attribute for each kind."""
    return [str(getattr(tag, kind)) for tag in tags for kind in kinds if hasattr(tag, kind)]


def expand_origin(folder: str, origin: str) -> str:
    """Return a folder of an ELF file with the file's own folder in place of ``$ORIGIN``."""
    return folder.replace("${ORIGIN}", origin).replace("$ORIGIN", origin)
