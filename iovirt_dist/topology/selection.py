"""Which process of the topology am I? Used by every entry point in ``services/``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Generic, Literal, NamedTuple, TypeVar, overload

from iovirt_dist.errors import ConfigError
from iovirt_dist.topology.load import topology_from_environment
from iovirt_dist.topology.specs import (
    AnySpec,
    BlockSpec,
    ConsoleSpec,
    DriverDomainSpec,
    GuestSpec,
    HypervisorSpec,
    Kind,
    NetSpec,
    RngSpec,
    Topology,
    VmmSpec,
)

HONCHO_KEY: Final = "HONCHO_PROCESS_NAME"
"""Set by honcho for each process of a Procfile: ``TYPE.NUMBER``, NUMBER from 1."""


class UnusedServiceError(ConfigError):
    """A Procfile starts one process of each type, and this topology has none of this one."""


SpecT_co = TypeVar("SpecT_co", bound=AnySpec, covariant=True)


class Selection(NamedTuple, Generic[SpecT_co]):
    """A topology and the one process of it that the caller is.

    Attributes:
        topology: Everything, with the addresses of the others.
        spec: The caller.
    """

    topology: Topology
    spec: SpecT_co


@overload
def select(
    kind: Literal["hypervisor"], argv: Sequence[str], environ: Mapping[str, str]
) -> Selection[HypervisorSpec]: ...
@overload
def select(kind: Literal["block"], argv: Sequence[str], environ: Mapping[str, str]) -> Selection[BlockSpec]: ...
@overload
def select(kind: Literal["console"], argv: Sequence[str], environ: Mapping[str, str]) -> Selection[ConsoleSpec]: ...
@overload
def select(kind: Literal["rng"], argv: Sequence[str], environ: Mapping[str, str]) -> Selection[RngSpec]: ...
@overload
def select(kind: Literal["net"], argv: Sequence[str], environ: Mapping[str, str]) -> Selection[NetSpec]: ...
@overload
def select(
    kind: Literal["driver_domain"], argv: Sequence[str], environ: Mapping[str, str]
) -> Selection[DriverDomainSpec]: ...
@overload
def select(kind: Literal["guest"], argv: Sequence[str], environ: Mapping[str, str]) -> Selection[GuestSpec]: ...
@overload
def select(kind: Literal["vmm"], argv: Sequence[str], environ: Mapping[str, str]) -> Selection[VmmSpec]: ...
def select(kind: Kind, argv: Sequence[str], environ: Mapping[str, str]) -> Selection[AnySpec]:
    """Load the topology of IOVIRT_TOPOLOGY and find the caller in it.

    The name is, in this order: the first argument; the one that honcho's process number counts to; the only one.

    Args:
        kind: The caller's process type.
        argv: Arguments behind the program's name: nothing or one process name.
        environ: The process's environment.

    Returns:
        The topology and the caller's spec.

    Raises:
        ConfigError: The topology is wrong, there is no such process, or several and none is named.
        UnusedServiceError: honcho has started the first process of a type that the topology does not use.
        EndpointError: A socket path is too long.
    """
    topology = topology_from_environment(environ)
    names = topology.names(kind)
    name = _name(kind, argv, environ, names, topology.label)
    return Selection(topology, next(spec for spec in topology.specs() if spec.name == name and spec.kind == kind))


def _name(kind: Kind, argv: Sequence[str], environ: Mapping[str, str], names: list[str], label: str) -> str:
    known = f"{kind} processes: {', '.join(names) or 'none'}"
    if len(argv) > 1:
        raise ConfigError(f"expected one process name, got {' '.join(argv)!r}", f"services.{kind}", known)
    if argv:
        if argv[0] not in names:
            raise ConfigError(f"no {kind} '{argv[0]}'", label, known)
        return argv[0]
    honcho_type, _, number = environ.get(HONCHO_KEY, "").partition(".")
    if honcho_type == kind and number == "1" and not names:
        raise UnusedServiceError(f"no {kind} in this topology", label)
    if honcho_type == kind and number.isascii() and number.isdecimal():
        if not 1 <= int(number) <= len(names):
            raise ConfigError(f"no {kind} number {number}", label, known)
        return names[int(number) - 1]
    if len(names) != 1:
        raise ConfigError(f"which {kind}?", label, f"name one: {', '.join(names)}" if names else "there is none")
    return names[0]
