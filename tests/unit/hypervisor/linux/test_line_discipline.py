"""Editing, echo, signals and output processing of the terminal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from iovirt_dist.hypervisor.linux.line_discipline import (
    ECHO,
    ICANON,
    ICRNL,
    IGNCR,
    INLCR,
    ISIG,
    IXON,
    MAX_INPUT_BYTES,
    ONLCR,
    LineDiscipline,
    Signal,
    Termios,
)


def typed(keys: bytes, termios: Termios | None = None) -> LineDiscipline:
    """Return a terminal at which keys were typed."""
    discipline = LineDiscipline(termios or Termios())
    assert discipline.receive(keys) == len(keys)
    return discipline


def lines(discipline: LineDiscipline) -> list[bytes]:
    """Read all that is there, a line at a time."""
    read = []
    while discipline.available():
        read.append(discipline.read(1000))
    return read


def without(flag: int) -> Termios:
    """Return the default settings without a local mode."""
    return Termios(lflag=Termios().lflag & ~flag)


@pytest.mark.parametrize(
    ("keys", "read", "echo"),
    [
        (b"hello\n", [b"hello\n"], b"hello\r\n"),
        (b"hello\r", [b"hello\n"], b"hello\r\n"),
        (b"two\nlines\n", [b"two\n", b"lines\n"], b"two\r\nlines\r\n"),
        (b"half", [], b"half"),
        (b"helo\x7flo\n", [b"hello\n"], b"helo\b \blo\r\n"),
        (b"\x7f\n", [b"\n"], b"\r\n"),
        (b"oops\x15ok\n", [b"ok\n"], b"oops" + b"\b \b" * 4 + b"ok\r\n"),
        (b"one two \x17three\n", [b"one three\n"], b"one two " + b"\b \b" * 4 + b"three\r\n"),
        (b"\xc3\xa4\x7fa\n", [b"a\n"], b"\xc3\xa4\b \ba\r\n"),
        (b"\x01\x7fa\n", [b"a\n"], b"^A\b \b\b \ba\r\n"),
        (b"\x16\x04a\n", [b"\x04a\n"], b"^Da\r\n"),
        (b"end\x04", [b"end"], b"end"),
        (b"\x04", [b""], b""),
        (b"a\tb\n", [b"a\tb\n"], b"a\tb\r\n"),
    ],
)
def test_canonical_input_is_edited(keys: bytes, read: list[bytes], echo: bytes) -> None:
    """Erase, kill, word erase, literal next, end of file, carriage return."""
    discipline = typed(keys)

    assert bytes(discipline.echo) == echo
    assert lines(discipline) == read


def test_long_line_is_read_in_parts() -> None:
    """A read takes what fits; the rest of the line stays."""
    discipline = typed(b"hello\nnext\n")

    assert [discipline.read(3) for _ in range(3)] == [b"hel", b"lo\n", b"nex"]


def test_line_of_just_the_length_is_no_end_of_file() -> None:
    """After ^D behind text nothing waits."""
    discipline = typed(b"abc\x04")

    assert discipline.read(3) == b"abc"
    assert discipline.available() == 0


@pytest.mark.parametrize(
    ("key", "signal"), [(b"\x03", Signal.SIGINT), (b"\x1c", Signal.SIGQUIT), (b"\x1a", Signal.SIGTSTP)]
)
def test_signal_keys_send_and_forget(key: bytes, signal: Signal) -> None:
    """What was typed before is gone, whole lines included."""
    discipline = typed(b"line\nhalf" + key)

    assert discipline.signals == [signal]
    assert discipline.available() == 0
    assert discipline.echo.endswith(b"half^" + bytes((key[0] ^ 0x40,)))


def test_signal_keys_are_text_without_isig() -> None:
    """As with ``stty -isig``."""
    discipline = typed(b"\x03\n", without(ISIG))

    assert discipline.signals == []
    assert lines(discipline) == [b"\x03\n"]


def test_echo_can_be_off() -> None:
    """For passwords."""
    assert typed(b"secret\n", without(ECHO)).echo == b""


@pytest.mark.parametrize(
    ("iflag", "keys", "read"),
    [(ICRNL, b"a\r", [b"a\n"]), (IGNCR, b"a\r\n", [b"a\n"]), (INLCR, b"a\n\x04", [b"a\r"]), (0, b"a\r\n", [b"a\r\n"])],
)
def test_line_ends_are_mapped(iflag: int, keys: bytes, read: list[bytes]) -> None:
    """ICRNL, IGNCR, INLCR."""
    assert lines(typed(keys, Termios(iflag=iflag))) == read


def test_flow_control_stops_output() -> None:
    """^S and ^Q are no input; without IXON they are."""
    stopped, going = typed(b"a\x13b"), typed(b"a\x13b\x11\n")

    assert (stopped.stopped, going.stopped) == (True, False)
    assert lines(going) == [b"ab\n"]
    assert lines(typed(b"\x13\n", Termios(iflag=Termios().iflag & ~IXON))) == [b"\x13\n"]


def test_raw_input_is_there_at_once() -> None:
    """No lines, no editing."""
    discipline = typed(b"ab\x7f", without(ICANON))

    assert discipline.available() == 3
    assert [discipline.read(2), discipline.read(2)] == [b"ab", b"\x7f"]


def test_change_to_raw_shows_what_was_being_edited() -> None:
    """And a change back makes a line of what was not read."""
    discipline = typed(b"line\nhalf")

    discipline.set_termios(without(ICANON))
    available = discipline.available()
    discipline.read(6)
    discipline.set_termios(Termios())

    assert available == 9
    assert discipline.read(100) == b"alf"


def test_line_that_is_too_long_loses_its_end() -> None:
    """Its newline is taken all the same."""
    discipline = typed(b"x" * 2 * MAX_INPUT_BYTES + b"\n")

    assert len(discipline.read(10_000)) == MAX_INPUT_BYTES


def test_input_that_nobody_reads_is_refused() -> None:
    """The caller keeps it; reading makes room."""
    discipline = LineDiscipline()
    data = b"0123456\n" * 600

    taken = discipline.receive(data)

    assert taken == MAX_INPUT_BYTES
    assert discipline.receive(data) == 0
    discipline.read(8)
    assert discipline.receive(data) == 8


@pytest.mark.parametrize("keys", [b"\x04" * 10_000, b"\n" * 10_000])
def test_empty_lines_are_bounded(keys: bytes) -> None:
    """An end of file is no byte, but takes room."""
    assert LineDiscipline().receive(keys) == MAX_INPUT_BYTES


def test_raw_input_is_bounded() -> None:
    """As lines are."""
    assert LineDiscipline(without(ICANON)).receive(b"x" * 10_000) == MAX_INPUT_BYTES


def test_output_newlines_return_the_carriage() -> None:
    """Unless OPOST is off."""
    discipline = LineDiscipline()
    raw = LineDiscipline(replace(Termios(), oflag=ONLCR))

    assert discipline.process_output(b"a\nb") == b"a\r\nb"
    assert raw.process_output(b"a\nb") == b"a\nb"
