"""Errors of topology files, said with the options of ``iovirt run``."""

from __future__ import annotations

from pathlib import Path

import pytest

from iovirt_dist.cli.adhoc import topology_text
from iovirt_dist.cli.adhoc_errors import in_options
from iovirt_dist.cli.adhoc_guest import AdHocGuest
from iovirt_dist.errors import ConfigError, ImageError, LocalError
from iovirt_dist.topology import Origin, topology_from_text


def said(guest: AdHocGuest, base: Path) -> str:
    """What the user of these options reads."""

    def start() -> None:
        topology = topology_from_text(topology_text(guest, base / "run"), Origin("iovirt run", None, base))
        raise topology.missing_images()[0]

    with pytest.raises(LocalError) as caught:
        start()
    return str(in_options(caught.value, guest.kind))


@pytest.mark.parametrize(
    ("guest", "expected"),
    [
        (
            AdHocGuest(disk="/no/d.img"),
            "--disk-size: /no/d.img does not exist and no size is given; add --disk-size 16MiB",
        ),
        (AdHocGuest(disk_size="3x", disk="d"), '--disk-size: expected a size such as 512, "64KiB" or "1GiB", got "3x"'),
        (AdHocGuest(memory="1x"), '--memory: expected a size such as 512, "64KiB" or "1GiB", got "1x"'),
        (AdHocGuest(image="/no.elf"), "/no.elf: no such image file; correct --image"),
        (AdHocGuest(payload="/no.elf"), "/no.elf: no such image file; correct --payload"),
        (AdHocGuest(program="/no"), "/no: no such image file; correct --program"),
        (AdHocGuest(script="/no.py:main"), "/no.py: no such script file; correct --script"),
        (
            AdHocGuest(script="no"),
            '--script: expected "PACKAGE.MODULE:FUNCTION" or "FILE.py:FUNCTION", got "no"; '
            "such as --script load.py:main",
        ),
        (
            AdHocGuest(machine="virt", level="syscall"),
            "--level: system calls are taken on machine 'pc' and of programs, not on machine 'virt'; "
            "use --machine pc, --program FILE or --level driver",
        ),
        (
            AdHocGuest(machine="virt", level="operation", disk="d", disk_size="1MiB"),
            "--level: the disk of machine 'virt' is virtio, without registers of its own to intercept; "
            "use --level driver or --machine pc, or remove --disk",
        ),
        (
            AdHocGuest(uml=True, rng=True),
            "--rng: Debian's User-Mode Linux has no virtio-rng driver; remove --rng, or choose another VMM",
        ),
        (AdHocGuest(uml=True, cpus=2), "--cpus: User-Mode Linux has one CPU, got cpus = 2; remove it"),
        (AdHocGuest(uml=True, append="\0"), "--append: a kernel's command line holds a NUL"),
        (AdHocGuest(uml=True, initrd="/no"), "/no: no such image file; correct --initrd"),
        (AdHocGuest(program="p", abi="linux_mips"), "--abi: no ABI 'linux_mips'; did you mean "),
        (AdHocGuest(program=__file__, volumes=("d:e",)), "--volume: the program's path must start with '/'; such as"),
    ],
)
def test_error_names_the_option(guest: AdHocGuest, expected: str, tmp_path: Path) -> None:
    """And no key of the file that was written for it."""
    text = said(guest, tmp_path)
    assert text.startswith(f"iovirt run: {expected}")
    assert "guest.guest" not in text


@pytest.mark.parametrize("kind", [ConfigError, ImageError])
def test_error_stays_of_its_type(kind: type[LocalError]) -> None:
    """The exit status depends on it."""
    assert type(in_options(kind("what", "where", "fix"), "machine")) is kind
