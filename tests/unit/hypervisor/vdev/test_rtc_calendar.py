"""Calendar arithmetic against the standard library's calendar."""

from __future__ import annotations

from bisect import bisect_right
from datetime import date, timedelta
from functools import cache

import pytest

from iovirt_dist.hypervisor.vdev import rtc_calendar as calendar

EPOCH = date(1970, 1, 1)


def registers(control: int, **values: int) -> bytearray:
    """A register file with 1 January 2000, 00:00:00, in binary unless said otherwise."""
    file = bytearray(128)
    file[calendar.REG_B] = control
    calendar.store(file, calendar.from_unix(946_684_800))
    for name, value in values.items():
        file[getattr(calendar, name)] = value
    return file


@pytest.mark.parametrize("step", [0, 1, 58, 59, 60, 364, 365, 366, 1460, 1461, 36_523, 36_524, 146_096, 146_097])
def test_calendar_agrees_with_the_library_in_both_directions(step: int) -> None:
    """Around every boundary of month, year, leap year and century."""
    for first in (date(1899, 12, 31), date(1999, 12, 31), date(2000, 2, 28), date(2100, 2, 28)):
        day = first + timedelta(days=step)

        assert calendar.days_from_date(day.year, day.month, day.day) == (day - EPOCH).days
        assert calendar.date_from_days((day - EPOCH).days) == (day.year, day.month, day.day)


@pytest.mark.parametrize(
    ("month", "day", "same"),
    [(13, 1, (2001, 1, 1)), (0, 1, (1999, 12, 1)), (2, 30, (2000, 3, 1)), (1, 0, (1999, 12, 31))],
)
def test_calendar_carries_over_what_is_out_of_range(month: int, day: int, same: tuple[int, int, int]) -> None:
    """Any bytes a guest stores are some date."""
    assert calendar.days_from_date(2000, month, day) == calendar.days_from_date(*same)


@pytest.mark.parametrize("control", [0x00, 0x02, 0x04, 0x06])
def test_calendar_every_hour_survives_its_encoding(control: int) -> None:
    """BCD and binary, 12 and 24 hours."""
    encoded = [calendar.encode_hour(hour, control) for hour in range(24)]

    assert [calendar.decode_hour(value, control) for value in encoded] == list(range(24))
    assert len(set(encoded)) == 24


def test_calendar_store_and_load_agree() -> None:
    """What is stored is loaded again, weekday included."""
    moment = calendar.Moment(days=20_000, second=86_399, weekday=3)
    file = registers(0x00)

    calendar.store(file, moment)

    assert calendar.load(file) == moment


def test_calendar_alarm_of_this_very_second_is_a_day_away() -> None:
    """The alarm is compared at updates, so the next match is tomorrow."""
    file = registers(0x06, SECONDS_ALARM=0, MINUTES_ALARM=0, HOURS_ALARM=0)

    assert calendar.seconds_until_alarm(file) == 86_400


@pytest.mark.parametrize(
    ("seconds", "minutes", "hours", "expected"),
    [(1, 0, 0, 1), (0, 1, 0, 60), (0, 0, 1, 3600), (59, 59, 23, 86_399), (0xC0, 0xFF, 0xC0, 1), (60, 0xFF, 0xFF, None)],
)
def test_calendar_seconds_until_alarm(seconds: int, minutes: int, hours: int, expected: int | None) -> None:
    """From midnight, with and without don't-care bytes."""
    file = registers(0x06, SECONDS_ALARM=seconds, MINUTES_ALARM=minutes, HOURS_ALARM=hours)

    assert calendar.seconds_until_alarm(file) == expected


@pytest.mark.parametrize("alarm", [(0x7F, 0xC0, 0xC0), (0xC0, 0x7F, 0xC0), (0xC0, 0xC0, 0x7F), (0xC0, 0xC0, 0xC0)])
def test_calendar_alarm_search_compares_each_value_once(
    alarm: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a guest writes, matching or not: 24 hours, 60 minutes and 60 seconds."""
    compared: list[int] = []
    matches = calendar._matches

    def counted(alarm: int, value: int) -> bool:
        compared.append(value)
        return matches(alarm, value)

    monkeypatch.setattr(calendar, "_matches", counted)
    seconds, minutes, hours = alarm

    calendar.seconds_until_alarm(registers(0x02, SECONDS_ALARM=seconds, MINUTES_ALARM=minutes, HOURS_ALARM=hours))

    assert len(compared) <= 24 + 60 + 60


STARTS = [0, 1, 59, 3599, 3600, 43_199, 43_200, 45_296, 82_799, 86_398, 86_399]
ALARMS = [
    (0xC0, 0xC0, 0xC0),
    (0x00, 0x00, 0x12),
    (0x30, 0xFF, 0xFF),
    (0xFF, 0x15, 0xC0),
    (0xFF, 0xFF, 0x11),
    (0xFF, 0xFF, 0x81),
    (0x3B, 0x3B, 0xC0),
    (0x59, 0x59, 0xC0),
    (0x34, 0x34, 0x92),
    (0xC0, 0x7F, 0xC0),
]


@pytest.mark.parametrize("control", [0x00, 0x02, 0x04, 0x06])
@pytest.mark.parametrize("alarm", ALARMS)
def test_calendar_alarm_is_the_first_match_of_a_day_of_updates(control: int, alarm: tuple[int, int, int]) -> None:
    """In BCD and binary, 12 and 24 hours: as the chip does it, which compares the registers after each update."""
    bytes_of = [(byte,) if byte < 0xC0 else range(256) for byte in alarm]
    matches = [
        second
        for second, (seconds, minutes, hours) in enumerate(day_of_clocks(control))
        if seconds in bytes_of[0] and minutes in bytes_of[1] and hours in bytes_of[2]
    ]
    expected = [next_of(matches, start) for start in STARTS]

    found = [calendar.seconds_until_alarm(alarm_at(start, control, alarm)) for start in STARTS]

    assert found == expected


def next_of(matches: list[int], start: int) -> int | None:
    """Seconds from one second of the day to the next match behind it."""
    if not matches:
        return None
    following = [*matches, matches[0] + calendar.DAY_SECONDS]
    return following[bisect_right(matches, start)] - start


@cache
def day_of_clocks(control: int) -> list[tuple[int, int, int]]:
    """What the registers show in each second of a day."""
    return [clock_registers(second, control) for second in range(calendar.DAY_SECONDS)]


def clock_registers(second: int, control: int) -> tuple[int, int, int]:
    """Seconds, minutes and hours as the registers show them at a second of the day."""
    digits = "{:d}" if control & 0x04 else "{:02d}"
    base = 10 if control & 0x04 else 16
    hour, pm = second // 3600, 0
    if not control & 0x02:
        hour, pm = (hour + 11) % 12 + 1, 0x80 if hour >= 12 else 0
    bytes_ = [int(digits.format(value), base) for value in (second % 60, second // 60 % 60, hour)]
    return bytes_[0], bytes_[1], bytes_[2] | pm


def alarm_at(second: int, control: int, alarm: tuple[int, int, int]) -> bytearray:
    """A register file at a second of the day, with an alarm (seconds, minutes, hours)."""
    file = registers(control, SECONDS_ALARM=alarm[0], MINUTES_ALARM=alarm[1], HOURS_ALARM=alarm[2])
    calendar.store(file, calendar.Moment(days=11_000, second=second, weekday=0))
    return file
