"""System calls about time (clock_gettime(2), nanosleep(2)), and those that wait for files (poll(2), select(2))."""

from __future__ import annotations

from collections.abc import Callable

from iovirt_dist.abi.layouts import FD_SET, POLL, TIMESPEC64, Layout
from iovirt_dist.hypervisor.linux.errno import CallError, Errno
from iovirt_dist.hypervisor.linux.nodes import Node
from iovirt_dist.hypervisor.linux.process import MAX_FILES
from iovirt_dist.hypervisor.linux.request import Reply, Request
from iovirt_dist.hypervisor.linux.waits import Deadline, InterruptedWaitError, Steps, TerminalChange

_SECOND_NS = 1_000_000_000
_WALL_CLOCKS = frozenset({0, 5, 8, 11})
"""CLOCK_REALTIME, its coarse one and its alarm, CLOCK_TAI."""
_MACHINE_CLOCKS = frozenset({1, 2, 3, 4, 6, 7, 9})
"""CLOCK_MONOTONIC with raw and coarse, CPU times (of a program that always runs), CLOCK_BOOTTIME with its alarm."""
_SLEEPING_CLOCKS = frozenset({0, 1, 7, 11})
_TIMER_ABSTIME = 1
_POLLIN, _POLLOUT, _POLLNVAL = 0x41, 0x104, 0x20
"""POLLIN with POLLRDNORM, POLLOUT with POLLWRNORM."""
_LONGEST_NS = 1 << 62


def clock_gettime(request: Request) -> Reply:
    """A clock in words."""
    return _time_reply(request, request.process.system.layouts.timespec)


def clock_gettime64(request: Request) -> Reply:
    """A clock with 64 bits on a 32-bit architecture."""
    return _time_reply(request, TIMESPEC64)


def clock_getres(request: Request) -> Reply:
    """Every clock counts nanoseconds."""
    return _resolution_reply(request, request.process.system.layouts.timespec)


def clock_getres64(request: Request) -> Reply:
    """Every clock counts nanoseconds."""
    return _resolution_reply(request, TIMESPEC64)


