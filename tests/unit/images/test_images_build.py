"""The bundled guest OS: the committed image is sound, and is what its sources build."""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from iovirt_dist.images import guestos_path
from iovirt_dist.images.build import IMAGES, BuildError, build, compiler_version, main

MULTIBOOT_MAGIC = 0x1BADB002
MULTIBOOT_SEARCH_BYTES = 8192
SIZE_LIMIT = 100 * 1024


def _gcc_can_build_i386(folder: Path) -> bool:
    source = folder / "probe.c"
    source.write_text("int probe;\n", encoding="utf-8")
    command = ["gcc", "-m32", "-ffreestanding", "-c", str(source), "-o", str(folder / "probe.o")]
    tools = all(shutil.which(tool) for tool in ("gcc", "ld"))
    return tools and subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image, built anew."""
    folder = tmp_path_factory.mktemp("guestos")
    if not _gcc_can_build_i386(folder):
        pytest.skip("no gcc -m32 with ld here")
    build(folder / "guestos.elf")
    return folder / "guestos.elf"


def _multiboot_header(image: bytes) -> tuple[int, int, int]:
    """The header's magic, flags and checksum (Multiboot 0.6.96, section 3.1)."""
    at = image.index(struct.pack("<I", MULTIBOOT_MAGIC), 0, MULTIBOOT_SEARCH_BYTES)
    magic, flags, checksum = struct.unpack_from("<III", image, at)
    return magic, flags, checksum


def _assert_bootable(image: bytes) -> None:
    elf_class, data, version = image[4:7]
    kind, machine = struct.unpack_from("<HH", image, 16)
    magic, flags, checksum = _multiboot_header(image)

    assert image[:4] == b"\x7fELF"
    assert (elf_class, data, version) == (1, 1, 1)
    assert (kind, machine) == (2, 3), "an executable for the 80386"
    assert flags == 2, "memory information, and no header fields for a.out loading"
    assert (magic + flags + checksum) % 2**32 == 0
    assert len(image) < SIZE_LIMIT


def test_guestos_path_names_a_bootable_image() -> None:
    """The committed image can be booted by a multiboot loader."""
    _assert_bootable(guestos_path().read_bytes())


def test_build_makes_a_bootable_image(rebuilt: Path) -> None:
    """The sources build, without a warning, to an image that can be booted."""
    _assert_bootable(rebuilt.read_bytes())


def test_build_twice_gives_equal_bytes(rebuilt: Path, tmp_path: Path) -> None:
    """Neither the time nor the place of the build gets into the image."""
    build(tmp_path / "elsewhere.elf")

    assert (tmp_path / "elsewhere.elf").read_bytes() == rebuilt.read_bytes()


def test_build_with_the_recorded_compiler_gives_the_committed_image(rebuilt: Path) -> None:
    """The committed image belongs to the committed sources."""
    recorded = (IMAGES / "guestos.built-with").read_text(encoding="utf-8").strip()
    if compiler_version() != recorded:
        pytest.skip(f"built with {recorded}, here is {compiler_version()}")

    assert rebuilt.read_bytes() == guestos_path().read_bytes()


def test_build_without_tools_says_which_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without a compiler gets one line, not a traceback."""
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(BuildError, match="gcc: No such file or directory"):
        build(tmp_path / "guestos.elf")


def test_main_without_tools_exits_with_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command reports a failed build on stderr and by its exit status."""
    monkeypatch.setenv("PATH", str(tmp_path))

    status = main([str(tmp_path / "guestos.elf")])

    assert status == 1
    assert capsys.readouterr().err == "build: gcc: No such file or directory\n"
