"""Start a VMM below a process that ends all of it: ``python -I -S vmm_keeper.py PARENT_PID COMMAND...``.

User-Mode Linux has helper processes, one of them in a session of its own, and they outlive it when it is killed: a
process group is not enough. The keeper is the subreaper of whatever the VMM starts (prctl(2), PR_SET_CHILD_SUBREAPER),
so it can end all of that, and does so when the VMM has ended, on SIGHUP, and when its parent dies. SIGTERM goes to the
VMM alone. Its exit status is the VMM's, 128 and the signal's number if one killed it.

Run by path in an interpreter without site packages, as `iovirt_dist.runtime.child` is.
"""

import contextlib
import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
END = signal.SIGHUP
"""Asks the keeper to kill the VMM and all that belongs to it."""

_WATCHED = (signal.SIGTERM, END, signal.SIGCHLD)


def adopt_orphans() -> None:
    """Become the parent of every descendant that loses its own."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_descendants() -> None:
    """Kill all descendants of this process, which is a subreaper, and wait until they are gone."""
    while True:
        for pid in _descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _descendants(ancestor: int) -> list[int]:
    """All processes below one. Source: proc(5), /proc/PID/stat, fourth field; the second may hold anything."""
    parents = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib takes longer to import than this to run
        if name.isdecimal():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123 - as above
                parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
    found = [ancestor]
    for parent in found:
        found += [pid for pid, of in parents.items() if of == parent]
    return found[1:]


def _start(command: list[str]) -> int:
    """Start the VMM in a session of its own; its process number."""
    keeper = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # which Python ignores, and exec keeps
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() == keeper:
            os.execvp(command[0], command)  # noqa: S606 - the topology says what to run
    except OSError as error:
        print(f"cannot start {command[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201 - goes to the log
    os._exit(127)


def _reap(vmm: int) -> int | None:
    """Take note of all children that have ended; the exit status of the VMM if it is among them."""
    status = None
    while True:
        try:
            pid, ended = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == vmm:
            code = os.waitstatus_to_exitcode(ended)
            status = code if code >= 0 else 128 - code


def main(parent: int, command: list[str]) -> int:
    """Run a VMM to its end; returns its exit status."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    adopt_orphans()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, END, 0, 0, 0)
    if os.getppid() != parent:  # it died before the call, and nobody will signal us
        return 128 + END
    vmm = _start(command)
    while True:
        number = signal.sigwait(_WATCHED)
        if number == signal.SIGTERM:
            with contextlib.suppress(ProcessLookupError):
                os.kill(vmm, signal.SIGTERM)
        status = 128 + END if number == END else _reap(vmm)
        if status is not None:
            end_descendants()
            return status


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
