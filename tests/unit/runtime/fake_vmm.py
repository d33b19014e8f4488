"""A VMM for tests: says what it reads in capitals, has a helper in a session of its own, and ends as it is told.

``fake_vmm.py [deaf]``; commands, a line each: ``off`` ends it with status 0, ``fail`` with 3, anything else is echoed.
A deaf one takes no notice of SIGTERM. Its helper's process number is what it says first.
"""

from __future__ import annotations

import os
import signal
import sys
import time


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def helper() -> int:
    """Start a process that would outlive us and our process group; its number."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        while True:
            time.sleep(60)
    return pid


def main() -> int:
    """Serve the console until told to end."""
    if "deaf" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say(f"helper {helper()} of {os.getpid()}")
    sys.stderr.write("a word for the log\n")
    for line in sys.stdin:
        word = line.strip()
        if word in ("off", "fail"):
            say(f"told {word}")
            return 0 if word == "off" else 3
        say(word.upper())
    return 1


if __name__ == "__main__":
    sys.exit(main())
