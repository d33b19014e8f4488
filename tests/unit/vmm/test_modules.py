"""Kernel modules of small trees: order, what is built in, compression."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest

from iovirt_dist.errors import ImageError
from iovirt_dist.vmm.modules import KernelModules, plain_name

DEPENDENCIES = """\
kernel/drivers/virtio/virtio_ring.ko:
kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/virtio/virtio_pci.ko.xz: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/char/virtio-rng.ko.gz: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/odd.ko.zst:
"""


@pytest.fixture
def modules(tmp_path: Path) -> KernelModules:
    """Modules of a kernel with ext4 in it."""
    (tmp_path / "modules.dep").write_text(DEPENDENCIES)
    (tmp_path / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    for path, data in (
        ("kernel/drivers/virtio/virtio.ko", b"plain"),
        ("kernel/drivers/virtio/virtio_pci.ko.xz", lzma.compress(b"from xz")),
        ("kernel/drivers/char/virtio-rng.ko.gz", gzip.compress(b"from gz")),
        ("kernel/odd.ko.zst", b"?"),
        ("kernel/broken.ko.xz", b"no xz"),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    return KernelModules(tmp_path, "linux-image-x")


def test_order_has_dependencies_in_front_and_each_once(modules: KernelModules) -> None:
    """Insmod loads one module and nothing else."""
    assert modules.order(["virtio_pci", "virtio_rng"]) == [
        "kernel/drivers/virtio/virtio_ring.ko",
        "kernel/drivers/virtio/virtio.ko",
        "kernel/drivers/virtio/virtio_pci.ko.xz",
        "kernel/drivers/char/virtio-rng.ko.gz",
    ]


def test_order_leaves_out_what_is_built_in(modules: KernelModules) -> None:
    """There is nothing to load."""
    assert modules.order(["ext4"]) == []


def test_unknown_module_is_named(modules: KernelModules, tmp_path: Path) -> None:
    """The fix names the package."""
    with pytest.raises(ImageError) as caught:
        modules.order(["virtio_blk"])

    assert str(caught.value) == f"{tmp_path}: the kernel has no module 'virtio_blk'; install linux-image-x"


def test_folder_without_modules_is_refused(tmp_path: Path) -> None:
    """The fix names the package."""
    with pytest.raises(ImageError, match=r"no kernel modules: No such file or directory; install linux-image-x"):
        KernelModules(tmp_path, "linux-image-x")


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("kernel/drivers/virtio/virtio.ko", b"plain"),
        ("kernel/drivers/virtio/virtio_pci.ko.xz", b"from xz"),
        ("kernel/drivers/char/virtio-rng.ko.gz", b"from gz"),
    ],
)
def test_read_decompresses(modules: KernelModules, path: str, data: bytes) -> None:
    """Busybox's insmod takes plain modules."""
    assert modules.read(path) == data


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("kernel/odd.ko.zst", "a kernel module is compressed in an unknown way"),
        ("kernel/broken.ko.xz", "cannot read a kernel module"),
        ("kernel/gone.ko", "cannot read a kernel module"),
    ],
)
def test_module_that_cannot_be_read_is_named(modules: KernelModules, path: str, expected: str) -> None:
    """The message begins with its path."""
    with pytest.raises(ImageError, match=f"{path}: {expected}"):
        modules.read(path)


def test_plain_name_is_without_folder_and_compression() -> None:
    """As the file is called in the archive."""
    assert plain_name("kernel/drivers/virtio-rng.ko.xz") == "virtio-rng.ko"
