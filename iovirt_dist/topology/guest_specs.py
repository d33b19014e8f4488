"""The guests of a checked topology, by kind; part of `iovirt_dist.topology.specs`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, TypedDict
from urllib.parse import quote

from iovirt_dist.errors import ImageError
from iovirt_dist.ids import GuestName, ProcessName
from iovirt_dist.platform.level import Level
from iovirt_dist.platform.qos import Qos
from iovirt_dist.topology.extent import ExtentSpec

Restart = Literal["on-failure", "always", "never"]
"""What supervision does when a process ends; controllers and hypervisors are always restarted."""

UNKNOWN_ABI = "auto"
"""`ProgramSpec.abi` of an image that is missing or that tells nothing."""


class DiskAttachment(NamedTuple):
    """The extent behind a guest's disk.

    Attributes:
        controller: Name of the block controller.
        extent: Which range, and whether writes are allowed.
        overlay: Name of the guest's copy-on-write overlay over the extent; empty if it has the extent itself.
    """

    controller: ProcessName
    extent: ExtentSpec
    overlay: str = ""

    @property
    def unit(self) -> str:
        """What the controller calls the disk: the extent, or ``EXTENT@OVERLAY``."""
        return f"{self.extent.name}@{self.overlay}" if self.overlay else self.extent.name

    @property
    def read_only(self) -> bool:
        """Whether writes are refused: an overlay takes them for an extent that does not."""
        return self.extent.read_only and not self.overlay


class ConsoleAttachment(NamedTuple):
    """The terminal behind a guest's serial port, virtio console or /dev/console.

    Attributes:
        controller: Name of the console controller.
        terminal: The terminal's name there: the guest's, with ``.hvc0`` for the virtio console.
    """

    controller: ProcessName
    terminal: str


class RngAttachment(NamedTuple):
    """The source of random bytes behind a guest's entropy device or /dev/hwrng.

    Attributes:
        controller: Name of the entropy controller.
    """

    controller: ProcessName


@dataclass(frozen=True, slots=True)
class NetAttachment:
    """The switch port behind a guest's network card.

    Attributes:
        controller: Name of the network controller.
        port: The port's name there: the guest's.
        mac: The card's address, 6 bytes.
        mtu: Largest payload of a frame, bytes.
    """

    controller: ProcessName
    port: str
    mac: bytes
    mtu: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestBase:
    """What every kind of guest has; one per replica.

    Attributes:
        name: Unique in the topology.
        hypervisor: Name of the one hypervisor that this guest talks to.
        restart: Supervision policy.
        memory_bytes: RAM size, a multiple of 4 KiB; of a program the most that it may have mapped.
        disk: What stands behind its disk; None for no disk.
        console: What stands behind its serial port, or a program's /dev/console; None for an unconnected one.
        virtio_console: What stands behind its virtio console; None for no such device.
        rng: What stands behind its entropy device; None for no such device.
        net: What stands behind its network card; None for no such device.
        qos: What it may have of its ``disk`` and ``rng``, those that it has.
    """

    kind: ClassVar[Literal["guest"]] = "guest"
    name: GuestName
    hypervisor: ProcessName
    restart: Restart
    memory_bytes: int
    disk: DiskAttachment | None = None
    console: ConsoleAttachment | None = None
    virtio_console: ConsoleAttachment | None = None
    rng: RngAttachment | None = None
    net: NetAttachment | None = None
    qos: Mapping[str, Qos] = field(default_factory=dict)

    @property
    def terminals(self) -> tuple[ConsoleAttachment, ...]:
        """Its terminals, the one that its system messages go to first."""
        return tuple(console for console in (self.console, self.virtio_console) if console is not None)

    @property
    def controllers(self) -> tuple[ProcessName, ...]:
        """The controllers that this guest's requests reach, each once."""
        attached = (self.disk, self.console, self.virtio_console, self.rng, self.net)
        return tuple(dict.fromkeys(attachment.controller for attachment in attached if attachment is not None))

    def controller_of(self, device: str) -> ProcessName | None:
        """The controller behind its ``disk`` or ``rng``; None if it has no such device."""
        attachment = {"disk": self.disk, "rng": self.rng}[device]
        return attachment.controller if attachment is not None else None

    def missing_files(self) -> list[ImageError]:
        """Name every file that it needs and that is not there."""
        return list(self._missing_files())

    def _missing_files(self) -> Iterator[ImageError]:
        yield from ()

    def _missing(self, key: str, path: Path) -> ImageError:
        return ImageError("no such image file", f"guest {self.name}: {path}", f"set {key}")


