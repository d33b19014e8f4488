"""System calls about the process itself and the system (exit(2), uname(2), sigaction(2), getrlimit(2) ...)."""

from __future__ import annotations

from collections.abc import Callable

from iovirt_dist.abi import linux_codes as codes
from iovirt_dist.abi.layouts import RLIMIT64, USER_DESCRIPTOR, UTSNAME
from iovirt_dist.abi.linux_i386 import TLS_ENTRY
from iovirt_dist.hypervisor.linux.entropy import gather
from iovirt_dist.hypervisor.linux.errno import CallError, Errno
from iovirt_dist.hypervisor.linux.process import MAX_FILES, SIG_IGNORE, Process
from iovirt_dist.hypervisor.linux.request import Reply, Request
from iovirt_dist.hypervisor.linux.waits import Steps
from iovirt_dist.wire.syscall_messages import EffectKind

RELEASE = b"6.1.0"
"""A C library refuses to run where the kernel is older than it was built for; this is Debian 12's."""
_INFINITY = (1 << 64) - 1
_RLIMIT_STACK, _RLIMIT_NOFILE, _RLIMIT_LAST = 3, 7, 15
_STACK_BYTES = 1 << 20
_LAST_SIGNAL = 64
_SIGKILL, _SIGSTOP = 9, 19
_SIG_BLOCK, _SIG_UNBLOCK, _SIG_SETMASK = 0, 1, 2
_SS_DISABLE = 2
_NAME_BYTES = 15
_FUTEX_WAIT, _FUTEX_WAKE, _FUTEX_COMMAND = 0, 1, 0x7F
_FUTEX_WAIT_BITSET, _FUTEX_WAKE_BITSET = 9, 10
_GRND_NONBLOCK, _GRND_RANDOM, _GRND_INSECURE = 1, 2, 4


def constant(value: int) -> Callable[[Request], Reply]:
    """Return the routine of a call that always has this result."""
    reply = Reply(value)

    def routine(_: Request) -> Reply:
        return reply

    return routine


def exit_process(request: Request) -> Reply:
    """Exit and exit_group: the one thread ends with its process."""
    return Reply(request.unsigned("status") & 0xFF, ends=True)


def kill(request: Request) -> Reply:
    """Kill, tkill, tgkill: a signal to the process itself; there is no other.

    It ends the process where that is what the signal does, or waits while it is blocked. Handlers are never called.
    """
    process, signal = request.process, request.signed("signal")
    if not 0 <= signal <= _LAST_SIGNAL:
        raise CallError(Errno.EINVAL)
    _check_own(request, process.pid)
    if signal:
        process.pending.add(signal)
    return _delivered(process, Reply())


def rt_sigaction(request: Request) -> Reply:
    """Remember what the process wants done with a signal; tell what it wanted before."""
    process, signal = request.process, request.signed("signal")
    if request.word("size") != 8 or not 1 <= signal <= _LAST_SIGNAL:
        raise CallError(Errno.EINVAL)
    changes = not request.is_null("new")
    if changes and signal in (_SIGKILL, _SIGSTOP):
        raise CallError(Errno.EINVAL)
    old = process.actions.get(signal, bytes(process.system.layouts.sigaction.size))
    if changes:
        process.actions[signal] = bytes(request.data("new"))
        if process.handler(signal) == SIG_IGNORE:
            process.pending.discard(signal)
    return _with_old(request, old)


def rt_sigprocmask(request: Request) -> Reply:
    """Change which signals are blocked; one that was waiting for it may end the process."""
    process = request.process
    if request.word("size") != 8:
        raise CallError(Errno.EINVAL)
    old = process.blocked
    if not request.is_null("new"):
        mask, now = int.from_bytes(request.data("new"), "little"), int.from_bytes(old, "little")
        changed = {_SIG_BLOCK: now | mask, _SIG_UNBLOCK: now & ~mask, _SIG_SETMASK: mask}.get(request.signed("how"))
        if changed is None:
            raise CallError(Errno.EINVAL)
        process.blocked = (changed & ~(1 << _SIGKILL - 1 | 1 << _SIGSTOP - 1)).to_bytes(8, "little")
    return _delivered(process, _with_old(request, old))


