"""``iovirt``: the commands and their options; each does its work in a module of its own, imported when it is called.

Exit status: 0 done, 1 the work failed, 2 usage or configuration, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

from cyclopts import CycloptsError, MissingArgumentError, Parameter, UnknownCommandError

from iovirt_dist.cli import disk as _disk  # noqa: F401 - registers its commands
from iovirt_dist.cli import initramfs as _initramfs  # noqa: F401 - registers its command
from iovirt_dist.cli import measuring as _measuring  # noqa: F401 - registers its commands
from iovirt_dist.cli import serving as _serving  # noqa: F401 - registers its command
from iovirt_dist.cli.app import (
    Expect,
    File,
    Host,
    Json,
    LongFile,
    RunningFile,
    Text,
    Timeout,
    app,
    local_part,
    need_host,
    running_topology,
    starting_topology,
)
from iovirt_dist.cli.output import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    drop_stdout,
    fail,
    note,
    print_json,
)
from iovirt_dist.cli.running import pattern_of
from iovirt_dist.errors import ConfigError, ImageError, IovirtError
from iovirt_dist.topology import default_text
from iovirt_dist.topology.load import load_running
from iovirt_dist.topology.parse import suggestion


@app.command(help_epilogue="Example: iovirt up -f deploy/two-guests.toml -d")
def up(
    *,
    file: File = None,
    detach: Annotated[
        bool, Parameter(name=("--detach", "-d"), negative=(), show_default=False, help="Run in the background.")
    ] = False,
    host: Host = "",
    json: Json = False,
) -> int:
    """Start a topology's processes and restart what crashes; of several hosts those of one.

    In the foreground the logs are shown and Ctrl-C stops everything; detached, 'iovirt down' does.
    """
    from iovirt_dist.cli import launch, processes  # noqa: PLC0415 - keeps --help fast

    topology = starting_topology(file, host)
    if not detach:
        return launch.run_foreground(topology)
    pid = launch.start_detached(topology)
    topology = load_running(topology.source, topology.host)  # the other hosts may have been scaled
    problems = launch.wait_ready(topology)
    for problem in problems:
        fail(problem)
    if not json:
        note(f"up (supervisor pid {pid}), run directory {topology.run_dir}")
    processes.show_processes(topology, as_json=json)
    return EXIT_FAILED if problems else EXIT_DONE


@app.command(help_epilogue="Example: iovirt down")
def down(*, file: RunningFile = None, host: Host = "", json: Json = False) -> int:
    """Stop a topology and remove its sockets and status files; logs and disk images stay."""
    from iovirt_dist.runtime.rundir import RunDir  # noqa: PLC0415 - keeps --help fast
    from iovirt_dist.runtime.takedown import take_down  # noqa: PLC0415 - as above

    done = take_down(RunDir(need_host(running_topology(file, host)).run_dir))
    if json:
        print_json(done._asdict())
    else:
        stopped = f"stopped {', '.join(done.stopped)}" if done.stopped else "nothing was up"
        note(f"{stopped}; had to kill {', '.join(done.killed)}" if done.killed else stopped)
    return EXIT_DONE


@app.command(help_epilogue="Example: iovirt ps --json")
def ps(*, file: RunningFile = None, host: Host = "", json: Json = False) -> int:
    """List the topology's processes and their state; of all hosts if none is named."""
    from iovirt_dist.cli.processes import show_processes  # noqa: PLC0415 - keeps --help fast

    return show_processes(running_topology(file, host), as_json=json)


_SET_EXAMPLES = """\
Example: iovirt set guest.disk iops=1000 bandwidth=10MiB
Example: iovirt set guest.disk weight=2 iops=none"""


@app.command(name="set", help_epilogue=_SET_EXAMPLES)
def set_(device: str, *settings: Text, file: RunningFile = None, host: Host = "", json: Json = False) -> int:
    """Change what a guest may have of a device, at once and until the topology goes down.

    Parameters
    ----------
    device
        GUEST.disk or GUEST.rng.
    settings
        KEY=VALUE as in a topology's guest.NAME.qos: weight, priority or latency, as the device's scheduler is; iops and
        bandwidth a second, none for no limit; burst. Without any, what holds is shown.
    """
    from iovirt_dist.cli.qos import set_qos  # noqa: PLC0415 - keeps --help fast

    return set_qos(running_topology(file, host), device, settings, as_json=json)


@app.command(help_epilogue="Example: iovirt keys -f deploy/two-hosts.toml")
def keys(
    *,
    file: File = None,
    host: Host = "",
    renew: Annotated[list[str] | None, Parameter(negative=(), show_default=False)] = None,
    json: Json = False,
) -> int:
    """Make the keys with which a topology's processes trust each other over tcp; those that are there stay.

    They are in the folder topology.keys: public/NAME.key is copied to all hosts,
    private/NAME.key_secret stays on the host of NAME. With --host only that
    host's are made.

    Parameters
    ----------
    renew
        Make this key anew; may be given again.
    """
    from iovirt_dist.cli.keys import make_topology_keys  # noqa: PLC0415 - keeps --help fast

    return make_topology_keys(starting_topology(file, host), renew or (), as_json=json)


_SCALE_EXAMPLES = """\
Example: iovirt scale guest=4
Example: iovirt scale web=8 load=0 --json"""


