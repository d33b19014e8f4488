"""Initial RAM disks for real kernels, each made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.guests.linux_vm import write_initrd
from tests.guests.support import BLKDISCARD, E2FSCK, FIO, MKE2FS


@pytest.fixture(scope="session")
def uml_initrd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For User-Mode Linux, with the programs of e2fsprogs."""
    return write_initrd(tmp_path_factory.mktemp("uml") / "initrd", "uml", (MKE2FS, E2FSCK))


@pytest.fixture(scope="session")
def fio_initrd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For QEMU, with fio and blkdiscard."""
    return write_initrd(tmp_path_factory.mktemp("qemu") / "initrd", "qemu", (FIO, BLKDISCARD))


@pytest.fixture(scope="session")
def plain_initrd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For QEMU, with busybox alone."""
    return write_initrd(tmp_path_factory.mktemp("plain") / "initrd", "qemu")
