"""What the x86 and the RISC-V engine share: physical memory, I/O ranges, starting, stopping and kicking Unicorn.

Theory of operation. Unicorn (2.1) executes guest code inside `emu_start` without holding the interpreter lock, and
calls hooks in the same thread. A subclass installs its hooks, turns what they see into one `Stop` (`_stop_with`), and
starts the guest with `_execute`. Four properties of Unicorn shape this module:

- *A stop request is lost at the door.* `emu_start` clears the request that `emu_stop` set. `kick` therefore keeps its
  own flag, which `_execute` looks at before the start, and the request is repeated until the vCPU thread has either
  left `emu_start` or shown, by calling any hook, that it is inside. Only then can no request be lost any more. The
  first attempt is the caller's, all others are made by the thread of `Alarm`, so that `kick` never waits. A lock keeps
  a late request from stopping the following run, where it would look like HLT or WFI.
- *A stop request does not stop the instruction.* More of the translated block runs: how much, and whether instructions
  stay whole, is told in `whole_blocks`. When the instruction must not complete (refused, or the bus closed)
  `_squashing` makes every further hook of the block answer without calling out; how memory and registers are
  protected is the architecture's business (`_refuse`).
- *Exceptions do not cross C frames.* Callbacks catch everything; `_execute` raises it again.
- *The end address stops the guest.* Exit addresses are switched on with an empty set, so that no address is special.

RAM is anonymous private memory mapped into Unicorn: reads are slices of it; writes are copies, after which the code
translated from the written bytes is discarded (`memory`, `translations`).
"""

from __future__ import annotations

import ctypes
import mmap
import queue
import threading
import time
import weakref
from typing import Any, NamedTuple

from unicorn.unicorn_const import UC_HOOK_MEM_WRITE_PROT, UC_PROT_ALL, UC_PROT_EXEC, UC_PROT_READ
from unicorn.unicorn_py3 import Uc, UcError

from iovirt_dist.errors import GuestFault, LocalError
from iovirt_dist.guest.engine import Callbacks, Stop
from iovirt_dist.guest.unicorn.memory import UnicornMemory
from iovirt_dist.guest.unicorn.translations import Translations

PAGE_BYTES = 4096
_SPINS_BEFORE_SLEEP = 50
_KICK_INTERVAL_S = 50e-6
_SHORTEST_SLEEP_US = 50  # waking the alarm's thread takes about as long


class Region(NamedTuple):
    """One mapped physical range, `start` inclusive to `end` exclusive, with its host memory."""

    start: int
    end: int
    memory: mmap.mmap
    writable: bool


class Order(NamedTuple):
    """End run number `run` at `due_s` of the monotonic clock."""

    run: int
    due_s: float


class Alarm:
    """Ends runs, after a time or without delay, from a thread of its own that starts with the first use.

    Unicorn's own time-out is not used: it creates a thread per start, and its stop request is lost when that thread is
    faster than the entry of the emulator; the guest then runs for ever.

    Args:
        engine: Whose runs to end; the thread ends when the engine is collected.
    """

    def __init__(self, engine: UnicornEngine) -> None:
        self._engine = weakref.ref(engine)
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def set(self, run: int, delay_us: int) -> None:
        """End run number `run` in `delay_us` microseconds unless it ends by itself; from the vCPU thread only."""
        self._give(Order(run, time.monotonic() + (delay_us * 1e-6 if delay_us >= _SHORTEST_SLEEP_US else 0)))

    def end_now(self, run: int) -> None:
        """End run number `run` as soon as it can be done; from any thread, without waiting for it."""
        self._give(Order(run, 0))

    def _give(self, order: Order) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=_ring, args=(self._engine, self._orders), daemon=True)
                self._thread.start()
                weakref.finalize(self, self._orders.put, Order(0, 0))
        self._orders.put(order)


def _ring(engine_of: weakref.ref[UnicornEngine], orders: queue.SimpleQueue[Order]) -> None:
    """Body of the alarm's thread; one time slice is waited for at most, because a new one says that the old is over."""
    slice_end: Order | None = None
    while True:
        try:
            order = orders.get(timeout=None if slice_end is None else max(0, slice_end.due_s - time.monotonic()))
        except queue.Empty:
            assert slice_end is not None
            order, slice_end = slice_end, None
        if order.due_s > time.monotonic():
            slice_end = order
            continue
        engine = engine_of()
        if engine is None:
            return
        engine._end_run(order.run)
        del engine


