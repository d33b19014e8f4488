"""The tables of a topology file, as written: names, types and defaults of every key, before any cross-check.

One struct per TOML table; `iovirt_dist.topology.parse` fills them, `iovirt_dist.topology.resolve` turns them into the
checked dataclasses of `iovirt_dist.topology.specs`. Sizes and durations stay text here.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec

Size = Annotated[int | str, msgspec.Meta(description='a size such as 512, "64KiB" or "1GiB"')]
Duration = Annotated[str, msgspec.Meta(description='a duration such as "500ms" or "2s"')]
Weight = Annotated[int, msgspec.Meta(description="an integer from 1 to 1000")]
Rate = Annotated[int, msgspec.Meta(description="an integer, operations a second")]
Bandwidth = Annotated[int | str, msgspec.Meta(description='bytes a second, such as "10MiB"')]
Depth = Annotated[int, msgspec.Meta(ge=1, le=1024, description="an integer from 1 to 1024")]
Scheduling = Literal["fifo", "drr", "wfq", "priority", "deadline"]
Replicas = Annotated[int, msgspec.Meta(ge=1, le=1024, description="an integer from 1 to 1024")]
Cpus = Annotated[int, msgspec.Meta(ge=1, le=64, description="an integer from 1 to 64")]
Queues = Annotated[int, msgspec.Meta(ge=1, le=8, description="an integer from 1 to 8")]
Vlan = Annotated[int, msgspec.Meta(ge=1, le=4094, description="a VLAN's number from 1 to 4094")]
MacLimit = Annotated[int, msgspec.Meta(ge=1, le=4096, description="an integer from 1 to 4096")]
Mtu = Annotated[int, msgspec.Meta(ge=576, le=9198, description="an integer from 576 to 9198")]
StormLimit = Annotated[int, msgspec.Meta(ge=0, le=1_000_000, description="an integer from 0 to 1000000")]
Words = Annotated[list[str], msgspec.Meta(description="a list of strings")]
Names = Annotated[str | list[str], msgspec.Meta(description="a name or a list of names")]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535, description="a port from 1 to 65535")]
NbdPort = Annotated[int, msgspec.Meta(ge=0, le=65535, description="a port from 1 to 65535, or 0 for none")]


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all tables: keys that are not listed are errors."""


class TopologyTable(Table, frozen=True, kw_only=True):
    """``[topology]``: what holds for all processes."""

    name: str = "default"
    run_dir: str = ".iovirt"
    """Folder of sockets, logs and status files; relative to the topology file's folder."""
    lease: Duration = "2s"
    """A peer that is silent for this long counts as gone."""
    keys: str = ""
    """Folder of the processes' CURVE keys, made by ``iovirt keys``; relative to the topology file's folder. Empty: what
    listens at a tcp endpoint believes whoever connects, and may therefore listen at loopback addresses only."""


class HostTable(Table, frozen=True, kw_only=True):
    """``[host.NAME]``: a machine, or a network namespace, on which a part of the topology runs."""

    address: str
    """Where the other hosts reach it: an IP address or a name."""
    control_port: Port = 7800
    """Port at which its supervisor answers ``iovirt ps``, ``top`` and ``scale`` of the other hosts."""
    first_port: Port = 7801
    """Its controllers listen at this port and those behind it, in the file's order, unless they have an endpoint."""
    memory: Size = 0
    """Most memory for its guests, by which replicas are placed; 0 for any amount."""


class HypervisorTable(Table, frozen=True, kw_only=True):
    """``[hypervisor.NAME]``."""

    host: str = ""
    """Where it runs, with its guests; empty if the topology names no hosts, or one."""
    endpoint: str = ""
    """``ipc://PATH`` or ``tcp://HOST:PORT``; empty for a socket in the run directory."""


class DriverDomainTable(Table, frozen=True, kw_only=True):
    """``[driver_domain.NAME]``: a process that serves devices with the host operating system's own drivers."""

    host: str = ""
    """As of a hypervisor."""


