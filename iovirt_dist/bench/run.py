"""All benchmarks in their order, and what they print."""

from __future__ import annotations

import sys
from typing import NamedTuple

import msgspec

from iovirt_dist.bench.doorbells import measure_doorbells
from iovirt_dist.bench.guest_code import measure_guest_code
from iovirt_dist.bench.report import Result, as_object, print_report
from iovirt_dist.bench.sampling import Effort
from iovirt_dist.bench.traps import measure_traps
from iovirt_dist.bench.uboot import measure_uboot


class Plan(NamedTuple):
    """How much of everything."""

    traps: Effort
    doorbells: Effort
    guest_code: Effort
    uboot: Effort


FULL = Plan(Effort(20, 200, 400), Effort(3, 1), Effort(10, 1, 1), Effort(3, 1))
QUICK = Plan(Effort(5, 100, 200), Effort(1, 1), Effort(3, 1, 1), Effort(1, 1))


def run_all(plan: Plan) -> list[Result]:
    """Run every benchmark, with progress on stderr.

    Raises:
        IovirtError: Something did not do what it should.
    """
    return [
        *measure_traps(plan.traps, _tell),
        *measure_doorbells(plan.doorbells, _tell),
        *measure_guest_code(plan.guest_code, _tell),
        *measure_uboot(plan.uboot, _tell),
    ]


def run_benchmarks(*, quick: bool, as_json: bool) -> bool:
    """Run every benchmark and print the report on stdout.

    Args:
        quick: With fewer rounds.
        as_json: As one object instead of a table.

    Returns:
        Whether no target was missed.
    """
    results = run_all(QUICK if quick else FULL)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(as_object(results)), indent=2).decode())  # noqa: T201 - the result
    else:
        print_report(results)
    return all(result.met is not False for result in results)


def _tell(text: str) -> None:
    print(f"iovirt: bench: {text}", file=sys.stderr, flush=True)  # noqa: T201 - progress, where it disturbs no result