@app.command(help_epilogue=_SCALE_EXAMPLES)
def scale(*counts: Text, file: RunningFile = None, host: Host = "", json: Json = False) -> int:
    """Have more or fewer guests in a running topology, over all its hosts, until it goes down.

    Guests that run stay where they are; of those that are too many the highest numbers end. New ones are placed where
    most memory is free. Nothing is changed if not all of it can be.

    Parameters
    ----------
    counts
        NAME=N, a guest table and how many replicas it is to have, 0 for none. Without any, what there is is shown.
    """
    from iovirt_dist.cli.scale import scale as change  # noqa: PLC0415 - keeps --help fast

    return change(running_topology(file, host), counts, as_json=json)


@app.command(help_epilogue="Example: iovirt logs -f hv0 guest")
def logs(
    *names: str,
    file: LongFile = None,
    follow: Annotated[
        bool, Parameter(name=("--follow", "-f"), negative=(), show_default=False, help="Go on with new lines.")
    ] = False,
    lines: Annotated[int, Parameter(name=("--lines", "-n"), help="How many of the last lines of each log.")] = 50,
    host: Host = "",
    json: Json = False,
) -> int:
    """Show the logs of all or the named processes ('_up' is the supervisor).

    Parameters
    ----------
    names
        Processes; all without any.
    """
    from iovirt_dist.cli.processes import show_logs  # noqa: PLC0415 - keeps --help fast

    return show_logs(need_host(running_topology(file, host)), names, follow=follow, lines=lines, as_json=json)


@app.command(help_epilogue="Example: iovirt config --toml > topology.toml")
def config(
    *,
    file: File = None,
    host: Host = "",
    json: Json = False,
    toml: Annotated[
        bool, Parameter(name="--toml", negative=(), show_default=False, help="Print the file's text instead.")
    ] = False,
) -> int:
    """Check a topology and show what it means."""
    from iovirt_dist.cli.config import show_config  # noqa: PLC0415 - keeps --help fast

    topology = starting_topology(file, host)
    if toml:
        print(topology.source.read_text("utf-8") if topology.source else default_text(), end="")
        return EXIT_DONE
    return show_config(topology, as_json=json)


@app.command(help_epilogue="Example: echo help | iovirt console uboot --expect 'ide' --timeout 10")
def console(
    guest: str,
    *,
    file: File = None,
    host: Host = "",
    expect: Expect = "",
    timeout: Timeout = None,
    history: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
) -> int:
    """Attach to a guest's terminal; Ctrl-] leaves.

    Without a terminal, stdin is sent as it is. At its end the console waits for --expect, or until the guest has been
    quiet for a second; one that has printed nothing yet gets ten.

    Parameters
    ----------
    guest
        The guest's name, as in 'iovirt ps'; GUEST.hvc0 for its virtio console.
    history
        Begin with everything that the terminal has ever shown. Default: its last screenful for people, nothing for
        scripts.
    """
    from iovirt_dist.cli.terminal import HISTORY_BYTES, ConsolePlan, attach  # noqa: PLC0415 - keeps --help fast
    from iovirt_dist.runtime.rundir import RunDir  # noqa: PLC0415 - as above

    topology = running_topology(file, host)
    terminal = topology.terminal(guest)
    topology = local_part(topology, topology.controller(terminal.controller))
    pattern = pattern_of(expect)
    scripted = pattern is not None or not sys.stdin.isatty()
    history_bytes = None if history else 0 if scripted else HISTORY_BYTES
    plan = ConsolePlan(expect=pattern, timeout_s=timeout, history_bytes=history_bytes)
    return attach(RunDir(topology.run_dir), terminal.terminal, plan)


@app.command(help_epilogue="Example: iovirt doctor --json")
def doctor(*, file: RunningFile = None, host: Host = "", json: Json = False) -> int:
    """Check whether this machine can run a topology, and what is left over from an earlier one."""
    from iovirt_dist.cli.doctor import show_doctor  # noqa: PLC0415 - keeps --help fast

    return show_doctor(running_topology(file, host), as_json=json)


def _usage(error: CycloptsError) -> str:
    """Say what is wrong with a command line: Cyclopts' own words but where they are cut or not the user's."""
    if isinstance(error, UnknownCommandError) and error.unused_tokens:
        word = error.unused_tokens[0]
        names = [name for name in app if not name.startswith("-")]
        hint = suggestion(word, names)
        return f"unknown command '{word}'; {hint}{'' if hint.endswith('?') else ';'} try 'iovirt --help'"
    command = " ".join(("iovirt", *(error.command_chain or ()), "--help"))
    if isinstance(error, MissingArgumentError) and error.argument is not None and error.argument.name == "--guest":
        return f"name a guest; try '{command}'"
    return f"{str(error).rstrip('.')}; try '{command}'"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        argv: Arguments behind the program's name; None for this process's.

    Returns:
        The exit status.
    """
    tokens = list(sys.argv[1:] if argv is None else argv)
    try:
        result = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        fail(_usage(error))
        return EXIT_USAGE
    except IovirtError as error:
        fail(str(error))
        return EXIT_USAGE if isinstance(error, (ConfigError, ImageError)) else EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # `iovirt logs | head`
        drop_stdout()
        return EXIT_DONE
    return result if isinstance(result, int) else EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
