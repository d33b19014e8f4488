"""The MC146818 real-time clock and CMOS memory of a PC at ports 70h and 71h.

Sources: Motorola MC146818 data sheet (ADI856), sections "Time, Calendar, and Alarm Locations", "Update Cycle",
"Divider Control", "Periodic Interrupt Selection" and "Registers"; for the bytes from 0Eh on the IBM PC AT Technical
Reference, section "Real-Time Clock/CMOS RAM Information", and the uses of 30h to 35h that PC firmware has settled on.

70h write   bits 6-0 index of the byte at 71h; bit 7 masks NMI (ignored: this machine has no NMI source)
71h         00h seconds  02h minutes  04h hours  06h day of week (1 = Sunday)  07h date  08h month  09h year
            01h, 03h, 05h alarm: seconds, minutes, hours; C0h-FFh match any value
            0Ah  UIP DV2-DV0 RS3-RS0    update in progress (ro), divider 010 = running, 11x = reset, periodic rate
            0Bh  SET PIE AIE UIE SQWE DM 24/12 DSE    DM 1 = binary; DSE is stored and has no effect
            0Ch  IRQF PF AF UF 0000     (ro) reading clears all and releases IRQ 8
            0Dh  VRT 0000000            (ro) battery good
            14h  equipment              15h-16h base memory in KiB
            17h-18h, 30h-31h            memory above 1 MiB in KiB, at most FFFFh
            2Eh-2Fh                     sum of 10h to 2Dh, high byte first
            32h  century, in the format of the year
            34h-35h                     memory above 16 MiB in 64 KiB units, at most FFFFh

The time registers are the truth, as on the chip: every second an update adds to what they hold, whether the guest
set them consistently or not. Updates are computed when somebody looks or an interrupt is due, however many there were.
"""

from __future__ import annotations

from dataclasses import dataclass

from iovirt_dist.hypervisor.vdev import rtc_calendar as calendar
from iovirt_dist.hypervisor.vdev.device import IrqLine, State

SECOND_NS = 1_000_000_000
# UIP rises 244 us before the update cycle, which takes 1984 us with a 32.768 kHz time base (data sheet, "Update
# Cycle"); the new time is there when it falls.
UIP_NS = (244 + 1984) * 1000
HALF_SECOND_NS = SECOND_NS // 2
# Ticks of the 32.768 kHz time base to nanoseconds: 10**9 / 32768 = 1953125 / 64.
BASE_NS, PER_BASE = 1_953_125, 64

REG_A, REG_B, REG_C, REG_D = 0x0A, 0x0B, 0x0C, 0x0D
REG_CENTURY = 0x32
DIVIDER, DIVIDER_RUNNING = 0x70, 0x20
UIP = 0x80
SET, PIE, AIE, UIE, BINARY, HOURS_24 = 0x80, 0x40, 0x20, 0x10, 0x04, 0x02
IRQF, PF, AF, UF = 0x80, 0x40, 0x20, 0x10
VRT = 0x80

EQUIPMENT_FPU = 0x02  # bit 1: coprocessor; no diskette drive, display adapter with its own BIOS
BASE_MEMORY_KIB = 640


def rate_ticks(rate: int) -> int:
    """Period of the periodic interrupt in 32.768 kHz ticks for RS3-RS0; 0 is off. Rates 1 and 2 equal 8 and 9."""
    if not rate:
        return 0
    return 1 << (rate + 6 if rate < 3 else rate - 1)


def memory_bytes_nvram(memory_bytes: int) -> dict[int, int]:
    """CMOS bytes that tell firmware how much memory there is.

    Args:
        memory_bytes: RAM from address 0, below 4 GiB.
    """
    extended_kib = min(max(memory_bytes - 2**20, 0) >> 10, 0xFFFF)
    above_16m = min(max(memory_bytes - 2**24, 0) >> 16, 0xFFFF)
    words = {0x15: min(BASE_MEMORY_KIB, memory_bytes >> 10), 0x17: extended_kib, 0x30: extended_kib, 0x34: above_16m}
    return {index + high: word >> 8 * high & 0xFF for index, word in words.items() for high in (0, 1)}


