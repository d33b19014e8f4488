"""``iovirt config``: what the topology means once defaults, paths and replicas are filled in."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from iovirt_dist.cli.output import EXIT_DONE, EXIT_USAGE, fail, print_json, print_table
from iovirt_dist.platform.qos import DEFAULT_QOS
from iovirt_dist.topology import (
    BlockSpec,
    ExtentSpec,
    GuestBase,
    GuestSpec,
    HypervisorSpec,
    MachineSpec,
    NbdSpec,
    NetSpec,
    ProgramSpec,
    Topology,
    VmmSpec,
    VmSpec,
)
from iovirt_dist.topology.host_specs import DriverDomainSpec
from iovirt_dist.topology.qos import describe_qos
from iovirt_dist.topology.specs import AnySpec
from iovirt_dist.topology.units import format_size


def topology_json(topology: Topology) -> dict[str, Any]:
    """The whole topology as JSON values; paths and addresses are text, sizes bytes, times nanoseconds."""
    document = asdict(topology, dict_factory=_readable)
    for name, guest in topology.guests.items():
        document["guests"][name]["qos"] = {device: qos._asdict() for device, qos in guest.qos.items()}
    document["missing_images"] = [str(error) for error in topology.missing_images()]
    return document


def _readable(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """The attributes of a spec; Ethernet addresses as people write them."""
    return {name: value.hex(":") if isinstance(value, bytes) else value for name, value in items}


def summary(spec: AnySpec) -> str:
    """Say in one line what a process is."""
    if isinstance(spec, HypervisorSpec):
        return ""
    if isinstance(spec, BlockSpec):
        mode = "read-only" if spec.read_only else "write-through" if spec.write_through else "write-back"
        return f"{spec.image.name} {format_size(spec.size_bytes)} {mode}: {', '.join(map(_extent, spec.extents))}"
    if isinstance(spec, NetSpec):
        host = f" host {spec.responder.interface}" if spec.responder else ""
        return f"mtu {spec.mtu}{host}{f' uplink {spec.uplink}' if spec.uplink else ''}"
    if isinstance(spec, DriverDomainSpec):
        return f"serves {', '.join(spec.devices)}"
    if isinstance(spec, GuestBase):
        return f"{_guest(spec)} on {spec.hypervisor}{_devices(spec)}"
    if isinstance(spec, VmmSpec):
        return f"{spec.guest.vmm} of {spec.guest.name}"
    return ""


def _extent(extent: ExtentSpec) -> str:
    mode = " ro" if extent.read_only else ""
    return f"{extent.name} {format_size(extent.size_bytes)}@{format_size(extent.offset_bytes)}{mode}"


def _guest(spec: GuestSpec) -> str:
    size = format_size(spec.memory_bytes)
    if isinstance(spec, MachineSpec):
        return f"{spec.machine} {size} {spec.image_name} {spec.level.value}"
    if isinstance(spec, ProgramSpec):
        return f"program {size} {spec.image_name} {spec.abi} {spec.level.value}"
    if isinstance(spec, VmSpec):
        return f"vm {size} {spec.vmm} {spec.level.value}"
    if isinstance(spec, NbdSpec):
        return f"nbd {size} {spec.uri} {spec.level.value}"
    return f"script {size} {spec.script} {spec.level.value}"


def _devices(spec: GuestSpec) -> str:
    words = [f"disk={spec.disk.controller}/{spec.disk.extent.name}"] if spec.disk else []
    attached = {"console": spec.console, "virtio_console": spec.virtio_console, "rng": spec.rng, "net": spec.net}
    words += [f"{name}={attachment.controller}" for name, attachment in attached.items() if attachment]
    for device, qos in spec.qos.items():
        if qos != DEFAULT_QOS:
            held = describe_qos(qos, None)
            words.append(f"{device}.qos={','.join(f'{key}:{value}' for key, value in held.items())}")
    return "".join(f" {word}" for word in words)


def config_rows(topology: Topology) -> list[tuple[str, str, str]]:
    """Name, kind and summary of each process, and below a driver domain those of the devices that it serves."""
    rows: list[tuple[str, str, str]] = []
    for spec in topology.specs():
        rows.append((spec.name, spec.kind.replace("_", " "), summary(spec)))
        if isinstance(spec, DriverDomainSpec):
            served = [topology.controllers[name] for name in spec.devices]
            rows += [(one.name, one.kind, f"in {spec.name} {summary(one)}".rstrip()) for one in served]
    return rows


def show_config(topology: Topology, *, as_json: bool) -> int:
    """The work of ``iovirt config``: 2 if a guest image is missing.

    Raises:
        ConfigError: The topology is empty.
    """
    topology.require_processes()
    missing = topology.missing_images()
    if as_json:
        print_json(topology_json(topology))
    else:
        print(f"topology {topology.name} ({topology.source or topology.label})")
        print(f"run directory {topology.run_dir}")
        print_table(("NAME", "KIND", "WHAT"), config_rows(topology))
    for error in missing:
        fail(str(error))
    return EXIT_USAGE if missing else EXIT_DONE
