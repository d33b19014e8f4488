"""Topology: a TOML file that names every process, device and guest, turned into checked dataclasses.

Read `iovirt_dist.topology.schema` for the keys, `iovirt_dist.topology.specs` for the result.
"""

from __future__ import annotations

from iovirt_dist.topology.load import (
    ENVIRONMENT_KEY,
    default_text,
    load_topology,
    topology_from_environment,
    topology_from_text,
)
from iovirt_dist.topology.resolve import Origin
from iovirt_dist.topology.selection import Selection, select
from iovirt_dist.topology.specs import (
    BlockSpec,
    ConsoleAttachment,
    ConsoleSpec,
    ControllerSpec,
    DiskAttachment,
    ExtentSpec,
    GuestBase,
    GuestSpec,
    HypervisorSpec,
    Kind,
    MachineSpec,
    NbdSpec,
    NetAttachment,
    NetSpec,
    PortSpec,
    ProcessSpec,
    ProgramSpec,
    ResponderSpec,
    Restart,
    RngAttachment,
    RngSpec,
    ScriptSpec,
    SwitchPort,
    Topology,
    VmmSpec,
    VmSpec,
)

__all__ = [
    "ENVIRONMENT_KEY",
    "BlockSpec",
    "ConsoleAttachment",
    "ConsoleSpec",
    "ControllerSpec",
    "DiskAttachment",
    "ExtentSpec",
    "GuestBase",
    "GuestSpec",
    "HypervisorSpec",
    "Kind",
    "MachineSpec",
    "NbdSpec",
    "NetAttachment",
    "NetSpec",
    "Origin",
    "PortSpec",
    "ProcessSpec",
    "ProgramSpec",
    "ResponderSpec",
    "Restart",
    "RngAttachment",
    "RngSpec",
    "ScriptSpec",
    "Selection",
    "SwitchPort",
    "Topology",
    "VmSpec",
    "VmmSpec",
    "default_text",
    "load_topology",
    "select",
    "topology_from_environment",
    "topology_from_text",
]
