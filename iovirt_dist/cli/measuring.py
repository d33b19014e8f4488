"""The commands that measure and show: ``demo``, ``compare``, ``top``, ``trace``, ``bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from iovirt_dist.cli.app import Host, Json, RunningFile, Text, app, need_host, running_topology
from iovirt_dist.cli.output import EXIT_DONE, EXIT_FAILED
from iovirt_dist.errors import ConfigError


@app.command(help_epilogue="Example: iovirt demo --json")
def demo(*, json: Json = False) -> int:
    """Run the main job: a guest OS reads a disk through its ATA ports, then at three levels; every count must agree."""
    from iovirt_dist.cli.demo import run_demo  # noqa: PLC0415 - keeps --help fast

    return run_demo(as_json=json)


_COMPARE_EXAMPLES = """\
Example: iovirt compare --size 256 --json
Example: iovirt compare --drivers"""


@app.command(help_epilogue=_COMPARE_EXAMPLES)
def compare(
    *,
    size: Annotated[int, Parameter(help="KiB that each row reads. One IN a word takes a minute for 1024.")] = 64,
    block_size: Annotated[str, Parameter(help="What the job asks for at once, up to 1MiB.")] = "64KiB",
    write: Annotated[int, Parameter(help="Per cent of the blocks that are written back.")] = 0,
    level: Annotated[
        Literal["operation", "operation_string", "driver", "syscall"] | None,
        Parameter(show_default=False, help="Run one row only."),
    ] = None,
    drivers: Annotated[
        bool, Parameter(negative=(), show_default=False, help="Compare where the hypervisor's drivers are, instead.")
    ] = False,
    plot: Annotated[
        Path | None, Parameter(show_default=False, help="Draw into this file (.png, .svg, .pdf; extra 'plot').")
    ] = None,
    json: Json = False,
) -> int:
    """Run one job at the operation, driver and system-call level, and show what each costs and knows.

    The same guest image reads the same disk: with one IN for each word, with string I/O (rep ins), through virtio, and
    with its program's system calls taken. All checksums must be the host's.

    With --drivers the same guests load a disk whose driver is native, and one that a driver domain serves.
    """
    if drivers:
        if level or plot or (size, block_size, write) != (64, "64KiB", 0):
            raise ConfigError("options of the levels' job do not go with --drivers", "iovirt compare", "leave them out")
        from iovirt_dist.cli.compare_drivers import run_compare_drivers  # noqa: PLC0415 - keeps --help fast

        return run_compare_drivers(as_json=json)
    from iovirt_dist.cli.compare import job_of, rows_of, run_compare  # noqa: PLC0415 - keeps --help fast

    return run_compare(job_of(size, block_size, write), rows_of(level), as_json=json, plot=plot)


_TOP_EXAMPLES = """\
Example: iovirt top --sort iops
Example: iovirt top --once --json | jq '.guests[] | {name, traps_per_s}'"""


@app.command(help_epilogue=_TOP_EXAMPLES)
def top(
    *,
    interval: Annotated[
        float, Parameter(name=("--interval", "-i"), help="Seconds between two samples.", validator=Number(gte=0.1))
    ] = 1.0,
    once: Annotated[bool, Parameter(negative=(), show_default=False, help="One sample; as -n 1.")] = False,
    number: Annotated[
        int | None,
        Parameter(name=("--number", "-n"), show_default=False, help="End after so many.", validator=Number(gte=1)),
    ] = None,
    sort: Annotated[
        Literal["name", "iops", "bytes", "waiting", "traps", "interrupts", "messages"],
        Parameter(help="Guests with most of it come first."),
    ] = "name",
    file: RunningFile = None,
    host: Host = "",
    json: Json = False,
) -> int:
    """Watch guests, controllers and hypervisors: rates, queues, shares, traps, interrupts, messages; of all hosts.

    On a terminal live, 's' changes the order of guests and 'q' leaves; elsewhere, or with -n, as plain samples. With
    --json an object a line, with --once one object. Rates are of the last interval, from counts that processes give
    twice a second. A SHARE of 33/40% is what the guest has of its controller, and what its weight gives it at least.
    """
    from iovirt_dist.cli.top import TopPlan, run_top  # noqa: PLC0415 - keeps --help fast

    plan = TopPlan(interval, 1 if once else number, sort, as_json=json)
    return run_top(lambda: running_topology(file, host), plan)


_TRACE_EXAMPLE = """\
Example: iovirt trace --on; sleep 5; iovirt trace guest; iovirt trace --off
10:06:45.172191 guest guest 47 raise   kind=port_out address=0x1f7 value=32
10:06:45.172300 hv0   guest  1 submit  controller=disk0 opcode=read offset=0
10:06:45.172301 hv0   guest 47 trap    kind=port_out address=0x1f7 device=ata
10:06:45.172449 disk0 guest  1 command hypervisor=hv0 opcode=read offset=0"""


@app.command(help_epilogue=_TRACE_EXAMPLE)
def trace(  # noqa: PLR0913 - a command's options are its parameters
    guest: Text = "",
    /,
    *,
    on: Annotated[bool, Parameter(negative=(), show_default=False, help="Make all processes trace.")] = False,
    off: Annotated[bool, Parameter(negative=(), show_default=False, help="Make them stop; nothing is shown.")] = False,
    number: Annotated[
        int | None, Parameter(show_default=False, help="Of this trap, or this request of a disk or terminal, only.")
    ] = None,
    lines: Annotated[
        int, Parameter(name=("--lines", "-n"), help="How many of the last points; 0 for all.", validator=Number(gte=0))
    ] = 200,
    follow: Annotated[
        bool, Parameter(negative=(), show_default=False, help="Go on with new points; with --json one a line.")
    ] = False,
    file: RunningFile = None,
    host: Host = "",
    json: Json = False,
) -> int:
    """Show the path of I/Os through the processes: time, process, guest, number, event, fields.

    Tracing costs time, so it is off until '--on'. The events: a guest's 'raise', 'complete' and 'lines' (interrupt
    inputs), a virtual machine's 'kick' and 'call' besides, its hypervisor's 'trap', 'doorbell', 'block', 'system_call',
    'submit' and 'completions', a controller's 'command' and 'completion'.

    Parameters
    ----------
    guest
        Only what belongs to this guest.
    """
    from iovirt_dist.cli.trace import Selection, show_trace, switch_trace  # noqa: PLC0415 - keeps --help fast

    if on and off:
        raise ConfigError("--on and --off contradict each other", "iovirt trace")
    topology = need_host(running_topology(file, host))
    if on or off:
        return switch_trace(topology, on=on)
    return show_trace(topology, Selection(guest, number), lines=lines, follow=follow, as_json=json)


@app.command(help_epilogue="Example: iovirt bench fairness rates --json")
def bench(
    *parts: Annotated[
        Literal[
            "traps", "doorbells", "guest_code", "uboot", "scale", "fairness", "rates", "memory", "nbd", "vhost_user"
        ],
        Parameter(help="What to measure; everything if nothing is named."),
    ],
    quick: Annotated[bool, Parameter(negative=(), show_default=False, help="Fewer rounds.")] = False,
    check: Annotated[
        bool, Parameter(negative=(), show_default=False, help="Exit with 1 if a target is missed.")
    ] = False,
    json: Json = False,
) -> int:
    """Measure what the ring costs and how fairly it is shared.

    Where there is a bare thing that does the same, it is measured in the same run, and its side is shown.
    """
    from iovirt_dist.bench.run import run_benchmarks  # noqa: PLC0415 - keeps --help fast
    from iovirt_dist.cli.terminal import exit_on_signals  # noqa: PLC0415 - as above

    with exit_on_signals():
        met = run_benchmarks(parts, quick=quick, as_json=json)
    return EXIT_FAILED if check and not met else EXIT_DONE
