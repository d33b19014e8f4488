"""PCI configuration mechanism 1 and the chips that every `pc` machine has: i440FX, PIIX3 and its IDE function.

Sources: PCI Local Bus Specification 2.1, sections 3.7.4 "Configuration Mechanism #1" and 6 "Configuration Space";
Intel 82441FX (i440FX PMC) data sheet, section "PCI Configuration Registers"; Intel 82371SB (PIIX3) data sheet,
sections "PCI Configuration Registers" of functions 0 and 1 and "Reset Control Register" (CF9h).

CF8h, 32 bits   31 enable, 23-16 bus, 15-11 device, 10-8 function, 7-2 register; narrower accesses are not for it
CFCh-CFFh       the bytes of the selected register
CF9h, 8 bits    reset control: bit 1 hard reset, bit 2 a rise from 0 resets the CPU

A function that is not there reads as all ones. Writable bits are given by a mask; all others keep what they have, so
sizing a base address register works by itself. The attributes that the i440FX gives to the memory from C0000h to
FFFFFh are stored without effect: this machine has RAM there.
"""

from __future__ import annotations

from collections.abc import Callable

from iovirt_dist.errors import LocalError
from iovirt_dist.hypervisor.vdev.device import Quiet, State

CONFIG_BYTES = 256
ADDRESS_ENABLE = 1 << 31
ADDRESS_WRITABLE = 0x80FFFFFC
DATA_OFFSET = 4
RESET_CONTROL_OFFSET = 1
RESET_CPU, RESET_HARD = 0x04, 0x02

HOST_BRIDGE, ISA_BRIDGE, IDE_CONTROLLER = (0, 0), (1, 0), (1, 1)


class ConfigurationSpace:
    """256 bytes of configuration registers of one function, little-endian.

    Args:
        values: Register offset -> (width in bytes, value at power-on); what is not named is 0.
        writable: Register offset -> (width in bytes, mask of read-write bits).
        clearable: Register offset -> (width in bytes, mask of bits that writing 1 clears).
    """

    def __init__(
        self,
        values: dict[int, tuple[int, int]],
        writable: dict[int, tuple[int, int]],
        clearable: dict[int, tuple[int, int]] | None = None,
    ) -> None:
        self._bytes = _layout(values)
        self._writable = bytes(_layout(writable))
        self._clearable = bytes(_layout(clearable or {}))

    def read(self, offset: int, width: int) -> int:
        """Read `width` bytes at `offset`; both together lie within the 256 bytes."""
        return int.from_bytes(self._bytes[offset : offset + width], "little")

    def write(self, offset: int, width: int, value: int) -> None:
        """Write as the masks allow."""
        for place in range(offset, offset + width):
            byte, mask = value & 0xFF, self._writable[place]
            kept = self._bytes[place] & ~mask & ~(byte & self._clearable[place])
            self._bytes[place] = kept | byte & mask
            value >>= 8

    def state(self) -> bytes:
        """The 256 bytes."""
        return bytes(self._bytes)

    def restore(self, state: bytes) -> None:
        """Take over the 256 bytes."""
        self._bytes[:] = state


def _layout(registers: dict[int, tuple[int, int]]) -> bytearray:
    space = bytearray(CONFIG_BYTES)
    for offset, (width, value) in registers.items():
        space[offset : offset + width] = value.to_bytes(width, "little")
    return space