class GuestAttributes(TypedDict):
    """The attributes of `GuestBase`."""

    name: GuestName
    hypervisor: ProcessName
    restart: Restart
    memory_bytes: int
    disk: DiskAttachment | None
    console: ConsoleAttachment | None
    virtio_console: ConsoleAttachment | None
    rng: RngAttachment | None
    qos: Mapping[str, Qos]
    net: NetAttachment | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSpec(GuestBase):
    """A guest that is machine code.

    Attributes:
        machine: ``pc`` (x86) or ``virt`` (riscv64).
        level: The interface at which its disk is intercepted.
        image: Absolute path of the image that runs first.
        image_name: As written, for people: ``bundled:guestos`` or a path.
        image_format: ``auto`` looks at the file.
        payload: Absolute path of the image that the first one starts; None for none.
        command_line: For the image's kernel, on ``pc`` with the words that announce its virtio devices; may be empty.
        prefetch: Whether data port reads may come ahead of the INs that ask for them.
    """

    guest_kind: ClassVar[Literal["machine"]] = "machine"
    machine: Literal["pc", "virt"]
    level: Level = Level.OPERATION
    image: Path
    image_name: str
    image_format: Literal["auto", "elf", "multiboot", "flat", "rom"]
    payload: Path | None
    command_line: str
    prefetch: bool

    def _missing_files(self) -> Iterator[ImageError]:
        for key, path in (("image", self.image), ("payload", self.payload)):
            if path is not None and not path.is_file():
                yield self._missing(key, path)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramSpec(GuestBase):
    """A guest that is one program without a kernel of its own: its system calls go to the hypervisor.

    Attributes:
        image: Absolute path of a static ELF file.
        image_name: As written.
        arguments: Its command line, its own name first.
        environment: ``NAME=VALUE`` each.
        abi: Operating system and architecture, by a name of `iovirt_dist.topology.program_abi.PROGRAM_ABIS`;
            `UNKNOWN_ABI` if the image was to tell and does not.
        files: What it sees of the file system besides its devices, read-only: normalised absolute path there to the
            absolute path of a file or folder here.
    """

    guest_kind: ClassVar[Literal["program"]] = "program"
    level: ClassVar[Level] = Level.SYSCALL
    image: Path
    image_name: str
    arguments: tuple[str, ...]
    environment: tuple[str, ...]
    abi: str
    files: Mapping[str, Path]

    def _missing_files(self) -> Iterator[ImageError]:
        if not self.image.is_file():
            yield self._missing("image", self.image)
        elif self.abi == UNKNOWN_ABI:
            what = "not an ELF program of a known architecture"
            yield ImageError(what, f"guest {self.name}: {self.image}", "set image to a static Linux program")
        for path, source in self.files.items():
            if not source.exists():
                what = "no such file or folder"
                yield ImageError(what, f"guest {self.name}: {source}", f'set files."{path}"')


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptSpec(GuestBase):
    """A guest that is a Python coroutine between the devices of a machine: no operating system, and it says so.

    Attributes:
        machine: Whose devices it has.
        script: As written.
        file: Absolute path of its file; None if it is in an installed module.
        module: Name of that module; the file's name without suffix otherwise.
        function: Name of the coroutine function there.
        parameters: For the script, as in the topology file.
    """

    guest_kind: ClassVar[Literal["script"]] = "script"
    level: ClassVar[Level] = Level.DRIVER
    machine: Literal["virt"] = "virt"
    script: str
    file: Path | None
    module: str
    function: str
    parameters: Mapping[str, Any]

    def _missing_files(self) -> Iterator[ImageError]:
        if self.file is not None and not self.file.is_file():
            yield ImageError("no such script file", f"guest {self.name}: {self.file}", "set script")


@dataclass(frozen=True, slots=True, kw_only=True)
class NbdSpec(GuestBase):
    """A guest that serves its disk to NBD clients.

    Attributes:
        machine: Whose devices it has.
        socket: Absolute path of the UNIX socket that it listens at; None if it has a port.
        port: Port on 127.0.0.1 that it listens at; 0 if it has a socket.
        export: What clients call the disk.
    """

    guest_kind: ClassVar[Literal["nbd"]] = "nbd"
    level: ClassVar[Level] = Level.DRIVER
    machine: Literal["virt"] = "virt"
    socket: Path | None
    port: int
    export: str

    @property
    def uri(self) -> str:
        """Where clients find it (NetworkBlockDevice/nbd, doc/uri.md)."""
        name = quote(self.export, safe="")
        if self.socket is None:
            return f"nbd://127.0.0.1:{self.port}/{name}"
        return f"nbd+unix:///{name}?socket={quote(str(self.socket), safe='/')}"
