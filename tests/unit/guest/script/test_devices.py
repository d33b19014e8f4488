"""Console and entropy drivers, registers and interrupts, against the real virtual devices."""

from __future__ import annotations

import pytest

from iovirt_dist.errors import GuestFault
from iovirt_dist.guest.script import ScriptGuest, VirtioSlot, open_console, open_entropy
from iovirt_dist.platform.virt import RAM_BASE, RTC_BASE, UART_BASE, UART_IRQ
from iovirt_dist.virtio.features import Feature, mask
from tests.unit.guest.script.board import LOAD_ACCESS_FAULT, Board


@pytest.mark.parametrize("interrupts", [False, True])
def test_console_writes_and_reads_lines(interrupts: bool) -> None:
    """Output longer than a buffer; input in pieces, of which a line is taken at a time."""
    board = Board()
    text = b"0123456789" * 250

    async def script(guest: ScriptGuest) -> list[bytes]:
        console = await open_console(guest.virtio(VirtioSlot.CONSOLE), interrupts=interrupts)
        await console.write(text)
        typist = guest.spawn(console.read_line())
        board.type(b"he")
        board.type(b"llo\rwor")
        first = await typist
        board.type(b"ld\n")
        return [first, await console.read_line()]

    assert board.run(script) == [b"hello", b"world"]
    assert board.terminal.shown == text


def test_console_takes_more_input_than_it_has_buffers() -> None:
    """Buffers go back to the device as they are read."""
    board = Board()
    typed = bytes(range(32, 127)) * 20

    async def script(guest: ScriptGuest) -> bytes:
        console = await open_console(guest.virtio(VirtioSlot.CONSOLE))
        read = b""
        for at in range(0, len(typed), 50):
            board.type(typed[at : at + 50])
            read += await console.read()
        return read

    assert board.run(script) == typed


@pytest.mark.parametrize("features", [0, mask(Feature.RING_PACKED)])
def test_entropy_is_asked_until_there_is_enough(features: int) -> None:
    """The device may give less than was asked for."""
    board = Board()

    async def script(guest: ScriptGuest) -> bytes:
        entropy = await open_entropy(guest.virtio(VirtioSlot.ENTROPY), features=features)
        return await entropy.read(5) + await entropy.read(3)

    assert board.run(script) == bytes([0, 1, 2, 3, 4]) + bytes([5, 6, 7])


def test_load_of_each_width_and_of_nothing() -> None:
    """A register as wide as asked for; where nothing answers the guest takes an exception."""
    board = Board()

    async def script(guest: ScriptGuest) -> list[int]:
        line_status = await guest.load(UART_BASE + 5, 1)
        with pytest.raises(GuestFault) as caught:
            await guest.load(0x4000_0000)
        return [line_status, caught.value.vector, await guest.load(RTC_BASE)]

    line_status, cause, _ = board.run(script)
    assert line_status & 0x60 == 0x60  # transmitter empty (16550 data sheet, line status register)
    assert cause == LOAD_ACCESS_FAULT


def test_loads_of_several_tasks_take_turns() -> None:
    """At most one trap waits; each task gets its own value."""
    board = Board()

    async def script(guest: ScriptGuest) -> list[int]:
        tasks = [guest.spawn(guest.load(0x1000_1000 + 4 * at)) for at in range(3)]
        return [await task for task in tasks]

    assert board.run(script) == [0x7472_6976, 2, 0]


def test_interrupt_is_claimed_and_completed() -> None:
    """The serial port's transmitter interrupt, by hand: line, claim, cause, completion."""
    board = Board()

    async def script(guest: ScriptGuest) -> list[int]:
        guest.interrupts.enable(UART_IRQ)
        guest.store(UART_BASE + 1, 1, 2)  # transmitter holding register empty
        await guest.interrupt()
        source = await guest.interrupts.claim()
        cause = await guest.load(UART_BASE + 2, 1)
        guest.interrupts.complete(source)
        return [source, cause & 0xF, await guest.interrupts.claim()]

    assert board.run(script) == [UART_IRQ, 2, 0]
    assert board.guest.lines == 0


def test_connected_handler_is_called_for_its_source() -> None:
    """The dispatcher claims, calls and completes; the guest counts the interrupt."""
    board = Board()

    async def script(guest: ScriptGuest) -> int:
        served = guest.event()

        async def serve() -> None:
            await guest.load(UART_BASE + 2, 1)
            served.set()

        guest.interrupts.connect(UART_IRQ, serve)
        guest.store(UART_BASE + 1, 1, 2)
        await served
        return guest.interrupts_taken

    assert board.run(script) == 1


def test_allocate_aligns_within_memory() -> None:
    """Addresses are in RAM and do not overlap."""
    guest = Board().guest
    first, second = guest.allocate(5), guest.allocate(8, 4096)
    assert (first, second) == (RAM_BASE, RAM_BASE + 4096)
    assert guest.allocate(1) == RAM_BASE + 4112