def host_bridge() -> ConfigurationSpace:
    """82441FX PMC, 8086:1237."""
    values = {
        0x00: (2, 0x8086),  # VID
        0x02: (2, 0x1237),  # DID
        0x04: (2, 0x0006),  # PCICMD: memory access and bus master always on
        0x06: (2, 0x0280),  # PCISTS: medium DEVSEL#, fast back-to-back
        0x08: (1, 0x02),  # RID
        0x09: (3, 0x060000),  # host bridge
        0x60: (8, 0x0101010101010101),  # DRB: 8 MiB in row 0, as after reset
        0x72: (1, 0x02),  # SMRAM: A0000h
    }
    writable = {
        0x04: (2, 0x0140),  # SERR#, parity error response
        0x0D: (1, 0xF8),  # MLT
        0x50: (2, 0xFFFF),  # PMCCFG
        0x57: (1, 0x7F),  # DRAMC
        0x58: (1, 0x7F),  # DRAMT
        0x59: (7, 0x33333333333330),  # PAM0-PAM6: read and write enables
        0x60: (8, 0xFFFFFFFFFFFFFFFF),  # DRB
        0x68: (1, 0xC0),  # FDHC: hole
        0x71: (1, 0x1F),  # MTT
        0x72: (1, 0x78),  # SMRAM: open, closed, lock, enable
        0x90: (1, 0xFF),  # ERRCMD
        0x93: (1, 0x03),  # TRC without the reset bit: CF9h of the ISA bridge resets this machine
    }
    return ConfigurationSpace(values, writable, {0x06: (2, 0xF900), 0x91: (1, 0x11)})


def isa_bridge() -> ConfigurationSpace:
    """82371SB (PIIX3) function 0, 8086:7000."""
    values = {
        0x00: (2, 0x8086),  # VID
        0x02: (2, 0x7000),  # DID
        0x04: (2, 0x0007),  # PCICMD: I/O, memory and bus master always on
        0x06: (2, 0x0280),  # PCISTS
        0x09: (3, 0x060100),  # ISA bridge
        0x0E: (1, 0x80),  # HEDT: several functions
        0x4C: (1, 0x4D),  # IORT
        0x4E: (2, 0x0003),  # XBCS: keyboard and RTC chip selects
        0x60: (4, 0x80808080),  # PIRQRC: routing off
        0x69: (1, 0x02),  # TOM
        0x70: (1, 0x80),  # MBIRQ0: routing off
        0x76: (2, 0x0C0C),  # MBDMA: no channel
        0x78: (2, 0x0002),  # PCSC
        0xA0: (1, 0x08),  # SMICNTL
        0xA8: (1, 0x0F),  # FTMR
    }
    writable = {
        0x04: (2, 0x0108),  # SERR#, special cycles
        0x4C: (1, 0x7F),
        0x4E: (2, 0x01FF),
        0x60: (4, 0x8F8F8F8F),
        0x69: (1, 0xFE),
        0x6A: (2, 0x8013),  # MSTAT
        0x70: (1, 0xEF),
        0x76: (2, 0x8F8F),
        0x78: (2, 0xFFFF),
        0x80: (1, 0x7F),  # APICBASE
        0x82: (1, 0x0F),  # DLC
        0xA0: (1, 0x1F),
        0xA2: (2, 0x01FF),  # SMIEN
        0xA4: (4, 0xE000FFFB),  # SEE
        0xA8: (1, 0xFF),
        0xAC: (1, 0xFF),  # CTLTMR
        0xAE: (1, 0xFF),  # CTHTMR
    }
    return ConfigurationSpace(values, writable, {0x06: (2, 0x7800), 0xAA: (2, 0x01FF)})


def ide_controller() -> ConfigurationSpace:
    """82371SB (PIIX3) function 1, 8086:7010: both channels at the compatible ports, so BAR 0-3 read as 0.

    BAR 4 (bus master registers, 16 ports) can be sized and placed; this machine decodes nothing there.
    """
    values = {
        0x00: (2, 0x8086),  # VID
        0x02: (2, 0x7010),  # DID
        0x06: (2, 0x0280),  # PCISTS
        0x09: (3, 0x010180),  # IDE, able to be bus master
        0x20: (4, 0x00000001),  # BMIBA: I/O space
    }
    writable = {
        0x04: (2, 0x0005),  # I/O space, bus master
        0x0D: (1, 0xF0),  # MLT
        0x20: (4, 0x0000FFF0),
        0x40: (4, 0xF3FFF3FF),  # IDETIM of both channels; bit 15 decodes the channel's ports
        0x44: (1, 0xFF),  # SIDETIM
    }
    return ConfigurationSpace(values, writable, {0x06: (2, 0x3800)})


