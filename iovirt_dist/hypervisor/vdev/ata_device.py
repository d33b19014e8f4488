"""An ATA disk: the commands and transfers behind the registers of `ata.AtaChannel`, PIO only.

Theory of operation. A command moves the device through the phases of `ata_protocol.TRANSITIONS`. A READ of n sectors
is one request to the backend (of at most 4 MiB; a longer one goes chunk by chunk), out of which the host takes DRQ
blocks without further delay. A WRITE is gathered first and becomes one request too, and BSY stays until it has
completed: the last interrupt of a command means that its data is on stable storage. Rejected: a request per DRQ
block, which costs a round trip to the controller for each 512 bytes and gives nothing, as a host cannot tell when the
blocks before the last one are stable.

When a READ fails on the medium it is repeated block by block, so that the host gets what precedes the bad sector and
the address registers name it. A reset forgets the request in flight: its completion is stale and ignored, though a
WRITE may have reached the medium, as with a real disk. A restored device submits the request in flight once more.

Sections are those of ATA/ATAPI-6 (T13 1410D).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass

from iovirt_dist.drivers.backend import DiskBackend, DiskRequest
from iovirt_dist.hypervisor.vdev.ata_identify import (
    SECTOR_BYTES,
    DiskFacts,
    identify_data,
)
from iovirt_dist.hypervisor.vdev.ata_protocol import (
    ABRT,
    ERR,
    IDNF,
    PASSED,
    READ_ERRORS,
    STATUS,
    TRANSITIONS,
    WRITE_ERRORS,
    Event,
    Phase,
)
from iovirt_dist.hypervisor.vdev.ata_settings import AtaSettings
from iovirt_dist.hypervisor.vdev.ata_taskfile import ABORTED, COMMANDS, DEVICE_LBA, CommandSpec, Kind, TaskFile
from iovirt_dist.hypervisor.vdev.device import State
from iovirt_dist.wire.commands import MAX_DATA_BYTES, Opcode, Status

_MAX_CHUNK_SECTORS = MAX_DATA_BYTES // SECTOR_BYTES
_NOTHING = memoryview(b"")


@dataclass(slots=True)
class _Transfer:
    """A READ, WRITE or VERIFY under way; all in sectors.

    Attributes:
        code: The command.
        first: First sector of the current chunk.
        left: Sectors from there to the end of the command.
        block: Sectors per DRQ block.
        limit: Most sectors per chunk.
        chunk: Sectors of the current chunk: what one backend request moves.
    """

    code: int
    first: int
    left: int
    block: int
    limit: int
    chunk: int = 0


class AtaDevice:
    """Device 0 of a channel.

    Args:
        disk: What it stores its sectors on.
        task: The channel's task file, from which commands take their operands.
        drive: Called when `intrq` changed.

    Attributes:
        phase: What the device is doing.
        status: The Status register.
        error: The Error register.
        intrq: Interrupt pending (section 5.2.9), before nIEN and device selection.
    """

    def __init__(self, disk: DiskBackend, task: TaskFile, drive: Callable[[], None]) -> None:
        self._disk = disk
        self._task = task
        self._drive = drive
        self._total_sectors = min(disk.size_bytes // SECTOR_BYTES, (1 << 48) - 1)
        self.phase = Phase.IDLE
        self.status, self.error, self._flags = STATUS[Phase.IDLE], PASSED, 0
        self.intrq = False
        self._settings = AtaSettings(self._total_sectors)
        self._standby = False
        self._transfer: _Transfer | None = None
        self._buffer = _NOTHING
        self._at = self._end = 0
        self._next_tag = 1
        self._request: DiskRequest | None = None
        self._execute = {
            Kind.READ: self._start_transfer,
            Kind.WRITE: self._start_transfer,
            Kind.VERIFY: self._start_transfer,
            Kind.SEEK: self._seek,
            Kind.FLUSH: self._flush,
            Kind.IDENTIFY: self._identify,
            Kind.DIAGNOSE: self._diagnose,
            Kind.SET_MULTIPLE: self._set,
            Kind.SET_FEATURES: self._set,
            Kind.SET_GEOMETRY: self._set,
            Kind.RECALIBRATE: self._succeed,
            Kind.IDLE: self._change_power,
            Kind.STANDBY: self._change_power,
            Kind.SLEEP: self._sleep,
            Kind.CHECK_POWER: self._check_power,
            Kind.ABORT: self._abort,
        }

    def take(self, length: int) -> bytes:
        """Read bytes (a whole number of words) from the data port."""
        parts: list[bytes | memoryview] = []
        while length and self.phase is Phase.DATA_IN:
            end = min(self._at + length, self._end)
            parts.append(self._buffer[self._at : end])
            length -= end - self._at
            self._at = end
            if end == self._end:
                self._block_moved()
        if length:
            parts.append(b"\xff" * length)
        return b"".join(parts)

    def peek(self, width: int) -> bytes:
        """What `take` would return next, in elements of `width` bytes, without the last of the DRQ block."""
        if self.phase is not Phase.DATA_IN:
            return b""
        return bytes(self._buffer[self._at : self._at + (self._end - self._at - 1) // width * width])

    def put(self, data: bytes | bytearray | memoryview) -> None:
        """Write bytes (a whole number of words) to the data port; what no block takes is dropped."""
        view, taken = memoryview(data), 0
        while taken < len(view) and self.phase is Phase.DATA_OUT:
            end = min(self._at + len(view) - taken, self._end)
            moved = end - self._at
            self._buffer[self._at : end] = view[taken : taken + moved]
            taken += moved
            self._at = end
            if end == self._end:
                self._block_moved()

    def acknowledge(self) -> None:
        """The host read Status (clause 7)."""
        if self.intrq:
            self._set_intrq(False)

    def assert_reset(self) -> None:
        """SRST was set: leave everything (section 9.3)."""
        self._forget()
        self._flags = 0
        self._set_intrq(False)
        self._go(Event.RESET_ASSERTED)

    def release_reset(self) -> None:
        """SRST was cleared: signature, diagnostic code, and default settings unless the host keeps them."""
        self._settings.software_reset()
        self._standby = False
        self._task.sign()
        self.error = PASSED
        self._go(Event.RESET_RELEASED)

    def _go(self, event: Event) -> None:
        """Move by the table."""
        self.phase, interrupts = TRANSITIONS[self.phase, event]
        self.status = STATUS[self.phase] | self._flags
        if interrupts:
            self._set_intrq(True)

    def _set_intrq(self, pending: bool) -> None:
        """Change the pending interrupt and tell the channel."""
        self.intrq = pending
        self._drive()

    def _forget(self) -> None:
        """Leave the command under way; a completion that still comes is stale."""
        self._transfer = self._request = None
        self._buffer = _NOTHING
        self._at = self._end = 0

    def _fail(self, error: int, flags: int = 0) -> None:
        """End the command with ERR."""
        self._forget()
        self.error, self._flags = error, ERR | flags
        self._go(Event.FAILED)

    # -- commands ----------------------------------------------------------------------------------------------------

    def command(self, code: int) -> None:
        """The Command register was written; ignored unless the device is idle."""
        if self.phase is not Phase.IDLE:
            return
        if self.intrq:
            self._set_intrq(False)
        self.error = self._flags = 0
        self._execute[COMMANDS.get(code, ABORTED).kind](code)

    def _succeed(self, _code: int) -> None:
        self._go(Event.DONE)

    def _abort(self, _code: int) -> None:
        self._fail(ABRT)

    def _start_transfer(self, code: int) -> None:
        """READ, WRITE and VERIFY: check, then start with the first chunk."""
        spec = COMMANDS[code]
        writes_protected = spec.kind is Kind.WRITE and self._disk.read_only
        unaddressed = spec.extended and not self._task.device & DEVICE_LBA
        if unaddressed or (spec.multiple and not self._settings.multiple) or writes_protected:
            self._fail(ABRT)
            return
        sectors = self._task.sectors(spec, self._total_sectors, self._settings.geometry)
        if sectors is None:
            self._fail(IDNF)
            return
        self._standby = False
        block = self._settings.multiple if spec.multiple else 1
        self._transfer = _Transfer(code, sectors.first, sectors.length, block, _MAX_CHUNK_SECTORS)
        self._start_chunk(self._transfer, spec)

    def _start_chunk(self, transfer: _Transfer, spec: CommandSpec) -> None:
        """Ask the backend for the next chunk, or the host when writing."""
        transfer.chunk = min(transfer.left, transfer.limit)
        if spec.kind is Kind.WRITE:
            self._buffer, self._at = memoryview(bytearray(transfer.chunk * SECTOR_BYTES)), 0
            self._open_block(Event.DATA_WANTED)
        else:
            self._ask(Opcode.READ)

    def _open_block(self, event: Event) -> None:
        """Set DRQ for the next block of the buffer."""
        block = self._transfer.block if self._transfer else 1
        self._end = min(self._at + block * SECTOR_BYTES, len(self._buffer))
        self._go(event)

    def _block_moved(self) -> None:
        """The host moved the last word of a DRQ block."""
        reading = self.phase is Phase.DATA_IN
        if self._at < len(self._buffer):
            self._open_block(Event.DATA_READY if reading else Event.DATA_WANTED)
        elif not reading:
            self._ask(Opcode.WRITE, self._buffer.toreadonly())
        else:
            self._chunk_done()

    def _chunk_done(self) -> None:
        """A chunk is with its receiver: go on with the next one or end the command."""
        transfer = self._transfer
        if transfer is None or transfer.left == transfer.chunk:
            self._forget()
            self._go(Event.DONE)
            return
        transfer.first += transfer.chunk
        transfer.left -= transfer.chunk
        self._start_chunk(transfer, COMMANDS[transfer.code])

    def _ask(self, opcode: Opcode, data: memoryview = _NOTHING) -> None:
        """Hand a request to the backend; the phase moves first, since the completion may come at any time."""
        transfer = self._transfer
        offset, length = (transfer.first * SECTOR_BYTES, transfer.chunk * SECTOR_BYTES) if transfer else (0, 0)
        self._request = DiskRequest(self._next_tag, opcode, offset, length, data)
        self._next_tag += 1
        self._buffer = _NOTHING
        self._go(Event.ASKED)
        self._disk.submit(self._request)

    def complete(self, tag: int, status: Status, data: bytes | memoryview) -> None:
        """Take the outcome of the request with this tag; one that is not outstanding (reset since) is ignored."""
        request = self._request
        if request is None or request.tag != tag:
            return
        self._request = None
        if request.opcode is Opcode.READ and status is Status.OK and len(data) != request.length:
            status = Status.MEDIUM_ERROR
        if status is not Status.OK:
            self._request_failed(request.opcode, status)
        elif self._transfer is not None and COMMANDS[self._transfer.code].kind is Kind.READ:
            self._buffer, self._at = memoryview(data), 0
            self._open_block(Event.DATA_READY)
        else:
            self._chunk_done()

    def _request_failed(self, opcode: Opcode, status: Status) -> None:
        """Find the bad sector if a large read failed on the medium; otherwise end the command with its error."""
        transfer, reading = self._transfer, opcode is Opcode.READ
        if transfer is not None and reading and status is Status.MEDIUM_ERROR and transfer.chunk > transfer.block:
            transfer.limit = transfer.block
            self._start_chunk(transfer, COMMANDS[transfer.code])
            return
        if transfer is not None:
            self._task.show_address(transfer.first, COMMANDS[transfer.code], self._settings.geometry)
        self._fail(*(READ_ERRORS if reading else WRITE_ERRORS).get(status, (ABRT, 0)))

    def _seek(self, code: int) -> None:
        """SEEK: nothing moves, but the address must exist (clause 8)."""
        found = self._task.sectors(COMMANDS[code], self._total_sectors, self._settings.geometry)
        self._succeed(code) if found else self._fail(IDNF)

    def _flush(self, _code: int) -> None:
        """FLUSH CACHE and FLUSH CACHE EXT (clause 8)."""
        self._standby = False
        self._ask(Opcode.FLUSH)

    def _identify(self, _code: int) -> None:
        """IDENTIFY DEVICE (section 8.15): a PIO data-in command that needs no medium."""
        settings = self._settings
        facts = DiskFacts(
            self._total_sectors, self._disk.serial, settings.geometry, settings.multiple, settings.write_cache
        )
        self._buffer, self._at = memoryview(identify_data(facts)), 0
        self._open_block(Event.DATA_READY)

    def _diagnose(self, _code: int) -> None:
        """EXECUTE DEVICE DIAGNOSTIC (clause 8)."""
        self._task.sign()
        self.error = PASSED
        self._go(Event.DONE)

    def _set(self, code: int) -> None:
        """SET MULTIPLE MODE, INITIALIZE DEVICE PARAMETERS and SET FEATURES."""
        task, settings, kind = self._task, self._settings, COMMANDS[code].kind
        if kind is Kind.SET_MULTIPLE:
            accepted = settings.set_multiple(task.count)
        elif kind is Kind.SET_GEOMETRY:
            accepted = settings.set_geometry((task.device & 0x0F) + 1, task.count)
        else:
            accepted = settings.set_feature(task.features, task.count)
        self._succeed(code) if accepted else self._abort(code)

    def _change_power(self, code: int) -> None:
        """IDLE and STANDBY, with and without IMMEDIATE (clause 8); the timers never run out."""
        self._standby = COMMANDS[code].kind is Kind.STANDBY
        self._succeed(code)

    def _check_power(self, code: int) -> None:
        """CHECK POWER MODE (clause 8): 00h standby, FFh active or idle."""
        self._task.set_count(0x00 if self._standby else 0xFF)
        self._succeed(code)

    def _sleep(self, _code: int) -> None:
        """SLEEP (clause 8): only a reset wakes the device."""
        self._go(Event.SLEPT)

    # -- state -------------------------------------------------------------------------------------------------------

    def state(self) -> State:
        """Phase, settings, and the command under way with its data; the task file is the channel's."""
        request = self._request
        return {
            "phase": int(self.phase),
            "error": self.error,
            "flags": self._flags,
            "intrq": self.intrq,
            "settings": self._settings.state(),
            "standby": self._standby,
            "transfer": list(astuple(self._transfer)) if self._transfer else None,
            "buffer": bytes(self._buffer),
            "at": self._at,
            "end": self._end,
            "next_tag": self._next_tag,
            "request": [request.tag, int(request.opcode), request.offset, request.length, bytes(request.data)]
            if request
            else None,
        }

    def restore(self, state: State) -> None:
        """Take over a state; a request that was outstanding is submitted once more, with its tag."""
        self.phase = Phase(state["phase"])
        self.error, self._flags, self.intrq = state["error"], state["flags"], state["intrq"]
        self.status = STATUS[self.phase] | self._flags
        self._settings.restore(state["settings"])
        self._standby = state["standby"]
        self._transfer = _Transfer(*state["transfer"]) if state["transfer"] else None
        self._buffer = memoryview(bytearray(state["buffer"]))
        self._at, self._end, self._next_tag = state["at"], state["end"], state["next_tag"]
        self._request = None
        if state["request"]:
            tag, opcode, offset, length, data = state["request"]
            self._request = DiskRequest(tag, Opcode(opcode), offset, length, data)
            self._disk.submit(self._request)
