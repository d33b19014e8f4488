"""VMMs, kernels and modules that are installed."""

from __future__ import annotations

from pathlib import Path

from iovirt_dist.topology.vm_files import modules_folder, newest_kernel


def install(root: Path, *names: str) -> None:
    """Make empty files."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_newest_kernel_is_the_one_of_the_greatest_version(tmp_path: Path) -> None:
    """Versions are numbers, not text; kernels of other packages do not count."""
    install(tmp_path, *(f"boot/vmlinuz-{release}" for release in ("6.1.0-9-cloud-amd64", "6.1.0-56-cloud-amd64")))
    install(tmp_path, "boot/vmlinuz-7.0.0-1-amd64", "boot/config-8.0.0-1-cloud-amd64")

    assert newest_kernel(tmp_path) == tmp_path / "boot/vmlinuz-6.1.0-56-cloud-amd64"


def test_no_kernel_is_none(tmp_path: Path) -> None:
    """There is no folder, even."""
    assert newest_kernel(tmp_path) is None


def test_modules_of_a_kernel_are_those_of_its_release(tmp_path: Path) -> None:
    """The release is behind the first dash of the kernel's name."""
    install(tmp_path, "lib/modules/6.1.0-9-cloud-amd64/modules.dep")

    assert modules_folder("qemu", Path("/x/vmlinuz-6.1.0-9-cloud-amd64"), tmp_path) == (
        tmp_path / "lib/modules/6.1.0-9-cloud-amd64"
    )
    assert modules_folder("qemu", Path("/x/vmlinuz-6.1.0-8-cloud-amd64"), tmp_path) is None
    assert modules_folder("qemu", Path("/x/bzImage"), tmp_path) is None


def test_modules_of_user_mode_linux_are_the_newest(tmp_path: Path) -> None:
    """Its kernel is the program, without a release in its name."""
    install(tmp_path, "usr/lib/uml/modules/6.1.9/modules.dep", "usr/lib/uml/modules/6.1.176/modules.dep")

    assert modules_folder("uml", None, tmp_path) == tmp_path / "usr/lib/uml/modules/6.1.176"
    assert modules_folder("uml", None, tmp_path / "empty") is None