class PciConfiguration(Quiet):
    """Ports CF8h to CFFh: the address and data registers of bus 0, and PIIX3's reset control between them.

    It starts with the i440FX at 0:0.0 and the PIIX3 at 0:1.0 (ISA bridge) and 0:1.1 (IDE); `add` takes more.

    Args:
        reset: Pulsed when the guest asks for a reset through CF9h. The value written stays readable.
    """

    max_width = 4

    def __init__(self, reset: Callable[[], None]) -> None:
        self._reset = reset
        self._address = 0
        self._reset_control = 0
        self._functions = {
            HOST_BRIDGE: host_bridge(),
            ISA_BRIDGE: isa_bridge(),
            IDE_CONTROLLER: ide_controller(),
        }

    def add(self, device: int, function: int, space: ConfigurationSpace) -> None:
        """Add a function on bus 0.

        Args:
            device: 0..31.
            function: 0..7.
            space: Its registers; the caller keeps it if the device wants to look at them.

        Raises:
            LocalError: The place is taken or does not exist.
        """
        where = f"PCI 0:{device}.{function}"
        if not (0 <= device < 32 and 0 <= function < 8):
            raise LocalError("no such place", where, "use device 0..31, function 0..7")
        if (device, function) in self._functions:
            raise LocalError("taken by another function", where)
        self._functions[device, function] = space

    def _selected(self) -> ConfigurationSpace | None:
        address = self._address
        if not address & ADDRESS_ENABLE or address >> 16 & 0xFF:
            return None
        return self._functions.get((address >> 11 & 31, address >> 8 & 7))

    def read(self, offset: int, width: int, now_ns: int) -> int:
        """Read CF8h + `offset`; what lies beyond CFFh or is not driven reads as ones."""
        if offset == 0 and width == 4:
            return self._address
        if offset == RESET_CONTROL_OFFSET and width == 1:
            return self._reset_control
        ones = (1 << 8 * width) - 1
        space = self._selected()
        if offset < DATA_OFFSET or space is None:
            return ones
        inside = min(width, 2 * DATA_OFFSET - offset)
        value = space.read((self._address & 0xFC) + offset - DATA_OFFSET, inside)
        return value | ones & ~((1 << 8 * inside) - 1)

    def write(self, offset: int, width: int, value: int, now_ns: int) -> None:
        """Write CF8h + `offset`; bytes beyond CFFh and accesses nobody takes are dropped."""
        if offset == 0 and width == 4:
            self._address = value & ADDRESS_WRITABLE
        elif offset == RESET_CONTROL_OFFSET and width == 1:
            self._write_reset_control(value)
        elif offset >= DATA_OFFSET:
            space = self._selected()
            if space is not None:
                inside = min(width, 2 * DATA_OFFSET - offset)
                space.write((self._address & 0xFC) + offset - DATA_OFFSET, inside, value)

    def _write_reset_control(self, value: int) -> None:
        rising = value & ~self._reset_control & RESET_CPU
        self._reset_control = value & (RESET_CPU | RESET_HARD)
        if rising:
            self._reset()

    def state(self) -> State:
        """Address register, reset control, and the registers of every function."""
        return {
            "address": self._address,
            "reset_control": self._reset_control,
            "functions": [[*place, space.state()] for place, space in sorted(self._functions.items())],
        }

    def restore(self, state: State) -> None:
        """Take over all registers; a function that this machine lacks is passed over."""
        self._address = state["address"]
        self._reset_control = state["reset_control"]
        for device, function, registers in state["functions"]:
            space = self._functions.get((device, function))
            if space is not None:
                space.restore(registers)
