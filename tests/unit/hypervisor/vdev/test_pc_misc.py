"""A20, port 92h, POST port, keyboard controller."""

from __future__ import annotations

import pytest

from iovirt_dist.hypervisor.vdev.pc_misc import A20Gate, KeyboardController, PostPort, SystemControlA

OUTPUT_FULL, SYSTEM, COMMAND, AUXILIARY, TIMEOUT = 0x01, 0x04, 0x08, 0x20, 0x40


class Bench:
    """Port 92h and the keyboard controller on one A20 gate, with resets counted."""

    def __init__(self) -> None:
        self.a20_changes: list[bool] = []
        self.resets = 0
        self.gate = A20Gate(self.a20_changes.append)
        self.port92 = SystemControlA(self.gate, self._reset)
        self.keyboard = KeyboardController(self.gate, self._reset)

    def _reset(self) -> None:
        self.resets += 1

    def command(self, value: int, *data: int) -> None:
        """Write 64h, then data to 60h."""
        self.keyboard.command_port.write(0, 1, value, 0)
        for byte in data:
            self.keyboard.data_port.write(0, 1, byte, 0)

    def status(self) -> int:
        """Read 64h."""
        return self.keyboard.command_port.read(0, 1, 0)

    def data(self) -> int:
        """Read 60h."""
        return self.keyboard.data_port.read(0, 1, 0)


@pytest.fixture
def bench() -> Bench:
    """The parts at power-on: A20 open through the keyboard controller."""
    return Bench()


def test_a20_is_open_while_either_source_opens_it(bench: Bench) -> None:
    """The line closes only when port 92h and the keyboard controller both close it."""
    bench.port92.write(0, 1, 0x02, 0)
    bench.command(0xD1, 0xDD)
    still_open = bench.gate.is_open
    bench.port92.write(0, 1, 0x00, 0)
    bench.command(0xD1, 0xDF)

    assert still_open
    assert bench.a20_changes == [False, True]


def test_port92_resets_on_a_rising_bit_0(bench: Bench) -> None:
    """Writing 1 again without a 0 between does nothing; reserved bits read as 0."""
    for value in (0x01, 0xFF, 0x02, 0x03):
        bench.port92.write(0, 1, value, 0)

    assert bench.resets == 2
    assert bench.port92.read(0, 1, 0) == 0x03


def test_port92_restore_drives_a20_and_resets_nothing() -> None:
    """The register comes back, the pulse does not."""
    bench, twin = Bench(), Bench()
    bench.command(0xD1, 0xDD)
    bench.port92.write(0, 1, 0x03, 0)

    twin.keyboard.data_port.restore(bench.keyboard.data_port.state())
    twin.port92.restore(bench.port92.state())

    assert (twin.resets, twin.gate.is_open, twin.port92.read(0, 1, 0)) == (0, True, 0x03)


def test_post_port_keeps_the_last_codes() -> None:
    """64 codes are kept in order, all are counted, the last can be read back."""
    post = PostPort()

    for code in range(100):
        post.write(0, 1, code, 0)

    assert post.codes == list(range(36, 100))
    assert (post.written, post.read(0, 1, 0)) == (100, 99)


def test_post_port_before_the_first_code_reads_zero() -> None:
    """Nothing has been written."""
    assert PostPort().read(0, 1, 0) == 0


def test_keyboard_status_at_power_on_is_idle(bench: Bench) -> None:
    """Both buffers are empty, so that polling software goes on."""
    assert bench.status() == 0x10


def test_keyboard_self_test_passes(bench: Bench) -> None:
    """AAh answers 55h and sets the system flag; reading the data empties the buffer."""
    bench.command(0xAA)
    full = bench.status()

    assert full & (OUTPUT_FULL | SYSTEM | COMMAND) == OUTPUT_FULL | SYSTEM | COMMAND
    assert bench.data() == 0x55
    assert bench.status() & OUTPUT_FULL == 0


@pytest.mark.parametrize(("command", "answer"), [(0xA9, 0x00), (0xAB, 0x00), (0xC0, 0xBF), (0xD0, 0xCF), (0x20, 0x00)])
def test_keyboard_commands_that_answer(bench: Bench, command: int, answer: int) -> None:
    """Interface tests pass; input port, output port and command byte can be read."""
    bench.command(command)

    assert (bench.status() & OUTPUT_FULL, bench.data()) == (OUTPUT_FULL, answer)


def test_keyboard_command_byte_is_kept_and_changed_by_enables(bench: Bench) -> None:
    """60h writes it, ADh/AEh and A7h/A8h change bits 4 and 5, 20h reads it."""
    bench.command(0x60, 0x45)
    bench.command(0xAD)
    bench.command(0xA7)
    bench.command(0x20)
    disabled = bench.data()
    bench.command(0xAE)
    bench.command(0xA8)
    bench.command(0x20)

    assert (disabled, bench.data()) == (0x75, 0x45)
    assert bench.status() & SYSTEM


def test_keyboard_data_for_an_absent_keyboard_times_out(bench: Bench) -> None:
    """A reset command to the keyboard gets FEh with the time-out flag, not an endless wait."""
    bench.keyboard.data_port.write(0, 1, 0xFF, 0)

    assert bench.status() & (OUTPUT_FULL | TIMEOUT | AUXILIARY) == OUTPUT_FULL | TIMEOUT
    assert bench.data() == 0xFE


def test_keyboard_data_for_an_absent_mouse_times_out(bench: Bench) -> None:
    """D4h sends to the auxiliary port: the answer is marked as coming from there."""
    bench.command(0xD4, 0xFF)

    assert bench.status() & (OUTPUT_FULL | TIMEOUT | AUXILIARY) == OUTPUT_FULL | TIMEOUT | AUXILIARY
    assert bench.data() == 0xFE


@pytest.mark.parametrize(("command", "flag"), [(0xD2, 0), (0xD3, AUXILIARY)])
def test_keyboard_loop_back(bench: Bench, command: int, flag: int) -> None:
    """D2h and D3h put a byte into the output buffer as if a device had sent it."""
    bench.command(command, 0x5A)

    assert (bench.status() & AUXILIARY, bench.data()) == (flag, 0x5A)


@pytest.mark.parametrize(
    ("command", "data", "resets"), [(0xFE, (), 1), (0xF0, (), 1), (0xFF, (), 0), (0xD1, (0xDE,), 1)]
)
def test_keyboard_output_port_bit_0_resets(bench: Bench, command: int, data: tuple[int, ...], resets: int) -> None:
    """A pulse on the reset pin, or the pin written low."""
    bench.command(command, *data)

    assert bench.resets == resets