def sigaltstack(request: Request) -> Reply:
    """A stack for handlers is accepted and never used."""
    if not request.is_null("new"):
        request.data("new")
    return _with_old(request, request.process.system.layouts.stack.pack({"flags": _SS_DISABLE}))


def set_tid_address(request: Request) -> Reply:
    """Nobody waits for the thread's end; returns its number."""
    return Reply(request.process.pid)


def set_robust_list(request: Request) -> Reply:
    """The list would be walked if a thread died; it has three words (include/uapi/linux/futex.h)."""
    if request.word("length") != 3 * request.process.system.layouts.word_bytes:
        raise CallError(Errno.EINVAL)
    return Reply()


def getgroups(request: Request) -> Reply:
    """There are none besides the process's own."""
    if request.signed("count") < 0:
        raise CallError(Errno.EINVAL)
    return Reply()


def getpgid(request: Request) -> Reply:
    """Group and session of the process itself, which have its number."""
    pid = request.process.pid
    if request.signed("pid") not in (0, pid):
        raise CallError(Errno.ESRCH)
    return Reply(pid)


def futex(request: Request) -> Reply:
    """With one thread nobody waits and nobody would wake: a wait says that the value has changed (futex(2))."""
    command = request.unsigned("operation") & _FUTEX_COMMAND
    if command in (_FUTEX_WAKE, _FUTEX_WAKE_BITSET):
        return Reply()
    raise CallError(Errno.EAGAIN if command in (_FUTEX_WAIT, _FUTEX_WAIT_BITSET) else Errno.ENOSYS)


def no_rseq(_: Request) -> Reply:
    """There is one CPU; a C library that is told that there are no restartable sequences does without.

    Raises:
        CallError: ENOSYS, always, as from a kernel without CONFIG_RSEQ.
    """
    raise CallError(Errno.ENOSYS)


def own_number(request: Request) -> Reply:
    """Process numbers: process, thread and group are the same."""
    return Reply(request.process.pid)


def prlimit64(request: Request) -> Reply:
    """Tell limits; they can only be set to what they are or less, which has no effect."""
    if request.signed("pid") not in (0, request.process.pid):
        raise CallError(Errno.ESRCH)
    limit = _limit(request)
    if not request.is_null("new"):
        wanted = request.structure("new", RLIMIT64)
        if wanted["current"] > wanted["maximum"]:
            raise CallError(Errno.EINVAL)
        if wanted["maximum"] > limit:
            raise CallError(Errno.EPERM)
    return _with_old(request, RLIMIT64.pack({"current": limit, "maximum": limit}))


def getrlimit(request: Request) -> Reply:
    """Tell limits in words; what does not fit is infinite."""
    layouts = request.process.system.layouts
    limit = min(_limit(request), (1 << 8 * layouts.word_bytes) - 1)
    return Reply(0, {"old": layouts.rlimit.pack({"current": limit, "maximum": limit})})


def prctl(request: Request) -> Reply:
    """The name of the thread; nothing else."""
    option = request.signed("option")
    process = request.process
    if option == codes.PR_GET_NAME:
        return Reply(0, {"argument": process.thread_name.ljust(_NAME_BYTES + 1, b"\0")})
    if option == codes.PR_SET_NAME:
        process.thread_name = bytes(request.data("argument")[:_NAME_BYTES])
        return Reply()
    raise CallError(Errno.EINVAL)


def uname(request: Request) -> Reply:
    """Names of system and machine."""
    parts = request.process.system.parts
    names = {
        "system": b"Linux",
        "node": parts.node.encode()[:64],
        "release": RELEASE,
        "version": b"#1 iovirt-dist",
        "hardware": parts.layouts.hardware.encode(),
        "domain": b"(none)",
    }
    return Reply(0, {"names": UTSNAME.pack(names)})


