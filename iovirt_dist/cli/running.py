"""The command ``iovirt run``."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated

from cyclopts import Parameter

from iovirt_dist.cli.adhoc_guest import AdHocGuest
from iovirt_dist.cli.app import Expect, Timeout, app
from iovirt_dist.errors import ConfigError

_RUN_EXAMPLES = """\
Example: iovirt run --image bundled:guestos --disk disk.img --command-line run=job
Example: iovirt run --machine virt --format flat --image u-boot.bin --disk disk.img
Example: iovirt run --program /bin/busybox --disk disk.img -- sha256sum /dev/vda
Example: iovirt run --script load.py:main --disk disk.img --parameter depth=64
Example: iovirt run --qemu --disk disk.img --rng
Example: iovirt run --uml --disk disk.img --dry-run"""


@app.command(help_epilogue=_RUN_EXAMPLES)
def run(
    *command: Annotated[str, Parameter(show_default=False)],
    guest: Annotated[AdHocGuest, Parameter(name="*")] = AdHocGuest(),  # noqa: B008 - it is frozen
    until: Expect = "",
    timeout: Timeout = None,
    dry_run: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
) -> int:
    """Run one guest without a topology file, its terminal on this one.

    The guest is a machine (--image), a static Linux program without a kernel
    (--program), whose exit status this command ends with, a Python script
    that drives virtio devices (--script), or an unmodified Linux kernel in a
    virtual machine that is not ours (--qemu, --uml).

    Ends when the guest stops, with Ctrl-], or with --until or --timeout; the
    end of a piped stdin does not end it, but is the end of a program's input.
    Nothing stays but the disk image.

    Parameters
    ----------
    command
        Arguments of the program, behind '--' if one begins with a dash.
    dry_run
        Virtual machine: do not run it; print the commands with which you start it yourself.
    """
    guest = replace(guest, arguments=command)
    if dry_run:
        from iovirt_dist.cli.adhoc_commands import show_commands  # noqa: PLC0415 - keeps --help fast

        return show_commands(guest)
    from iovirt_dist.cli.adhoc import run_guest  # noqa: PLC0415 - keeps --help fast
    from iovirt_dist.cli.terminal import ConsolePlan  # noqa: PLC0415 - as above

    plan = ConsolePlan(expect=pattern_of(until), timeout_s=timeout, history_bytes=None, quiet_s=None)
    return run_guest(guest, plan)


def pattern_of(text: str) -> re.Pattern[str] | None:
    """Compile what a user wrote as a regular expression; None if it is empty.

    Raises:
        ConfigError: It is none.
    """
    if not text:
        return None
    try:
        return re.compile(text, re.MULTILINE)
    except re.error as error:
        raise ConfigError(f"not a regular expression: {error}", f"'{text}'") from None
