"""Calendar arithmetic against the standard library's calendar."""

from __future__ import annotations

from datetime import date, timedelta

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