class UnicornEngine:
    """One Unicorn instance with physical memory; the base of the architectures' engines.

    Args:
        architecture: ``UC_ARCH_*``.
        mode: ``UC_MODE_*``.
        callbacks: What to call for I/O; each may raise `GuestFault` or `BusClosedError`.
        cpu_model: ``UC_CPU_*``; None for Unicorn's default.

    Attributes:
        uc: Unicorn's own object.
        memory: RAM as devices see it.
    """

    def __init__(self, architecture: int, mode: int, callbacks: Callbacks, cpu_model: int | None = None) -> None:
        self.uc: Any = Uc(architecture, mode)  # Any: most of the binding's methods carry no types
        if cpu_model is not None:
            self.uc.ctl_set_cpu_model(cpu_model)
        self.uc.ctl_exits_enabled(True)
        self.memory = UnicornMemory(Translations(self.uc, architecture))
        self._callbacks = callbacks
        self._regions: list[Region] = []
        self._stop: Stop | None = None
        self._error: BaseException | None = None
        self._squashing = False
        self._kicked = False
        self._lock = threading.Lock()
        self._running = False
        self._run_number = 0
        self._elapsed = False
        self._alarm = Alarm(self)
        self._inside = False
        self.uc.hook_add(UC_HOOK_MEM_WRITE_PROT, self._on_rom_write)

    # Physical memory

    def map_ram(self, address: int, size: int) -> None:
        """Back a page-aligned physical range with zeroed RAM.

        Raises:
            LocalError: The range is not page-aligned, empty, or overlaps another.
        """
        self._map(address, size, writable=True)

    def map_rom(self, address: int, data: bytes) -> None:
        """Back a page-aligned physical range with read-only data; guest writes to it are ignored.

        Raises:
            LocalError: As in `map_ram`.
        """
        memory = self._map(address, len(data), writable=False)
        memory[:] = data

    def map_io(self, address: int, size: int) -> None:
        """Send loads and stores of a page-aligned physical range to the callbacks `load` and `store`."""

        def load(_uc: object, offset: int, width: int, _data: object) -> int:
            return self._load(address + offset, width)

        def store(_uc: object, offset: int, width: int, value: int, _data: object) -> None:
            self._store(address + offset, width, value)

        self.uc.mmio_map(address, size, load, None, store, None)

    def map_io_gaps(self, limit: int) -> None:
        """Call `map_io` for everything below `limit` that is neither RAM nor ROM."""
        start = 0
        for region in sorted(self._regions):
            if start < region.start:
                self.map_io(start, region.start - start)
            start = region.end
        if start < limit:
            self.map_io(start, limit - start)

    def clear_ram(self) -> None:
        """Zero all RAM and forget all translated code, as at power-on."""
        for region in self._regions:
            if region.writable:
                region.memory.madvise(mmap.MADV_DONTNEED)
        self.uc.ctl_flush_tb()

    def is_ram(self, address: int, length: int) -> bool:
        """Whether the whole physical range lies in one RAM region."""
        region = self._region(address, length)
        return region is not None and region.writable

    def read_memory(self, address: int, length: int) -> bytes:
        """Read physical RAM or ROM.

        Raises:
            LocalError: The range is not inside one mapped region.
        """
        region = self._region(address, length)
        if region is None:
            raise LocalError(f"{length} bytes at {address:#x} are not guest memory")
        offset = address - region.start
        return region.memory[offset : offset + length]

    def write_memory(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Write physical RAM and discard code translated from it.

        Raises:
            LocalError: The range is not inside one region of RAM.
        """
        self.memory.write(address, data)

    def _map(self, address: int, size: int, *, writable: bool) -> mmap.mmap:
        end = address + size
        if size <= 0 or address % PAGE_BYTES or size % PAGE_BYTES:
            raise LocalError(f"memory range {address:#x}..{end:#x} is empty or not page-aligned")
        for other in self._regions:
            if address < other.end and other.start < end:
                raise LocalError(f"memory range {address:#x}..{end:#x} overlaps {other.start:#x}..{other.end:#x}")
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        pointer = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self.uc.mem_map_ptr(address, size, UC_PROT_ALL, pointer)
        if not writable:  # only mem_protect makes Unicorn discard the guest's writes
            self.uc.mem_protect(address, size, UC_PROT_READ | UC_PROT_EXEC)
        self._regions.append(Region(address, end, memory, writable))
        if writable:
            self.memory.add(address, memory)
        return memory

    def _region(self, address: int, length: int) -> Region | None:
        for region in self._regions:
            if region.start <= address and address + length <= region.end:
                return region
        return None

    # Running and kicking

    def kick(self) -> None:
        """Make `run` return with KICKED soon; sticky until a `run` has returned so.

        From any thread, the vCPU's own inside a callback included; waits for nothing.
        """
        self._kicked = True
        run = self._run_number
        if not self._request_stop(run):
            self._alarm.end_now(run)

    def _request_stop(self, run: int) -> bool:
        """Ask Unicorn to stop run number `run`; return False if the request may have been lost."""
        with self._lock:
            if not self._running or self._run_number != run:
                return True
            self._elapsed = True
            inside = self._inside
            self.uc.emu_stop()
        return inside

    def _end_run(self, run: int) -> None:
        """Repeat the stop request until run number `run` has ended or cannot miss it."""
        attempts = 0
        while not self._request_stop(run):
            attempts += 1
            time.sleep(0 if attempts < _SPINS_BEFORE_SLEEP else _KICK_INTERVAL_S)

    def _execute(self, pc: int, timeout_us: int = 0) -> int:
        """Run from `pc` until something stops the guest, and return Unicorn's error number (0 for none).

        Returns at once when a kick is pending. `timeout_us` of 0 is for ever. When the run was asked to end, because
        the time is up or by a kick, `_elapsed` is set: it is not HLT or WFI that ended it. (That `_kicked` is set does
        not say so: a kick may end the run behind the one that has reported it.)

        Raises:
            BaseException: Whatever a callback raised, `GuestFault` excepted.
        """
        self._stop = None
        self._squashing = False
        self._inside = False
        self._elapsed = False
        self._run_number += 1
        self._running = True
        status = 0
        try:
            if not self._kicked:
                if timeout_us:
                    self._alarm.set(self._run_number, timeout_us)
                self.uc.emu_start(pc, 0)
        except UcError as error:
            status = error.errno
        finally:
            with self._lock:  # a stop request in another thread must not reach the next run
                self._running = False
        failure, self._error = self._error, None
        if failure is not None:
            raise failure
        return status

    def _stop_with(self, stop: Stop) -> None:
        """Called from a hook: leave the emulator as soon as it can and report `stop`; the first report counts."""
        if self._stop is None:
            self._stop = stop
        self.uc.emu_stop()

    def _abandon(self, error: BaseException) -> None:
        """Called from a hook: leave the emulator and raise `error` from `_execute`; the guest is not to be resumed."""
        if self._error is None:
            self._error = error
        self._squashing = True
        self.uc.emu_stop()

    def _refuse(self, fault: GuestFault) -> None:
        """Called from a hook: undo the instruction that asked, stop, and report REFUSED. The architecture's task."""
        raise NotImplementedError

    # Memory-mapped I/O

    def _load(self, address: int, width: int) -> int:
        self._inside = True
        if self._squashing:
            return 0
        try:
            return self._callbacks.load(address, width)
        except GuestFault as fault:
            self._refuse(fault)
        except BaseException as error:  # raised again by _execute; it cannot cross C frames
            self._abandon(error)
        return 0

    def _store(self, address: int, width: int, value: int) -> None:
        self._inside = True
        if self._squashing:
            return
        try:
            self._callbacks.store(address, width, value)
        except GuestFault as fault:
            self._refuse(fault)
        except BaseException as error:  # raised again by _execute; it cannot cross C frames
            self._abandon(error)

    def _on_rom_write(self, _uc: object, _access: int, _address: int, _width: int, _value: int, _data: object) -> bool:
        """Let a write to ROM pass: Unicorn discards it because the region is read-only."""
        self._inside = True
        return True
