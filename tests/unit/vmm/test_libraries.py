"""Libraries of programs: those of this machine's own interpreter, and of small trees."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from iovirt_dist.errors import ImageError
from iovirt_dist.vmm.libraries import expand_origin, is_elf, read_needs, shared_libraries

SHELL = Path("/bin/sh").resolve()


def test_libraries_of_a_program_are_those_that_the_loader_finds() -> None:
    """ldd(1) asks the loader itself."""
    told = subprocess.run(["ldd", str(SHELL)], capture_output=True, text=True, check=True).stdout
    names = {word.rpartition("/")[2] for line in told.splitlines() for word in line.split() if word.startswith("/")}

    assert {path.name for path in shared_libraries(SHELL)} == names


def test_libraries_are_looked_for_beside_who_needs_them_first(tmp_path: Path) -> None:
    """A tree of its own has the loader where the program says, and the library in one of the loader's folders."""
    needs = read_needs(SHELL)
    program = tmp_path / "bin/sh"
    loader = tmp_path / needs.interpreter.lstrip("/")
    library = tmp_path / "lib/libc.so.6"
    for path in (program, loader, library):
        path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(SHELL, program)
    shutil.copy(needs.interpreter, loader)
    shutil.copy(needs.interpreter, library)

    assert sorted(shared_libraries(program, tmp_path)) == sorted([loader, library])


def test_missing_library_is_named_with_who_needs_it(tmp_path: Path) -> None:
    """The tree has the loader and nothing else."""
    program = tmp_path / "sh"
    loader = tmp_path / read_needs(SHELL).interpreter.lstrip("/")
    loader.parent.mkdir(parents=True)
    shutil.copy(SHELL, program)
    shutil.copy(read_needs(SHELL).interpreter, loader)

    with pytest.raises(ImageError, match=f"{program}: needs library libc.so.6, which is not here"):
        shared_libraries(program, tmp_path)


def test_origin_is_the_folder_of_who_needs_the_library() -> None:
    """It may be written in two ways."""
    assert expand_origin("$ORIGIN/../lib", "/opt/x/bin") == "/opt/x/bin/../lib"
    assert expand_origin("${ORIGIN}", "/opt/x/bin") == "/opt/x/bin"


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\x7fELF"])
def test_what_is_no_program_is_refused(tmp_path: Path, content: bytes) -> None:
    """Whatever it is, it is one error."""
    path = tmp_path / "file"
    path.write_bytes(content)

    with pytest.raises(ImageError):
        read_needs(path)


def test_missing_program_is_refused(tmp_path: Path) -> None:
    """The message begins with its path."""
    with pytest.raises(ImageError, match=f"{tmp_path}/none: cannot read it: No such file"):
        read_needs(tmp_path / "none")


def test_is_elf_looks_at_the_first_bytes(tmp_path: Path) -> None:
    """A script is none."""
    (tmp_path / "script").write_bytes(b"#!/bin/sh\n")

    assert is_elf(SHELL)
    assert not is_elf(tmp_path / "script")