def gettimeofday(request: Request) -> Reply:
    """The wall clock in microseconds; the zone is UTC."""
    seconds, rest = divmod(_wall_ns(request), _SECOND_NS)
    outputs = {}
    if not request.is_null("time"):
        fields = {"seconds": seconds, "microseconds": rest // 1000}
        outputs["time"] = _pack(request.process.system.layouts.timeval, fields)
    if not request.is_null("zone"):
        outputs["zone"] = bytes(8)
    return Reply(0, outputs)


def time(request: Request) -> Reply:
    """The wall clock in seconds."""
    seconds = _wall_ns(request) // _SECOND_NS
    size = request.process.system.layouts.word_bytes
    if seconds >> 8 * size - 1:
        raise CallError(Errno.EOVERFLOW)
    return Reply(seconds, {} if request.is_null("seconds") else {"seconds": seconds.to_bytes(size, "little")})


def nanosleep(request: Request) -> Steps[Reply]:
    """Sleep for a time in words."""
    layout = request.process.system.layouts.timespec
    return _sleep(request, request.now_ns + _duration(request.structure("time", layout)), layout)


def clock_nanosleep(request: Request) -> Steps[Reply]:
    """Sleep on a clock, for a time or until one, in words."""
    return _clock_sleep(request, request.process.system.layouts.timespec)


def clock_nanosleep64(request: Request) -> Steps[Reply]:
    """Sleep on a clock with 64 bits on a 32-bit architecture."""
    return _clock_sleep(request, TIMESPEC64)


def poll(request: Request) -> Steps[Reply]:
    """Wait for files, at most a number of milliseconds; a negative one is for ever."""
    milliseconds = request.signed("timeout_ms")
    return _poll(request, None if milliseconds < 0 else request.now_ns + milliseconds * 1_000_000)


def ppoll(request: Request) -> Steps[Reply]:
    """As poll, with a time in a structure; a signal mask is taken for one that blocks nothing."""
    return _poll(request, _timeout(request))


def select(request: Request) -> Steps[Reply]:
    """Wait for files in sets of 1024 bits at most; the time is not written back."""
    count = request.signed("nfds")
    if count < 0:
        raise CallError(Errno.EINVAL)
    count = min(count, 8 * FD_SET.size)
    deadline = _timeout(request)
    names = [name for name in ("read_set", "write_set", "except_set") if not request.is_null(name)]
    asked = {name: int.from_bytes(request.data(name), "little") & ((1 << count) - 1) for name in names}
    while True:
        ready = {name: _ready_set(request, bits, _READY_OF[name]) for name, bits in asked.items()}
        total = sum(bits.bit_count() for bits in ready.values())
        if total or (deadline is not None and request.now_ns >= deadline):
            return Reply(total, {name: _merge(request, count, bits) for name, bits in ready.items()})
        yield from _wait(request, deadline)


def has_mask(request: Request) -> bool:
    """Whether a call waits with a signal mask of its own; what that blocks is not known here."""
    return request.plan.name in _MASKED and not (request.has("mask") and request.is_null("mask"))


_MASKED = frozenset({"ppoll", "ppoll_time64", "pselect6", "pselect6_time64"})

_READY_OF: dict[str, Callable[[Node], bool]] = {
    "read_set": lambda node: node.readable(),
    "write_set": lambda node: node.writable(),
    "except_set": lambda _: False,
}


def _ready_set(request: Request, bits: int, is_ready: Callable[[Node], bool]) -> int:
    """Return those descriptors of a set that are ready.

    Raises:
        CallError: EBADF: one of them is not open.
    """
    ready = 0
    files = request.process.files
    while bits:
        fd = (bits & -bits).bit_length() - 1
        bits &= bits - 1
        ready |= is_ready(files.get(fd).node) << fd
    return ready


def _merge(request: Request, count: int, bits: int) -> bytes:
    """Return a set as it is written back: whole words up to the highest descriptor."""
    word_bits = 8 * request.process.system.layouts.word_bytes
    return bits.to_bytes(FD_SET.size, "little")[: -(-count // word_bits) * word_bits // 8]


def _poll(request: Request, deadline: int | None) -> Steps[Reply]:
    count = request.word("nfds")
    if count > MAX_FILES:
        raise CallError(Errno.EINVAL)
    data = request.data("fds") if count else memoryview(b"")
    if len(data) < count * POLL.size:
        raise CallError(Errno.EFAULT)
    entries = [POLL.unpack(data[at : at + POLL.size]) for at in range(0, count * POLL.size, POLL.size)]
    while True:
        for entry in entries:
            entry["revents"] = _events(request, entry["fd"], entry["events"])
        ready = sum(entry["revents"] != 0 for entry in entries)
        if ready or (deadline is not None and request.now_ns >= deadline):
            return Reply(ready, {"fds": b"".join([POLL.pack(entry) for entry in entries])})
        yield from _wait(request, deadline)


def _events(request: Request, fd: int, events: int) -> int:
    """Return what has happened of what one entry of poll asks for."""
    if fd < 0:
        return 0
    files = request.process.files
    if fd not in files:
        return _POLLNVAL
    node = files.get(fd).node
    return events & ((_POLLIN if node.readable() else 0) | (_POLLOUT if node.writable() else 0))


def _wait(request: Request, deadline: int | None) -> Steps[None]:
    """Wait until something may have changed; only terminals ever change."""
    outcome = yield TerminalChange(deadline)
    request.now_ns = outcome.now_ns


def _timeout(request: Request) -> int | None:
    """Return the deadline that a structure tells, whichever the architecture's call has; None without one."""
    layouts = request.process.system.layouts
    for name, layout in (("timeout64", TIMESPEC64), ("timespec", layouts.timespec), ("timeval", layouts.timeval)):
        if request.has(name) and not request.is_null(name):
            fields = request.structure(name, layout)
            if "microseconds" in fields:
                fields["nanoseconds"] = fields["microseconds"] * 1000
            return request.now_ns + _duration(fields)
    return None


def _clock_sleep(request: Request, layout: Layout) -> Steps[Reply]:
    clock = request.signed("clock")
    if clock not in _SLEEPING_CLOCKS:
        raise CallError(Errno.EOPNOTSUPP if clock in _WALL_CLOCKS | _MACHINE_CLOCKS else Errno.EINVAL)
    time_ns = _duration(request.structure("time", layout))
    if not request.unsigned("flags") & _TIMER_ABSTIME:
        return _sleep(request, request.now_ns + time_ns, layout)
    return _sleep_until(time_ns - (request.process.system.parts.wall_ns if clock in _WALL_CLOCKS else 0))


def _sleep(request: Request, deadline_ns: int, layout: Layout) -> Steps[Reply]:
    """Sleep; interrupted, tell how much of the time is left (nanosleep(2))."""
    try:
        return (yield from _sleep_until(deadline_ns))
    except InterruptedWaitError as signal:
        if request.is_null("left"):
            raise
        seconds, nanoseconds = divmod(max(deadline_ns - signal.now_ns, 0), _SECOND_NS)
        return Reply(-signal.errno, {"left": _pack(layout, {"seconds": seconds, "nanoseconds": nanoseconds})})


def _sleep_until(deadline_ns: int) -> Steps[Reply]:
    yield Deadline(deadline_ns)
    return Reply()


def _duration(fields: dict[str, int]) -> int:
    """Return a time in nanoseconds, not more than can ever pass.

    Raises:
        CallError: EINVAL: it is negative, or its nanoseconds are a second or more.
    """
    seconds, nanoseconds = fields["seconds"], fields["nanoseconds"]
    if seconds < 0 or not 0 <= nanoseconds < _SECOND_NS:
        raise CallError(Errno.EINVAL)
    return min(seconds * _SECOND_NS + nanoseconds, _LONGEST_NS)


def _wall_ns(request: Request) -> int:
    return request.process.system.parts.wall_ns + request.now_ns


def _time_reply(request: Request, layout: Layout) -> Reply:
    clock = request.signed("clock")
    if clock in _WALL_CLOCKS:
        now_ns = _wall_ns(request)
    elif clock in _MACHINE_CLOCKS:
        now_ns = request.now_ns
    else:
        raise CallError(Errno.EINVAL)
    seconds, nanoseconds = divmod(now_ns, _SECOND_NS)
    return Reply(0, {"time": _pack(layout, {"seconds": seconds, "nanoseconds": nanoseconds})})


def _resolution_reply(request: Request, layout: Layout) -> Reply:
    if request.signed("clock") not in _WALL_CLOCKS | _MACHINE_CLOCKS:
        raise CallError(Errno.EINVAL)
    return Reply(0, {} if request.is_null("time") else {"time": layout.pack({"nanoseconds": 1})})


def _pack(layout: Layout, fields: dict[str, int]) -> bytes:
    try:
        return layout.pack(fields)
    except OverflowError:
        raise CallError(Errno.EOVERFLOW) from None
