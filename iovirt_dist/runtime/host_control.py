"""Host control: what a host answers to commands and other hosts, and how they ask.

A host's supervisor listens at the address that the topology gives the host (`HostSpec.control`). Everything that it
answers is in the files of its run directory, so a command on the host itself reads these and needs no supervisor to
ask. Over tcp only keys of hosts are believed (``@HOST``) where the topology has keys; without them it is an address
that nobody else reaches. Nobody waits longer than a deadline: a host that is out of reach is told as such.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping
from typing import Final

from iovirt_dist.errors import ConfigError, DecodeError, IovirtError
from iovirt_dist.runtime.control_messages import (
    MAX_REPLY_BYTES,
    MAX_STATUS_BYTES,
    Agreed,
    AnyReply,
    AnyRequest,
    ChangeScaling,
    ProcessReport,
    ReadScaling,
    Refused,
    ScalingRead,
    StatusRead,
    decode_reply,
    decode_request,
    encode,
)
from iovirt_dist.runtime.rundir import SUPERVISOR, RunDir
from iovirt_dist.runtime.scale_file import write_scaling
from iovirt_dist.runtime.status import read_status_file
from iovirt_dist.topology.load import load_topology
from iovirt_dist.topology.scaling import read_scaling
from iovirt_dist.topology.specs import HostSpec, Topology
from iovirt_dist.transport.curve import Security, load_security, secret_path
from iovirt_dist.transport.port import ONLY_PEER
from iovirt_dist.transport.pump import attach
from iovirt_dist.transport.zeromq import ZeromqPort, dial, listen
from iovirt_dist.wire.codec import Buffer

log = logging.getLogger(__name__)

DEADLINE_S: Final = 3.0
"""How long a host may take to answer."""


def answer(request: AnyRequest, topology: Topology, digest: str) -> AnyReply:
    """Answer for a host; whatever is wrong is a `Refused`.

    Args:
        request: What is asked.
        topology: The host's part.
        digest: Of the topology file with which the host came up.
    """
    run_dir = RunDir(topology.run_dir)
    try:
        if isinstance(request, ChangeScaling):
            return _change(request, topology, digest)
        if isinstance(request, ReadScaling):
            return ScalingRead(request.number, digest, read_scaling(run_dir.path))
        return StatusRead(request.number, time.time_ns(), _reports(run_dir))
    except IovirtError as error:
        return Refused(request.number, str(error)[:1024])


def _change(request: ChangeScaling, topology: Topology, digest: str) -> AnyReply:
    """Check that the host can have these guests, and tell its processes."""
    scaling, run_dir = request.scaling, RunDir(topology.run_dir)
    wanted = load_topology(topology.source, scaling)
    if not scaling.digest == digest == wanted.digest:
        return Refused(request.number, f"{topology.label}: not the topology file with which the host came up")
    here = wanted.at(topology.host) if topology.host else wanted
    for error in here.missing_images():
        return Refused(request.number, str(error)[:1024])
    if request.try_only:
        current = read_scaling(run_dir.path).revision == request.expected_revision
    else:
        current = write_scaling(run_dir, request.expected_revision, scaling)
    return Agreed(request.number) if current else Refused(request.number, "somebody else scales it; try again")


def _reports(run_dir: RunDir) -> list[ProcessReport]:
    """All status files, the supervisor's included, as many bytes as one reply carries."""
    reports: list[ProcessReport] = []
    room_bytes = MAX_REPLY_BYTES - (1 << 20)
    for path in sorted(run_dir.path.glob("status/*.json")):
        status = read_status_file(path)
        if status is None:
            continue
        try:
            content = path.read_bytes()
        except OSError:
            continue
        if len(content) > min(room_bytes, MAX_STATUS_BYTES):
            content = b""
        room_bytes -= len(content)
        reports.append(ProcessReport(path.stem, status.alive, content))
    return reports


def control_security(topology: Topology, host: str) -> Security | None:
    """Load a host's key and those of the other hosts; None if the topology has no keys.

    Raises:
        ConfigError: A key is missing or wrong.
    """
    if topology.keys is None:
        return None
    return load_security(topology.keys, f"@{host}", [f"@{name}" for name in topology.hosts])