@dataclass(slots=True)
class Phase:
    """Where the divider chain stands.

    Attributes:
        second_ns: Time of the last update that has been accounted for; the next is a second later.
        tick: Periodic interrupt: 32.768 kHz ticks since `origin_ns` that have been accounted for.
        origin_ns: When the divider chain was last released from reset.
    """

    second_ns: int
    tick: int
    origin_ns: int


class Cmos:
    """The clock, its three interrupt sources and 128 bytes of battery-backed memory; a `Device` of two ports.

    Args:
        irq8: The IRQ output; high from an enabled event until register C is read.
        memory_bytes: RAM of the machine, for the memory size bytes.
        wall_ns_at_power_on: UTC at power-on, ns since 1970.
    """

    max_width = 1

    def __init__(self, irq8: IrqLine, memory_bytes: int, wall_ns_at_power_on: int) -> None:
        self._irq8 = irq8
        self._level = False
        self._index = 0
        self._alarm: tuple[int, int | None] | None = None  # cache: (second_ns, seconds until the alarm from there)
        self._ram = bytearray(128)
        self._ram[REG_A] = DIVIDER_RUNNING | 6
        self._ram[REG_B] = HOURS_24
        self._ram[REG_D] = VRT
        self._ram[0x14] = EQUIPMENT_FPU
        for index, value in memory_bytes_nvram(memory_bytes).items():
            self._ram[index] = value
        self._ram[0x2E], self._ram[0x2F] = divmod(sum(self._ram[0x10:0x2E]) & 0xFFFF, 256)
        seconds, fraction_ns = divmod(wall_ns_at_power_on, SECOND_NS)
        self._phase = Phase(second_ns=-fraction_ns, tick=0, origin_ns=-fraction_ns)
        self._phase.tick = self._base_tick(0)
        calendar.store(self._ram, calendar.from_unix(seconds))

    # -- ports -------------------------------------------------------------------------------------------------------

    def read(self, offset: int, width: int, now_ns: int) -> int:
        """Read 71h; 70h is write-only and reads as all ones."""
        if not offset & 1:
            return 0xFF
        index = self._index
        if index <= REG_D or index == REG_CENTURY:
            self.advance(now_ns)
        if index == REG_A:
            return self._ram[REG_A] | (UIP if self._updating(now_ns) else 0)
        value = self._ram[index]
        if index == REG_C:
            self._ram[REG_C] = 0
            self._drive()
        return value

    def write(self, offset: int, width: int, value: int, now_ns: int) -> None:
        """Write the index (70h) or the byte that it selects (71h)."""
        value &= 0xFF
        if not offset & 1:
            self._index = value & 0x7F
            return
        self.advance(now_ns)
        index = self._index
        if index == REG_A:
            self._write_a(value & ~UIP, now_ns)
        elif index == REG_B:
            self._write_b(value)
        elif index not in (REG_C, REG_D):
            self._ram[index] = value
        if index <= calendar.HOURS_ALARM or index == REG_B:  # all that the search looks at
            self._alarm = None

    def _write_a(self, value: int, now_ns: int) -> None:
        """Divider and rate; the first update after a divider reset comes half a second after its end."""
        was_running = self._divider_runs()
        self._ram[REG_A] = value
        if self._divider_runs() and not was_running:
            self._phase = Phase(second_ns=now_ns - HALF_SECOND_NS, tick=0, origin_ns=now_ns)

    def _write_b(self, value: int) -> None:
        """Enables and formats; SET stops updates at once and clears UIE."""
        if value & SET:
            value &= ~UIE
        self._ram[REG_B] = value
        self._drive()

    # -- time --------------------------------------------------------------------------------------------------------

    def _divider_runs(self) -> bool:
        return self._ram[REG_A] & DIVIDER == DIVIDER_RUNNING

    def _updating(self, now_ns: int) -> bool:
        runs = self._divider_runs() and not self._ram[REG_B] & SET
        return runs and now_ns - self._phase.second_ns >= SECOND_NS - UIP_NS

    def _base_tick(self, now_ns: int) -> int:
        return (now_ns - self._phase.origin_ns) * PER_BASE // BASE_NS

    def advance(self, now_ns: int) -> None:
        """Do the updates and periodic events up to now and set IRQ 8."""
        if not self._divider_runs():
            return
        self._periodic(self._base_tick(now_ns))
        seconds = (now_ns - self._phase.second_ns) // SECOND_NS
        if seconds > 0:
            if not self._ram[REG_B] & SET:
                self._update(seconds)
            self._phase.second_ns += seconds * SECOND_NS
        self._drive()

    def _periodic(self, tick: int) -> None:
        period = rate_ticks(self._ram[REG_A] & 15)
        if period and tick // period != self._phase.tick // period:
            self._ram[REG_C] |= PF
        self._phase.tick = tick

    def _update(self, seconds: int) -> None:
        """Let the time registers count this many seconds, looking for the alarm on the way."""
        until_alarm = self._until_alarm()
        calendar.add_seconds(self._ram, seconds)
        self._ram[REG_C] |= UF
        if until_alarm is not None and until_alarm <= seconds:
            self._ram[REG_C] |= AF

    def _until_alarm(self) -> int | None:
        """Seconds from the last update to the alarm; searched once a second at most, for `deadline_ns` is hot."""
        if self._alarm is None or self._alarm[0] != self._phase.second_ns:
            self._alarm = (self._phase.second_ns, calendar.seconds_until_alarm(self._ram))
        return self._alarm[1]

    def _drive(self) -> None:
        """IRQF is the OR of each flag with its enable (data sheet, "Register C"); the pin follows it."""
        enabled = self._ram[REG_C] & self._ram[REG_B] & (PF | AF | UF)
        self._ram[REG_C] = self._ram[REG_C] & ~IRQF | (IRQF if enabled else 0)
        if bool(enabled) != self._level:
            self._level = bool(enabled)
            self._irq8(self._level)

    def deadline_ns(self) -> int | None:
        """When IRQ 8 rises next; None while it is high or nothing is enabled.

        Until register C is read the line stays high and nothing more can be seen, so a guest that is away gets one
        interrupt, not a storm.
        """
        if self._level or not self._divider_runs():
            return None
        control = self._ram[REG_B]
        deadlines = []
        period = rate_ticks(self._ram[REG_A] & 15)
        if control & PIE and period:
            tick = (self._phase.tick // period + 1) * period
            deadlines.append(self._phase.origin_ns - (-tick * BASE_NS // PER_BASE))
        if not control & SET:
            if control & UIE:
                deadlines.append(self._phase.second_ns + SECOND_NS)
            until_alarm = self._until_alarm() if control & AIE else None
            if until_alarm is not None:
                deadlines.append(self._phase.second_ns + until_alarm * SECOND_NS)
        return min(deadlines, default=None)

    # -- state -------------------------------------------------------------------------------------------------------

    def state(self) -> State:
        """Memory, index, divider phase and the line."""
        return {
            "ram": bytes(self._ram),
            "index": self._index,
            "phase": [self._phase.second_ns, self._phase.tick, self._phase.origin_ns],
            "level": self._level,
        }

    def restore(self, state: State) -> None:
        """Take over everything and set IRQ 8."""
        self._ram = bytearray(state["ram"])
        self._index = state["index"]
        self._phase = Phase(*state["phase"])
        self._alarm = None
        self._level = state["level"]
        self._irq8(self._level)
