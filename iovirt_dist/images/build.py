"""Build the bundled guest OS with gcc and GNU binutils: ``python -m iovirt_dist.images.build``.

The image depends on the sources and the compiler only: no path, date or build id goes into it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["IMAGES", "SOURCES", "BuildError", "build", "compiler_version", "main"]

IMAGES = Path(__file__).resolve().parent
SOURCES = IMAGES / "guestos"

# 80386 code: the machine promises no later instructions. General registers only: neither the kernel
# nor its switching of programs saves the FPU's. The rest keeps out what a hosted C would need.
_COMMON_FLAGS = [
    "-m32",
    "-march=i386",
    "-mtune=generic",
    "-std=gnu11",
    "-O2",
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Wstrict-prototypes",
    "-Wmissing-prototypes",
    "-Werror",
    "-ffreestanding",
    "-fno-pic",
    "-no-pie",
    "-fno-stack-protector",
    "-mgeneral-regs-only",
    "-fcf-protection=none",
    "-fno-asynchronous-unwind-tables",
    "-fno-tree-loop-distribute-patterns",
    "-ffunction-sections",
    "-fno-ident",
    "-Wa,--noexecstack",
    "-Ilib",
]
_LINK_FLAGS = ["-m", "elf_i386", "-nostdlib", "-static", "--build-id=none", "--fatal-warnings"]
_LINK_FLAGS += ["-z", "noexecstack", "-z", "max-page-size=4096", "--no-warn-rwx-segments"]


class BuildError(Exception):
    """A compiler or linker refused; its text is the message."""


def compiler_version() -> str:
    """Return the first line of ``gcc --version``.

    Raises:
        BuildError: There is no gcc.
    """
    return _run(["gcc", "--version"]).splitlines()[0]


def _run(command: list[str]) -> str:
    """Run `command` in the source folder, so that no other path can get into an object file."""
    try:
        done = subprocess.run(  # noqa: S603 - no input of others in the command
            command, cwd=SOURCES, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise BuildError(f"{command[0]}: {error.strerror}") from error
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)}\n{done.stderr}".rstrip())
    return done.stdout


def _compile(folder: str, out: Path, flags: list[str]) -> list[str]:
    """Compile the C and assembler files of one source folder; return the object files' paths."""
    objects = []
    for source in sorted([*(SOURCES / folder).glob("*.c"), *(SOURCES / folder).glob("*.S")]):
        target = out / folder / f"{source.name}.o"
        target.parent.mkdir(exist_ok=True)
        name = f"{folder}/{source.name}"
        _run(["gcc", *_COMMON_FLAGS, *flags, "-c", name, "-o", str(target)])
        objects.append(str(target))
    return objects


def _link(script: str, objects: list[str], target: Path, flags: list[str]) -> None:
    """Link `objects` with the linker script `script` into the ELF file `target`."""
    _run(["ld", *_LINK_FLAGS, *flags, "-T", script, "-o", str(target), *objects])


def build(out: Path) -> None:
    """Build the kernel with its programs.

    Args:
        out: The ELF file to write.

    Raises:
        BuildError: A tool is missing or found an error in the sources.
    """
    with tempfile.TemporaryDirectory(prefix="guestos-") as scratch:
        work = Path(scratch)
        shared = _compile("lib", work, [])
        libc = _compile("libc", work, ["-Ilibc"])
        for program in _compile("programs", work, ["-Ilibc"]):
            target = work / Path(program).name.replace(".c.o", ".elf")
            _link("libc/user.ld", [program, *libc, *shared], target, ["--strip-all", "--gc-sections"])
        kernel = _compile("kernel", work, ["-Ikernel", f"-Wa,-I,{work}"])
        _link("kernel/kernel.ld", [*kernel, *shared], out, [])


def main(arguments: list[str] | None = None) -> int:
    """Build the image in its place, or elsewhere; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m iovirt_dist.images.build", description=__doc__)
    parser.add_argument("out", nargs="?", type=Path, help="the file to write (default: in place)")
    out: Path | None = parser.parse_args(arguments).out
    try:
        build((out or IMAGES / "guestos.elf").resolve())
        if out is None:
            (IMAGES / "guestos.built-with").write_text(f"{compiler_version()}\n", encoding="utf-8")
    except BuildError as error:
        sys.stderr.write(f"build: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