def sysinfo(request: Request) -> Reply:
    """Uptime and memory."""
    system = request.process.system
    total = system.parts.memory_bytes
    fields = {
        "uptime": request.now_ns // 1_000_000_000 & 0x7FFF_FFFF,
        "total": min(total, 0xFFFF_F000),
        "free": max(0, min(total - request.process.memory.used_bytes, 0xFFFF_F000)),
        "processes": 1,
        "unit": 1,
    }
    return Reply(0, {"information": system.layouts.sysinfo.pack(fields)})


def getrandom(request: Request) -> Steps[Reply]:
    """Random bytes from the entropy source; without one there are never enough (getrandom(2))."""
    if request.unsigned("flags") & ~(_GRND_NONBLOCK | _GRND_RANDOM | _GRND_INSECURE):
        raise CallError(Errno.EINVAL)
    room = request.room("buffer")
    if not request.process.system.parts.entropy:
        raise CallError(Errno.EAGAIN if request.unsigned("flags") & _GRND_NONBLOCK else Errno.ENOSYS)
    data = yield from gather(room)
    if room:
        request.process.system.observe(request.process.number, "/dev/random", 0, len(data), "read")
    return Reply(len(data), {"buffer": data})


def arch_prctl(request: Request) -> Reply:
    """The FS base of x86-64; GS is nobody's."""
    process, code = request.process, request.unsigned("code")
    if code == codes.ARCH_SET_FS:
        address = request.word("address")
        if address >> 47:
            raise CallError(Errno.EPERM)
        process.thread_pointer = address
        return Reply(0, effects=((EffectKind.THREAD_POINTER, address, 0, 0),))
    if code == codes.ARCH_GET_FS:
        return Reply(0, {"address": process.thread_pointer.to_bytes(8, "little")})
    raise CallError(Errno.EINVAL)


def set_thread_area(request: Request) -> Reply:
    """The segment of thread-local storage of i386: one entry, which the caller may leave to us (set_thread_area(2))."""
    descriptor = request.structure("descriptor", USER_DESCRIPTOR)
    if descriptor["entry"] not in (TLS_ENTRY, 0xFFFF_FFFF):
        raise CallError(Errno.EINVAL if not TLS_ENTRY < descriptor["entry"] < TLS_ENTRY + 3 else Errno.ESRCH)
    request.process.thread_pointer = descriptor["base"]
    filled = USER_DESCRIPTOR.pack({**descriptor, "entry": TLS_ENTRY})
    effects = ((EffectKind.THREAD_POINTER, descriptor["base"], 0, 0),)
    return Reply(0, {"descriptor": filled}, effects)


def _check_own(request: Request, pid: int) -> None:
    """Check that a signal is for the process itself: with kill also for its group, or for everybody.

    Raises:
        CallError: ESRCH, or EINVAL for a thread that cannot be.
    """
    if not request.has("tid"):
        if request.signed("pid") not in (pid, 0, -pid, -1):
            raise CallError(Errno.ESRCH)
        return
    ids = [request.signed(name) for name in ("pid", "tid") if request.has(name)]
    if min(ids) <= 0:
        raise CallError(Errno.EINVAL)
    if ids.count(pid) != len(ids):
        raise CallError(Errno.ESRCH)


def _delivered(process: Process, reply: Reply) -> Reply:
    """Return a call's reply, or the process's end if a signal that is not blocked ends it."""
    signal = process.take_signals()
    return Reply(-signal, ends=True) if signal else reply


def _with_old(request: Request, old: bytes) -> Reply:
    """Return success, with the old setting where the caller wants it."""
    return Reply() if request.is_null("old") else Reply(0, {"old": old})


def _limit(request: Request) -> int:
    resource = request.unsigned("resource")
    if resource > _RLIMIT_LAST:
        raise CallError(Errno.EINVAL)
    return {_RLIMIT_STACK: _STACK_BYTES, _RLIMIT_NOFILE: MAX_FILES}.get(resource, _INFINITY)
