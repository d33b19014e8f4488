"""Unmodified busybox of Debian as program guests, on the emulated Linux: third-party proof of the system-call level.

`.ci/fetch-programs` brings the binaries: i386 and x86-64 of Debian 12, riscv64 of Debian 13.
"""

from __future__ import annotations

import hashlib

import pytest

from iovirt_dist.wire.commands import Opcode
from tests.guests.emulated_linux import EmulatedLinux, run_program
from tests.guests.support import BUSYBOX, KIB, needs, pattern

ARCHITECTURES = {"amd64": "linux_x86_64", "i386": "linux_i386", "riscv64": "linux_riscv64"}
pytestmark = needs(*BUSYBOX.values())

DISK = pattern(96 * KIB + 512)
MOTD = b"first line\nsecond line\n"
FILES = {"/etc/motd": MOTD, "/usr/share/doc/readme": b"read me\n"}
EXITED = "exited with status 0"


@pytest.fixture(params=list(ARCHITECTURES))
def architecture(request: pytest.FixtureRequest) -> str:
    """Each architecture in turn, by Debian's name."""
    name: str = request.param
    return name


class Busybox:
    """One run.

    Args:
        architecture: Debian's name.
        command: Applet and arguments, separated by blanks.
        typed: What is typed.
    """

    def __init__(self, architecture: str, command: str, typed: bytes = b"") -> None:
        self.linux = EmulatedLinux(ARCHITECTURES[architecture], DISK, typed, FILES)
        self.end = run_program(BUSYBOX[architecture], ["busybox", *command.split()], self.linux)

    @property
    def output(self) -> str:
        """What the program wrote to its terminal."""
        return self.linux.screen.shown.decode().replace("\r\n", "\n")


def test_sha256sum_of_the_disk_equals_the_hosts(architecture: str) -> None:
    """Every byte of /dev/vda reaches the program, in order; the file beside it, too."""
    run = Busybox(architecture, "sha256sum /dev/vda /etc/motd")
    expected = [
        f"{hashlib.sha256(data).hexdigest()}  {path}" for data, path in ((DISK, "/dev/vda"), (MOTD, "/etc/motd"))
    ]
    assert (run.end, run.output.splitlines()) == (EXITED, expected)


def test_dd_writes_the_disk_where_it_was_told(architecture: str) -> None:
    """An unaligned write of 23 bytes: read, modify, write of one sector, then a flush; the rest is untouched."""
    run = Busybox(architecture, "dd if=/etc/motd of=/dev/vda bs=1 seek=1021 conv=notrunc,fsync")
    end = 1021 + len(MOTD)
    assert run.end == EXITED
    assert bytes(run.linux.disk.content) == DISK[:1021] + MOTD + DISK[end:]
    assert run.linux.disk.requests[-1][0] is Opcode.FLUSH
    assert "23+0 records out" in run.output


def test_dd_copies_part_of_the_disk_to_another_place(architecture: str) -> None:
    """From the disk to itself, by two descriptors."""
    run = Busybox(architecture, "dd if=/dev/vda of=/dev/vda bs=4k count=3 seek=8 conv=notrunc")
    content = bytes(run.linux.disk.content)
    assert run.end == EXITED
    assert (content[32 * KIB : 44 * KIB], content[44 * KIB :]) == (DISK[: 12 * KIB], DISK[44 * KIB :])


def test_hypervisor_knows_process_file_and_offset(architecture: str) -> None:
    """What system-call interception is for: the program's own view of its I/O."""
    run = Busybox(architecture, "dd if=/dev/vda of=/dev/null bs=16k count=2 skip=1")
    disk = [entry for entry in run.linux.known if entry[1] == "/dev/vda"]
    assert disk == [(1, "/dev/vda", 16 * KIB, 16 * KIB, "read"), (1, "/dev/vda", 32 * KIB, 16 * KIB, "read")]


def test_disk_ends_where_it_ends(architecture: str) -> None:
    """A read across the end is short, as on a real disk."""
    run = Busybox(architecture, "dd if=/dev/vda of=/dev/null bs=64k")
    assert "1+1 records in" in run.output


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("echo hello world", "hello world\n"),
        ("cat /etc/motd /usr/share/doc/readme", "first line\nsecond line\nread me\n"),
        ("head -n 1 /etc/motd", "first line\n"),
        ("head -c 9 /etc/motd", "first lin"),
        ("wc /etc/motd", "        2         4        23 /etc/motd\n"),
        ("ls /etc /usr/share", "/etc:\nmotd\n\n/usr/share:\ndoc\n"),
        ("ls /dev/vda /dev/console", "/dev/console  /dev/vda\n"),
        ("od -An -tx1 -N 6 /etc/motd", " 66 69 72 73 74 20\n"),
        (
            "hexdump -C -n 5 -s 6 /etc/motd",
            "00000006  6c 69 6e 65 0a                                    |line.|\n0000000b\n",
        ),
    ],
)
def test_applet_prints_what_it_would_print_anywhere(architecture: str, command: str, expected: str) -> None:
    """Files and folders of the read-only tree."""
    run = Busybox(architecture, command)
    assert (run.end, run.output) == (EXITED, expected)


def test_applets_agree_with_the_hosts_view_of_the_disk(architecture: str) -> None:
    """Od of the disk's last sector."""
    run = Busybox(architecture, f"od -An -v -tx1 -w64 -j {96 * KIB} /dev/vda")
    assert bytes.fromhex(run.output) == DISK[96 * KIB :]


def test_typed_input_is_edited_echoed_and_ends(architecture: str) -> None:
    """A line with a correction, then ^D: cat prints what was meant, below the echo."""
    run = Busybox(architecture, "cat", b"helxx\x7f\x7flo\r\x04")
    assert run.end == EXITED
    assert run.output.splitlines()[-1] == "hello"
    assert run.output.count("\n") == 2


def test_random_bytes_come_from_the_source(architecture: str) -> None:
    """Eight bytes of /dev/hwrng are the source's first."""
    run = Busybox(architecture, "od -An -tx1 -N 8 /dev/hwrng")
    supplied = [hashlib.sha256(b"%d" % tag).hexdigest()[:16] for tag in range(1, 10)]
    assert run.end == EXITED
    assert run.output.replace(" ", "").strip() in supplied


@pytest.mark.parametrize("command", ["cat /no/such/file", "dd if=/etc/motd of=/etc/motd", "ls /proc/nothing"])
def test_error_of_a_call_is_the_programs_error(architecture: str, command: str) -> None:
    """The program says what Linux would make it say, and fails."""
    run = Busybox(architecture, command)
    assert run.end == "exited with status 1"
    assert any(
        text in run.output for text in ("No such file or directory", "Read-only file system", "Permission denied")
    )


def test_program_without_arguments_is_itself(architecture: str) -> None:
    """Busybox names itself and its applets: a long output, from the heap of the program."""
    run = Busybox(architecture, "--list")
    assert run.end == EXITED
    assert {"cat", "dd", "sha256sum", "vi"} <= set(run.output.split())