class DeviceTable(Table, frozen=True, kw_only=True):
    """Keys of ``[controller.NAME]`` that every kind has."""

    host: str = ""
    """As of a hypervisor."""
    endpoint: str = ""
    """As of a hypervisor; with several hosts it is a port of the controller's host if empty."""
    driver: str = "native"
    """``native``: a controller process that the hypervisor's own driver drives; or the name of a driver domain, which
    then serves this device beside its others."""
    arbitration: dict[str, Weight] = {}
    """Weighted round robin: how many commands a hypervisor's queue pair has in a turn, in relation to the others'; by
    hypervisor, 1 for those that are not named."""


class ExtentTable(Table, frozen=True, kw_only=True):
    """``[controller.NAME.extents.EXTENT]``: a byte range of the image, presented as one virtual disk."""

    offset: Size = 0
    size: Size
    read_only: bool = False


class BlockTable(DeviceTable, frozen=True, kw_only=True):
    """``[controller.NAME]`` with ``kind = "block"``."""

    kind: Literal["block"]
    image: str
    """Raw image file, relative to the topology file's folder; created sparse if absent and `size` is given."""
    size: Size = 0
    """Size of the image; 0 takes the size of the existing file."""
    durability: Literal["write-through", "write-back"] = "write-through"
    """When a write is acknowledged: once on stable storage, or once in the page cache (flush makes it stable)."""
    read_only: bool = False
    scheduler: Scheduling = "drr"
    """Order of requests that different guests have waiting for it: in order of arrival, deficit round robin or weighted
    fair queueing by weight, strict priority with aging, or earliest deadline first."""
    depth: Depth = 32
    """Small requests that a hypervisor has in flight here while its guests compete; the others can be put in order."""
    merge: bool = False
    """Requests of one guest that touch or overlap become one command, within what a batch holds."""
    extents: dict[str, ExtentTable] = {}
    """Virtual disks by name; without any there is one, ``all``, over the whole image."""
    overlays: str = ""
    """Folder of the guests' copy-on-write overlays; relative to the topology file's folder; empty for the image's path
    with ``.overlays`` behind it."""


class ConsoleTable(DeviceTable, frozen=True, kw_only=True):
    """``[controller.NAME]`` with ``kind = "console"``."""

    kind: Literal["console"]


class RngTable(DeviceTable, frozen=True, kw_only=True):
    """``[controller.NAME]`` with ``kind = "rng"``: a source of random bytes."""

    kind: Literal["rng"]
    scheduler: Scheduling = "drr"
    """As of a block controller."""
    depth: Depth = 32
    """As of a block controller."""


class PortTable(Table, frozen=True, kw_only=True):
    """``[controller.NAME.ports.GUEST]``: what holds at a guest's port; GUEST names one guest, or all of a ``count``."""

    vlan: Vlan = 1
    anti_spoofing: bool = True
    """Frames must come from the guest's own address; false: any address, which is then learned."""
    mac_limit: MacLimit = 64
    """Most addresses that are learned at the port."""
    rate: Size = 0
    """Bytes per second that the guest may send; 0 for any amount."""
    tap: str = ""
    """Capture file (pcap) of what passes the port; relative to the topology file's folder; empty for none."""


class ResponderTable(Table, frozen=True, kw_only=True):
    """``[controller.NAME.responder]``: a built-in host that answers ARP and ping, and may serve DHCP and TFTP."""

    address: str
    """Its IPv4 address and network: ``10.0.0.1/24``."""
    vlan: Vlan = 1
    dhcp: str = ""
    """First and last address to lease: ``10.0.0.100-10.0.0.199``; empty for no DHCP server."""
    tftp: str = ""
    """Folder of files to read; relative to the topology file's folder; empty for no TFTP server."""


class NetTable(DeviceTable, frozen=True, kw_only=True):
    """``[controller.NAME]`` with ``kind = "net"``: an Ethernet switch."""

    kind: Literal["net"]
    mtu: Mtu = 1500
    """Largest payload of a frame, as the guests' cards say."""
    storm_limit: StormLimit = 1000
    """Frames to many (broadcast, multicast, unknown address) that each guest may send in a second; 0 for any number."""
    uplink: str = ""
    """Linux TAP interface that is one more port of the switch, in VLAN 1; created if absent, which needs CAP_NET_ADMIN;
    empty for none. Who is behind it sees the built-in host, too, with its DHCP server."""
    tap: str = ""
    """Capture file (pcap) of all frames, each once; relative to the topology file's folder; empty for none."""
    responder: ResponderTable | None = None
    ports: dict[str, PortTable] = {}
    """What holds at a guest's port, by guest; the others have the defaults."""