class HostControl:
    """The supervisor's side, on the running loop until `close`.

    Args:
        topology: The host's part.

    Attributes:
        rejects: Requests that were none, by reason.

    Raises:
        ConfigError: A key is missing or wrong.
        EndpointError: The address cannot be had.
    """

    def __init__(self, topology: Topology) -> None:
        self.rejects: Counter[str] = Counter()
        self._topology = topology
        control = topology.hosts[topology.host].control
        self._port = listen(control, control_security(topology, topology.host))
        self._pump = attach(asyncio.get_running_loop(), self._port, self._received, batch=1)

    def close(self) -> None:
        """Free the address."""
        self._pump.close()
        self._port.close()

    def _received(self, peer: bytes, frames: list[Buffer]) -> None:
        try:
            request = decode_request(frames)
        except DecodeError as error:
            self.rejects[error.reason] += 1
            return
        self._port.send(peer, [encode(answer(request, self._topology, self._topology.digest))])


def ask_hosts(
    topology: Topology, requests: Mapping[str, AnyRequest], deadline_s: float | None = None
) -> dict[str, AnyReply]:
    """Ask hosts, all at once; the host that the topology is the part of answers from its files.

    Args:
        topology: A host's part, or all of it.
        requests: By host; with the key ``""`` in a topology that names no hosts.
        deadline_s: How long to wait for all of them together; `DEADLINE_S` if None.

    Returns:
        A reply for each; `Refused` says that one is out of reach, too.

    Raises:
        ConfigError: A key that is needed to ask is missing or wrong.
    """
    others = [host for host in requests if host != topology.host]
    security = _own_security(topology) if others else None
    replies: dict[str, AnyReply] = {}
    ports: dict[str, ZeromqPort] = {}
    try:
        for host in others:
            ports[host] = dial(topology.hosts[topology.at(host).host].control, security, f"@{host}")
            ports[host].send(ONLY_PEER, [encode(requests[host])])
        if len(others) < len(requests):
            replies[topology.host] = _answer_here(requests[topology.host], topology)
        deadline = time.monotonic() + (DEADLINE_S if deadline_s is None else deadline_s)
        for host, port in ports.items():
            replies[host] = _await_reply(port, requests[host], topology.hosts[topology.at(host).host], deadline)
    finally:
        for port in ports.values():
            port.close()
    return {host: replies[host] for host in requests}


def _answer_here(request: AnyRequest, topology: Topology) -> AnyReply:
    """Answer in place of the supervisor in the run directory, if there is one."""
    supervisor = read_status_file(RunDir(topology.run_dir).status(SUPERVISOR))
    if supervisor is not None and supervisor.alive:
        return answer(request, topology, str(supervisor.content.get("digest", "")))
    where = f"host '{topology.host}'" if topology.host else "the topology"
    return Refused(request.number, f"{where} is not up in {topology.run_dir}; start it with 'iovirt up -d'"[:1024])


def _await_reply(port: ZeromqPort, request: AnyRequest, host: HostSpec, deadline: float) -> AnyReply:
    """Wait for the reply to one request; what came meanwhile is looked at in any case."""
    while True:
        left_s = max(deadline - time.monotonic(), 0)
        message = port.receive_wait(int(left_s * 1000) + (left_s > 0))
        if message is None and left_s:
            continue
        if message is None:
            return Refused(request.number, f"host '{host.name}' does not answer at {host.control}")
        try:
            reply = decode_reply(message[1])
        except DecodeError as error:
            return Refused(request.number, f"host '{host.name}' at {host.control} answers what is no answer ({error})")
        if reply.number == request.number:
            return reply
        return Refused(request.number, f"host '{host.name}' at {host.control} answers what was not asked")


def _own_security(topology: Topology) -> Security | None:
    """The key of the host that this is; of any whose key is here, if it is open which."""
    if topology.keys is None:
        return None
    here = [host for host in topology.hosts if secret_path(topology.keys, f"@{host}").is_file()]
    if not topology.host and not here:
        fix = "make them with 'iovirt keys', or run this on one of the hosts"
        raise ConfigError("no host's key is here", str(topology.keys), fix)
    return control_security(topology, topology.host or here[0])
