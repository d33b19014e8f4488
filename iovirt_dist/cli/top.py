"""``iovirt top``: what guests, controllers and hypervisors do now, live or as samples."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import msgspec

from iovirt_dist.cli.output import EXIT_DONE, print_json
from iovirt_dist.cli.processes import seen_rows
from iovirt_dist.cli.terminal import exit_on_signals, is_up
from iovirt_dist.cli.top_build import make_sample
from iovirt_dist.cli.top_keys import END, keys
from iovirt_dist.cli.top_rows import Sample
from iovirt_dist.cli.top_sample import Sampler
from iovirt_dist.cli.top_table import SORT_KEYS, SortKey, draw
from iovirt_dist.errors import IovirtError, LocalError
from iovirt_dist.runtime.remote_view import view_hosts
from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.topology import Topology

SETTLE_S: Final = 2.0
"""How much longer than an interval the first sample may wait for processes that have not told their counts twice."""

HOSTS_S: Final = 1.0
"""How long hosts may take to answer; those that do not have no figures in that sample."""

PIPE_WIDTH: Final = 200
"""Columns where there is no terminal and COLUMNS says nothing."""

_SETTLE_POLL_S: Final = 0.1
_HINT: Final = "q: leave, s: sort"


@dataclass(frozen=True, slots=True)
class TopPlan:
    """How to watch.

    Attributes:
        interval_s: Time between two samples.
        samples: How many; None for until somebody leaves.
        sort: Order of guests.
        as_json: One object for each sample.
    """

    interval_s: float = 1.0
    samples: int | None = None
    sort: SortKey = "name"
    as_json: bool = False


class Watch:
    """Looks at a topology again and again.

    Args:
        load: Reads the topology: guests may come and go.
    """

    def __init__(self, load: Callable[[], Topology]) -> None:
        self._load = load
        self._topology = load()
        self._sampler = Sampler()
        self._last: Sample | None = None

    def look(self) -> Sample:
        """Take a sample; what cannot be read now is as it was, and told as a problem.

        Raises:
            IovirtError: It could never be read.
        """
        with contextlib.suppress(IovirtError):
            self._topology = self._load()
        try:
            seen = view_hosts(self._topology, HOSTS_S)
        except IovirtError as error:
            if self._last is None:
                raise
            return replace(self._last, problems={self._topology.label: str(error)})
        now_ns = time.time_ns()
        self._sampler.take(seen.view.living(), time.monotonic_ns())
        self._last = make_sample(seen.topology, seen_rows(seen, now_ns), self._sampler, now_ns, seen.problems)
        return self._last

    def first(self, interval_s: float) -> Sample:
        """Take the first sample that has rates: after an interval, or somewhat later if processes are slow."""
        self.look()
        time.sleep(interval_s)
        deadline = time.monotonic() + SETTLE_S
        sample = self.look()
        while not self._sampler.settled and time.monotonic() < deadline:
            time.sleep(_SETTLE_POLL_S)
            sample = self.look()
        return sample


def run_top(load: Callable[[], Topology], plan: TopPlan) -> int:
    """The work of ``iovirt top``.

    Args:
        load: Reads the topology.
        plan: How to watch.

    Raises:
        LocalError: Nothing is up.
    """
    topology = load()
    run_dir = RunDir(topology.run_dir)
    if not view_hosts(topology).view.alive and not is_up(run_dir):
        raise LocalError("nothing is up", str(run_dir.path), "start it with 'iovirt up -d', then watch")
    watch = Watch(load)
    with exit_on_signals():
        if plan.as_json or plan.samples is not None or not _on_terminal():
            _print_samples(watch, plan)
        else:
            _show_live(watch, plan)
    return EXIT_DONE


def _on_terminal() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


def _samples(watch: Watch, plan: TopPlan) -> Iterator[Sample]:
    """Take samples at even intervals; one that is late does not make the next one early."""
    yield watch.first(plan.interval_s)
    due = time.monotonic()
    for _ in itertools.count(1) if plan.samples is None else range(1, plan.samples):
        due = max(due + plan.interval_s, time.monotonic())
        time.sleep(max(due - time.monotonic(), 0))
        yield watch.look()


def _print_samples(watch: Watch, plan: TopPlan) -> None:
    for at, sample in enumerate(_samples(watch, plan)):
        if plan.as_json and plan.samples == 1:
            print_json(to_json(sample))
        elif plan.as_json:
            print(msgspec.json.encode(to_json(sample), enc_hook=str).decode(), flush=True)
        else:
            lines = draw(sample, _width(), sort=plan.sort)
            print("\n".join((*("" for _ in range(at > 0)), *(line.text for line in lines))), flush=True)


def to_json(sample: Sample) -> dict[str, Any]:
    """Return a sample as JSON values, every row and rate of it."""
    return asdict(sample)


def _width() -> int:
    columns = os.environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdecimal() and int(columns):
        return int(columns)
    return os.get_terminal_size(sys.stdout.fileno()).columns if sys.stdout.isatty() else PIPE_WIDTH


def _show_live(watch: Watch, plan: TopPlan) -> None:
    """Show samples on this terminal until somebody leaves."""
    from rich.console import Console  # noqa: PLC0415 - a quarter of the start-up time, and samples need none of it
    from rich.live import Live  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    for name in ("COLUMNS", "LINES"):  # a window's size is the terminal's, also when it changes
        os.environ.pop(name, None)
    console = Console()
    with keys() as wait, Live(console=console, screen=True, auto_refresh=False, redirect_stderr=False) as live:
        sample, due = watch.look(), time.monotonic() + plan.interval_s
        while True:
            lines = draw(sample, console.width, sort=plan.sort, height=console.height, hint=_HINT)
            live.update(Text("\n").join(Text(line.text, line.style) for line in lines), refresh=True)
            pressed = wait(due - time.monotonic())
            if "q" in pressed or END in pressed:
                return
            if "s" in pressed:
                plan = replace(plan, sort=SORT_KEYS[(SORT_KEYS.index(plan.sort) + 1) % len(SORT_KEYS)])
            if time.monotonic() >= due:
                sample, due = watch.look(), time.monotonic() + plan.interval_s