class ProgramDevicesTable(Table, frozen=True, kw_only=True):
    """``guest.NAME.devices`` of a program: which controller stands behind each file in /dev; empty for none."""

    disk: str = ""
    """``CONTROLLER/EXTENT``, or ``CONTROLLER`` when it has one extent; ``{name}`` and ``{n}`` stand for the replica."""
    overlay: bool = False
    """The extent is a base that stays as it is: what the guest writes goes to a copy-on-write overlay of its own."""
    console: str = ""
    """``CONTROLLER``; the terminal has the guest's name."""
    rng: str = ""
    """``CONTROLLER``."""


class DevicesTable(ProgramDevicesTable, frozen=True, kw_only=True):
    """``guest.NAME.devices`` of a machine: which controller stands behind each virtual device; empty for none."""

    virtio_console: str = ""
    """``CONTROLLER``; the terminal has the guest's name and ``.hvc0``."""


class MachineDevicesTable(DevicesTable, frozen=True, kw_only=True):
    """``guest.NAME.devices`` of a machine that runs machine code."""

    net: str = ""
    """``CONTROLLER``, a switch; the port has the guest's name."""
    mac: str = ""
    """Ethernet address of its network card, ``02:00:00:00:00:01``; empty for one that follows from the guest's name."""


class QosTable(Table, frozen=True, kw_only=True):
    """``guest.NAME.qos.DEVICE``: what the guest may have of a device that it shares."""

    weight: Weight | None = None
    """Share in relation to other guests' weights (schedulers ``drr`` and ``wfq``); 1 if not given."""
    priority: Literal["urgent", "high", "medium", "low"] | None = None
    """Class (scheduler ``priority``); ``medium`` if not given."""
    latency: Duration | None = None
    """Target by which its requests are ordered (scheduler ``deadline``); 50 ms if not given."""
    iops: Rate | None = None
    """Most operations a second; 0 or nothing for no limit."""
    bandwidth: Bandwidth | None = None
    """Most data a second; 0 or nothing for no limit."""
    burst: Duration | None = None
    """For so long an unused rate is saved up, to be spent at once; 20 ms if not given."""


class GuestQosTable(Table, frozen=True, kw_only=True):
    """``guest.NAME.qos``: a table for each device whose requests wait for their turn."""

    disk: QosTable = QosTable()
    rng: QosTable = QosTable()


class GuestTable(Table, frozen=True, kw_only=True):
    """Keys of ``[guest.NAME]`` that every kind has."""

    hypervisor: Names
    """The one that it talks to, or several over which its replicas are placed by free memory of their hosts."""
    memory: Size = "32MiB"
    count: Replicas = 1
    restart: Literal["on-failure", "always", "never"] = "on-failure"
    qos: GuestQosTable = GuestQosTable()


class MachineTable(GuestTable, frozen=True, kw_only=True):
    """``[guest.NAME]`` with ``kind = "machine"``: machine code on an emulated CPU."""

    kind: Literal["machine"]
    machine: Literal["pc", "virt"] = "pc"
    level: Literal["operation", "driver", "syscall"] | None = None
    """Where its disk is intercepted; without it ``operation`` on ``pc`` and ``driver`` on ``virt``."""
    image: str
    """``bundled:NAME``, or a file relative to the topology file's folder."""
    format: Literal["auto", "elf", "multiboot", "flat", "rom"] = "auto"
    payload: str = ""
    """Second image that the first one starts (``virt``: what OpenSBI jumps to); empty for none."""
    command_line: str = ""
    prefetch: bool = True
    """Data port reads may come ahead of the INs that ask for them, as with the PIIX3; false: each IN is a message."""
    devices: MachineDevicesTable = MachineDevicesTable()


