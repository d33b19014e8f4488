"""The bundled guest OS: a small 32-bit x86 system, prebuilt, with its sources."""

from importlib.resources import files
from pathlib import Path

__all__ = ["guestos_path"]


def guestos_path() -> Path:
    """Find the prebuilt kernel image, a multiboot-1 ELF32 file for i386.

    Returns:
        The path of ``guestos.elf``, which holds the kernel and all its programs.

    Raises:
        FileNotFoundError: The package was installed without its data, or as a zip archive.
    """
    path = Path(str(files(__name__) / "guestos.elf"))
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not there; build it with python -m {__name__}.build")
    return path
