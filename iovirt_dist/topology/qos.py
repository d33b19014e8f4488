"""Quality of service as people write it: in a topology's ``guest.NAME.qos`` tables and behind ``iovirt set``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from iovirt_dist.errors import ConfigError
from iovirt_dist.platform.qos import (
    BURST_RANGE_NS,
    DEFAULT_QOS,
    LATENCY_RANGE_NS,
    MAX_RATE,
    MAX_WEIGHT,
    Priority,
    Qos,
    SchedulerKind,
)
from iovirt_dist.topology import schema, units
from iovirt_dist.topology.parse import suggestion
from iovirt_dist.topology.scope import Scope

DEVICES: Final = ("disk", "rng")
"""Devices that have a quality of service: those whose requests are served one after another."""

USED_BY: Final = {
    "weight": (SchedulerKind.DRR, SchedulerKind.WFQ),
    "priority": (SchedulerKind.PRIORITY,),
    "latency": (SchedulerKind.DEADLINE,),
}
"""Keys that only some schedulers look at; limits hold under all of them."""

NO_LIMIT: Final = ("none", "0")


def _number(value: int | str, low: int, high: int) -> int:
    text = str(value)
    if not (text.isascii() and text.isdecimal() and low <= int(text[:19]) <= high):
        raise ValueError(f"expected an integer from {low} to {high}")
    return int(text)


def _duration(value: int | str, span_ns: tuple[int, int]) -> int:
    low, high = span_ns
    duration_ns = units.parse_duration_ns(str(value))
    if not low <= duration_ns <= high:
        raise ValueError(f"expected {units.format_duration(low)} to {units.format_duration(high)}")
    return duration_ns


def _bandwidth(value: int | str) -> int:
    if value in NO_LIMIT:
        return 0
    bandwidth = units.parse_size(value)
    if bandwidth > MAX_RATE:
        raise ValueError(f"expected at most {units.format_size(MAX_RATE)} a second")
    return bandwidth


def _priority(value: int | str) -> Priority:
    try:
        return Priority[str(value).upper()]
    except KeyError:
        raise ValueError(f"expected {', '.join(priority.name.lower() for priority in Priority)}") from None


_KEYS: Final[dict[str, Callable[[Qos, int | str], Qos]]] = {
    "weight": lambda qos, value: qos._replace(weight=_number(value, 1, MAX_WEIGHT)),
    "priority": lambda qos, value: qos._replace(priority=_priority(value)),
    "latency": lambda qos, value: qos._replace(latency_ns=_duration(value, LATENCY_RANGE_NS)),
    "iops": lambda qos, value: qos._replace(iops=0 if value in NO_LIMIT else _number(value, 0, MAX_RATE)),
    "bandwidth": lambda qos, value: qos._replace(bandwidth=_bandwidth(value)),
    "burst": lambda qos, value: qos._replace(burst_ns=_duration(value, BURST_RANGE_NS)),
}


def change_qos(qos: Qos, key: str, value: int | str, scheduler: SchedulerKind, where: str) -> Qos:
    """Change one thing.

    Args:
        qos: What holds so far.
        key: As in a topology: ``weight``, ``priority``, ``latency``, ``iops``, ``bandwidth``, ``burst``.
        value: As in a topology; ``none`` takes a limit away.
        scheduler: How the device is shared.
        where: Which key of what, for messages.

    Raises:
        ConfigError: There is no such key, the value is wrong, or the scheduler does not look at it.
    """
    if key not in _KEYS:
        raise ConfigError(f"no setting '{key}'", where, suggestion(key, _KEYS))
    if scheduler not in USED_BY.get(key, (scheduler,)):
        names = " or ".join(f'"{kind.value}"' for kind in USED_BY[key])
        raise ConfigError(f'scheduler "{scheduler.value}" does not look at {key}', where, f"scheduler = {names} does")
    try:
        return _KEYS[key](qos, value)
    except ValueError as error:
        shown = f'"{value}"' if isinstance(value, str) else str(value)
        raise ConfigError(f"{error}, got {shown}", where) from None


def resolve_qos(scope: Scope, group: str, device: str, table: schema.QosTable, scheduler: SchedulerKind) -> Qos:
    """Check a table ``guest.GROUP.qos.DEVICE``.

    Raises:
        ConfigError: A value is out of range, or means nothing to the device's scheduler.
    """
    qos = DEFAULT_QOS
    for key in _KEYS:
        value = getattr(table, key)
        if value is not None:
            qos = change_qos(qos, key, value, scheduler, scope.where("guest", group, "qos", device, key))
    return qos


def describe_qos(qos: Qos, scheduler: SchedulerKind | None) -> dict[str, int | str]:
    """Say what holds, in a topology's words: what the scheduler looks at, and limits where there are any.

    Without a scheduler: what differs from the default, and limits.
    """
    words: dict[str, int | str] = {}
    if qos.weight != DEFAULT_QOS.weight if scheduler is None else scheduler in USED_BY["weight"]:
        words["weight"] = qos.weight
    if qos.priority is not DEFAULT_QOS.priority if scheduler is None else scheduler in USED_BY["priority"]:
        words["priority"] = qos.priority.name.lower()
    if qos.latency_ns != DEFAULT_QOS.latency_ns if scheduler is None else scheduler in USED_BY["latency"]:
        words["latency"] = units.format_duration(qos.latency_ns)
    if qos.iops:
        words["iops"] = qos.iops
    if qos.bandwidth:
        words["bandwidth"] = units.format_size(qos.bandwidth)
    if qos.iops or qos.bandwidth:
        words["burst"] = units.format_duration(qos.burst_ns)
    return words
