"""Start a command that dies with its supervisor: ``python -I -S child.py SUPERVISOR_PID COMMAND...``.

Run by path in an interpreter without site packages (10 ms), because code between fork and exec of a supervisor with
threads may deadlock. PR_SET_PDEATHSIG survives exec, see prctl(2). SIGTERM and not SIGKILL: a process that still can
removes its socket.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() == int(sys.argv[1]):  # else the supervisor died before the call, and nobody will signal us
        os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - the topology says what to run
