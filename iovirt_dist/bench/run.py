"""All parts of the benchmark in their order, and what they print."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

from iovirt_dist.bench import fairness, nbd, rates, vhost_user
from iovirt_dist.bench.doorbells import measure_doorbells
from iovirt_dist.bench.guest_code import measure_guest_code
from iovirt_dist.bench.report import Result, as_object, print_report
from iovirt_dist.bench.sampling import Effort
from iovirt_dist.bench.sharing import (
    Steps,
    equal_share_results,
    measure_growth,
    memory_results,
    scale_results,
)
from iovirt_dist.bench.traps import measure_traps
from iovirt_dist.bench.uboot import measure_uboot

Part: TypeAlias = Literal[
    "traps", "doorbells", "guest_code", "uboot", "scale", "fairness", "rates", "memory", "nbd", "vhost_user"
]

Tell: TypeAlias = Callable[[str], None]
"""Gets a line of progress."""


class Plan(NamedTuple):
    """How much of everything."""

    traps: Effort
    doorbells: Effort
    guest_code: Effort
    uboot: Effort
    sharing: Steps = Steps()
    fairness: fairness.Span = fairness.Span()
    rates: rates.Span = rates.Span()
    nbd: nbd.Span = nbd.Span()
    vhost_user: vhost_user.Span = vhost_user.Span()


FULL: Final = Plan(Effort(20, 200, 400), Effort(3, 1), Effort(10, 1, 1), Effort(3, 1))
QUICK: Final = Plan(
    Effort(5, 100, 200),
    Effort(1, 1),
    Effort(3, 1, 1),
    Effort(1, 1),
    Steps(windows=2),
    fairness.Span(windows=3, seconds=2.0, rounds=1),
    rates.Span(windows=3),
    nbd.Span(rounds=1, seconds=1.0),
    vhost_user.Span(rounds=1, seconds=1.5),
)


def measures(plan: Plan, tell: Tell) -> Mapping[Part, Callable[[], list[Result]]]:
    """What measures each part, in the order of the report; parts that need the same fleet share it."""
    growth = cache(partial(measure_growth, plan.sharing, tell))
    return {
        "traps": partial(measure_traps, plan.traps, tell),
        "doorbells": partial(measure_doorbells, plan.doorbells, tell),
        "guest_code": partial(measure_guest_code, plan.guest_code, tell),
        "uboot": partial(measure_uboot, plan.uboot, tell),
        "scale": lambda: scale_results(growth()),
        "fairness": lambda: [
            *equal_share_results(growth()),
            *fairness.measure_weights(plan.fairness, tell),
            *fairness.measure_flood(plan.fairness, tell),
        ],
        "rates": partial(rates.measure_rates, plan.rates, tell),
        "memory": lambda: memory_results(growth()),
        "nbd": partial(nbd.measure_nbd, plan.nbd, tell),
        "vhost_user": partial(vhost_user.measure_vhost_user, plan.vhost_user, tell),
    }


def run_parts(plan: Plan, parts: Sequence[Part] = ()) -> dict[str, list[Result]]:
    """Run parts of the benchmark, all if none is named, with progress on stderr.

    Raises:
        IovirtError: Something did not do what it should.
    """
    return {part: measure() for part, measure in measures(plan, _tell).items() if part in parts or not parts}


def run_benchmarks(parts: Sequence[Part] = (), *, quick: bool, as_json: bool) -> bool:
    """Run parts of the benchmark and print the report on stdout.

    Args:
        parts: Which; all if none is named.
        quick: With fewer rounds.
        as_json: As one object instead of a table.

    Returns:
        Whether no target was missed.
    """
    report = run_parts(QUICK if quick else FULL, parts)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(as_object(report)), indent=2).decode())  # noqa: T201 - the result
    else:
        print_report(report)
    return all(result.met is not False for results in report.values() for result in results)


def _tell(text: str) -> None:
    print(f"iovirt: bench: {text}", file=sys.stderr, flush=True)  # noqa: T201 - progress, where it disturbs no result
