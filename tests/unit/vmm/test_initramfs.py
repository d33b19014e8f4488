"""Initial RAM disks: what is in them, and what is missing where they cannot be made."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from iovirt_dist.errors import ImageError
from iovirt_dist.vmm.initramfs import InitramfsPlan, init_text, kernel_modules, write_initramfs
from tests.unit.vmm.test_cpio import entries

NAMES = ("virtio_blk", "virtio_net", "virtio_console")


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """Modules of a kernel for User-Mode Linux, and a busybox that is no program."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "modules.dep").write_text("".join(f"kernel/{name}.ko:\n" for name in NAMES))
    (folder / "modules.builtin").write_text("kernel/fs/ext4.ko\n")
    (folder / "kernel").mkdir()
    for name in NAMES:
        (folder / f"kernel/{name}.ko").write_text(name)
    (tmp_path / "busybox").write_text("#!")
    return folder


def plan(modules: Path, **changes: object) -> InitramfsPlan:
    """A plan for that kernel."""
    fields = {"vmm": "uml", "modules": modules, "busybox": modules.parent / "busybox", **changes}
    return InitramfsPlan(**fields)  # type: ignore[arg-type]  # what a test leaves out has its default


def content(of: InitramfsPlan) -> dict[str, bytes]:
    """What is in the archive, by path."""
    file = io.BytesIO()
    write_initramfs(file, of)
    return {entry.name: entry.data for entry in entries(file.getvalue())}


def test_archive_has_shell_modules_and_init(modules: Path) -> None:
    """That is all that a kernel needs."""
    found = content(plan(modules))

    assert found["bin/busybox"] == b"#!"
    assert found["lib/modules/virtio_net.ko"] == b"virtio_net"
    assert found["init"].startswith(b"#!/bin/busybox sh\n")
    assert b"insmod /lib/modules/virtio_blk.ko\n" in found["init"]
    assert "script" not in found


def test_archive_has_script_and_files(modules: Path, tmp_path: Path) -> None:
    """A file that is no program is copied without libraries."""
    (tmp_path / "job").write_text("[x]")

    found = content(plan(modules, script="echo done\n", files={"/etc/job.fio": tmp_path / "job"}))

    assert (found["script"], found["etc/job.fio"]) == (b"echo done\n", b"[x]")
    assert b"sh /script\n" in found["init"]


def test_program_brings_its_libraries(modules: Path) -> None:
    """They stay where they are, as the loader looks there."""
    shell = Path("/bin/sh").resolve()

    found = content(plan(modules, programs=(shell,)))

    assert found[f"bin/{shell.name}"] == shell.read_bytes()
    assert any(name.endswith("libc.so.6") for name in found)


def test_init_ends_with_power_off() -> None:
    """Behind a script as behind a shell."""
    assert init_text([], script=True).endswith('sh /script\necho "script ended with status $?"\npoweroff -f\n')
    assert init_text([], script=False).endswith("setsid cttyhack sh\npoweroff -f\n")


def test_missing_file_is_named(modules: Path, tmp_path: Path) -> None:
    """So that nobody looks for it in the guest."""
    with pytest.raises(ImageError, match=f"{tmp_path}/none: no such file"):
        content(plan(modules, files={"/x": tmp_path / "none"}))


def test_missing_busybox_is_named_with_its_package(modules: Path, tmp_path: Path) -> None:
    """One with libraries does not count: there is nothing to load them."""
    for busybox in (tmp_path / "none", Path("/bin/sh").resolve()):
        with pytest.raises(ImageError, match=f"{busybox}: no static busybox; install busybox-static"):
            content(plan(modules, busybox=busybox))


def test_missing_modules_are_named_with_their_package(tmp_path: Path) -> None:
    """A kernel that was built by its user has its own folder, or none."""
    kernel = tmp_path / "bzImage"
    with pytest.raises(ImageError, match=f"{kernel}: no such kernel; correct its path"):
        kernel_modules("qemu", kernel)
    kernel.touch()

    with pytest.raises(ImageError, match=f"{kernel}: no modules of this kernel are installed"):
        kernel_modules("qemu", kernel)