class ProgramTable(GuestTable, frozen=True, kw_only=True):
    """``[guest.NAME]`` with ``kind = "program"``: an unmodified static program, of which the system calls trap."""

    kind: Literal["program"]
    image: str
    """Static ELF file, relative to the topology file's folder."""
    memory: Size = "64MiB"
    """Most memory that it may have mapped."""
    arguments: Words = []
    """Its command line with its own name in front; without it the image's file name alone."""
    environment: dict[str, str] = {}
    abi: str = "auto"
    """Operating system and architecture, such as ``linux_x86_64``; ``auto`` looks at the image."""
    files: dict[str, str] = {}
    """What it sees of the file system, read-only: path there to a file or folder here."""
    devices: ProgramDevicesTable = ProgramDevicesTable()


class ScriptTable(GuestTable, frozen=True, kw_only=True):
    """``[guest.NAME]`` with ``kind = "script"``: a Python coroutine that drives the devices of a ``virt`` machine."""

    kind: Literal["script"]
    script: str
    """``PACKAGE.MODULE:FUNCTION``, or ``FILE.py:FUNCTION`` with the file relative to the topology file's folder."""
    parameters: dict[str, Any] = {}
    """For the script: anything that TOML can say."""
    devices: DevicesTable = DevicesTable()


class VmTable(GuestTable, frozen=True, kw_only=True):
    """``[guest.NAME]`` with ``kind = "vm"``: a kernel of its own in a virtual machine, with vhost-user devices."""

    kind: Literal["vm"]
    vmm: Literal["qemu", "uml", "external"]
    """What runs it: QEMU, User-Mode Linux, or what you start yourself."""
    memory: Size = "256MiB"
    cpus: Cpus = 1
    """Virtual CPUs; ``uml`` has one."""
    queues: Queues = 1
    """Request queues of its disk."""
    kernel: str = ""
    """Kernel image, relative to the topology file's folder; empty for the newest that is installed."""
    initrd: str = ""
    """Initial RAM disk, relative to the topology file's folder; empty for none."""
    command_line: str = ""
    """For the kernel; the words for its console come from us."""
    arguments: Words = []
    """More arguments of the VMM."""
    devices: MachineDevicesTable = MachineDevicesTable()
    """`console` is the VMM's serial console."""


class NbdDevicesTable(Table, frozen=True, kw_only=True):
    """``guest.NAME.devices`` of an NBD gateway."""

    disk: str
    """As of a machine."""
    overlay: bool = False
    """As of a machine."""

    console: ClassVar[str] = ""
    rng: ClassVar[str] = ""


class NbdTable(GuestTable, frozen=True, kw_only=True):
    """``[guest.NAME]`` with ``kind = "nbd"``: a gateway through which NBD clients use a disk."""

    kind: Literal["nbd"]
    memory: Size = "96MiB"
    """For the data of requests in flight, mostly; with less of it long requests are divided into shorter ones."""
    socket: str = ""
    """UNIX socket, relative to the topology file's folder; ``{name}`` and ``{n}`` stand for the replica. Empty for
    ``NAME.nbd`` in the run directory."""
    port: NbdPort = 0
    """Port on 127.0.0.1 instead of a socket; replicas have those that follow."""
    export: str = ""
    """What clients call the disk; empty for the guest's name."""
    devices: NbdDevicesTable


ControllerTable = BlockTable | ConsoleTable | RngTable | NetTable
AnyGuestTable = MachineTable | ProgramTable | ScriptTable | VmTable | NbdTable

KINDS: Final[dict[Any, dict[str, type[Table]]]] = {
    ControllerTable: {"block": BlockTable, "console": ConsoleTable, "rng": RngTable, "net": NetTable},
    AnyGuestTable: {
        "machine": MachineTable,
        "program": ProgramTable,
        "script": ScriptTable,
        "vm": VmTable,
        "nbd": NbdTable,
    },
}
"""The tables whose keys depend on their ``kind``, by the type of a table in its section."""


class Document(Table, frozen=True, kw_only=True):
    """A whole topology file."""

    topology: TopologyTable = TopologyTable()
    host: dict[str, HostTable] = {}
    hypervisor: dict[str, HypervisorTable] = {}
    driver_domain: dict[str, DriverDomainTable] = {}
    controller: dict[str, ControllerTable] = {}
    guest: dict[str, AnyGuestTable] = {}
