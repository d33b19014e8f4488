"""``iovirt set``: what a guest may have of a device, while the topology runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from iovirt_dist.cli.app import local_part
from iovirt_dist.cli.output import EXIT_DONE, note, print_json
from iovirt_dist.errors import ConfigError, LocalError
from iovirt_dist.platform.qos import Qos, SchedulerKind
from iovirt_dist.runtime.qos_file import change_settings
from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.status import ProcessStatus, read_status_file
from iovirt_dist.topology import BlockSpec, GuestSpec, Topology
from iovirt_dist.topology.parse import suggestion
from iovirt_dist.topology.qos import DEVICES, change_qos
from iovirt_dist.topology.specs import RngSpec

WAIT_S: Final = 5.0
"""How long a hypervisor may take to follow; it looks twice a second."""

_POLL_S: Final = 0.05


def shared_device(topology: Topology, name: str) -> tuple[GuestSpec, str, SchedulerKind]:
    """Find a guest's device by ``GUEST.DEVICE``.

    Returns:
        Guest, device, and how the device is shared.

    Raises:
        ConfigError: There is no such guest or device.
    """
    guest_name, _, device = name.rpartition(".")
    guest = next((guest for guest in topology.guests.values() if guest.name == guest_name), None)
    if guest is None:
        what = f"no guest '{guest_name}'" if guest_name else "expected GUEST.DEVICE"
        raise ConfigError(what, f"'{name}'", suggestion(guest_name, topology.guests))
    controller = guest.controller_of(device) if device in DEVICES else None
    if controller is None:
        had = [known for known in DEVICES if guest.controller_of(known)]
        raise ConfigError(
            f"guest '{guest.name}' has no device '{device}' to share", f"'{name}'", suggestion(device, had)
        )
    spec = topology.controller(controller)
    assert isinstance(spec, (BlockSpec, RngSpec)), "only these are behind a disk or rng"
    return guest, device, spec.scheduler


def parse_changes(words: Sequence[str], scheduler: SchedulerKind) -> Callable[[Qos], Qos]:
    """Turn ``KEY=VALUE`` words into a change.

    Raises:
        ConfigError: A word is none, or means nothing to the scheduler.
    """
    pairs = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError("expected KEY=VALUE", f"'{word}'", "such as iops=1000, bandwidth=10MiB or weight=2")
        pairs.append((key, value, f"'{word}'"))

    def change(qos: Qos) -> Qos:
        for key, value, where in pairs:
            qos = change_qos(qos, key, value, scheduler, where)
        return qos

    change(Qos())
    return change


def set_qos(topology: Topology, name: str, words: Sequence[str], *, as_json: bool) -> int:
    """The work of ``iovirt set``; without words it shows what holds.

    Raises:
        ConfigError: There is no such guest or device, or a word is wrong.
        LocalError: The hypervisor does not run, or does not follow.
    """
    guest, device, scheduler = shared_device(topology, name)
    change = parse_changes(words, scheduler)
    run_dir = RunDir(local_part(topology, topology.hypervisor(guest.hypervisor)).run_dir)
    _hypervisor(run_dir, guest)
    revision = 0
    if words:
        own = guest.qos[device]
        revision = change_settings(run_dir, guest.hypervisor, name, lambda old: change(own if old is None else old))
    held: dict[str, Any] = _follow(run_dir, guest, revision).content["guests"][guest.name]["qos"][device]
    if as_json:
        print_json({"guest": guest.name, "device": device, "qos": held})
    else:
        note(f"{name}: {' '.join(f'{key}={value}' for key, value in held.items())}")
    return EXIT_DONE


def _hypervisor(run_dir: RunDir, guest: GuestSpec) -> ProcessStatus:
    status = read_status_file(run_dir.status(guest.hypervisor))
    if status is None or not status.alive:
        raise LocalError(f"hypervisor '{guest.hypervisor}' does not run", str(run_dir.path), "start it: iovirt up -d")
    return status


def _follow(run_dir: RunDir, guest: GuestSpec, revision: int) -> ProcessStatus:
    """Wait until the hypervisor says that a revision is in force."""
    deadline = time.monotonic() + WAIT_S
    while (status := _hypervisor(run_dir, guest)).content.get("qos_revision", 0) < revision:
        if time.monotonic() > deadline:
            what = f"hypervisor '{guest.hypervisor}' has not followed within {WAIT_S:g} s"
            raise LocalError(what, str(run_dir.qos(guest.hypervisor)), "it will when it can; see 'iovirt ps'")
        time.sleep(_POLL_S)
    return status
