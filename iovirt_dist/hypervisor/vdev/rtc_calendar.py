"""Calendar arithmetic on the time registers of an MC146818.

Every function works on the register file itself, in the format (BCD or binary, 12 or 24 hours) that register B
holds at that moment, and takes any bytes: a guest may have stored a 99th of a 47th month. Such dates are carried over
into the following months, as the sum of what the registers say.

Source: MC146818 data sheet, table "Time, Calendar, and Alarm Data Modes" and section "Alarm"; the day count is the
proleptic Gregorian calendar's, computed from a year that begins in March.
"""

from __future__ import annotations

from typing import NamedTuple

SECONDS, SECONDS_ALARM, MINUTES, MINUTES_ALARM, HOURS, HOURS_ALARM = range(6)
DAY_OF_WEEK, DATE, MONTH, YEAR = range(6, 10)
CENTURY = 0x32
REG_B = 0x0B
BINARY, HOURS_24 = 0x04, 0x02
PM = 0x80
ANY = 0xC0

DAY_SECONDS = 86_400
EPOCH_DAY_OF_WEEK = 5  # 1 January 1970 was a Thursday; 1 is Sunday


class Moment(NamedTuple):
    """A point in time: days since 1970, second of the day, and the day of the week that the registers claim (0-6)."""

    days: int
    second: int
    weekday: int


def days_from_date(year: int, month: int, day: int) -> int:
    """Days since 1 January 1970; month and day may lie outside their ranges and carry over."""
    year += (month - 1) // 12
    month = (month - 1) % 12 + 1
    shifted = year - (month <= 2)
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return shifted * 365 + shifted // 4 - shifted // 100 + shifted // 400 + day_of_year - 719_468


def date_from_days(days: int) -> tuple[int, int, int]:
    """Year, month (1..12) and day (1..31) of a day count since 1970."""
    days += 719_468
    era, day_of_era = divmod(days, 146_097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted_month = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * shifted_month + 2) // 5 + 1
    month = (shifted_month + 2) % 12 + 1
    return era * 400 + year_of_era + (month <= 2), month, day


def from_unix(seconds: int) -> Moment:
    """The moment of a count of seconds since 1970 UTC."""
    days, second = divmod(seconds, DAY_SECONDS)
    return Moment(days, second, (days + EPOCH_DAY_OF_WEEK - 1) % 7)


def _decode(value: int, control: int) -> int:
    return value if control & BINARY else (value >> 4) * 10 + (value & 15)


def _encode(value: int, control: int) -> int:
    return value if control & BINARY else value // 10 << 4 | value % 10


def decode_hour(value: int, control: int) -> int:
    """Hour 0.. of an hours register; in 12-hour mode 12 AM is 0 and bit 7 means PM."""
    if control & HOURS_24:
        return _decode(value, control)
    return _decode(value & ~PM, control) % 12 + (12 if value & PM else 0)


def encode_hour(hour: int, control: int) -> int:
    """Hours register for hour 0..23."""
    if control & HOURS_24:
        return _encode(hour, control)
    return _encode((hour + 11) % 12 + 1, control) | (PM if hour >= 12 else 0)


def load(registers: bytearray) -> Moment:
    """The moment that the registers hold."""
    control = registers[REG_B]
    year = _decode(registers[CENTURY], control) * 100 + _decode(registers[YEAR], control)
    days = days_from_date(year, _decode(registers[MONTH], control), _decode(registers[DATE], control))
    clock = decode_hour(registers[HOURS], control) * 3600 + _decode(registers[MINUTES], control) * 60
    more_days, second = divmod(clock + _decode(registers[SECONDS], control), DAY_SECONDS)
    return Moment(days + more_days, second, (_decode(registers[DAY_OF_WEEK], control) - 1 + more_days) % 7)


def store(registers: bytearray, moment: Moment) -> None:
    """Write the time registers; centuries beyond 99 wrap."""
    control = registers[REG_B]
    year, month, day = date_from_days(moment.days)
    registers[CENTURY] = _encode(year // 100 % 100, control)
    registers[YEAR] = _encode(year % 100, control)
    registers[MONTH] = _encode(month, control)
    registers[DATE] = _encode(day, control)
    registers[DAY_OF_WEEK] = moment.weekday + 1
    registers[HOURS] = encode_hour(moment.second // 3600, control)
    registers[MINUTES] = _encode(moment.second // 60 % 60, control)
    registers[SECONDS] = _encode(moment.second % 60, control)


def add_seconds(registers: bytearray, seconds: int) -> None:
    """Let this many seconds pass."""
    moment = load(registers)
    days, second = divmod(moment.second + seconds, DAY_SECONDS)
    store(registers, Moment(moment.days + days, second, (moment.weekday + days) % 7))


def seconds_until_alarm(registers: bytearray) -> int | None:
    """Seconds from now to the next update that matches the alarm registers, 1..86400; None if none ever does.

    An alarm byte with both top bits set matches any value; any other is compared with the register as stored.
    """
    control = registers[REG_B]
    hours = [hour for hour in range(24) if _matches(registers[HOURS_ALARM], encode_hour(hour, control))]
    minutes = [minute for minute in range(60) if _matches(registers[MINUTES_ALARM], _encode(minute, control))]
    seconds = [second for second in range(60) if _matches(registers[SECONDS_ALARM], _encode(second, control))]
    if not (hours and minutes and seconds):
        return None
    first = load(registers).second + 1
    hour, minute = first // 3600 % 24, first // 60 % 60
    # The next match lies in this minute, or is the first of a later minute of this hour, or the first of an hour.
    matches = [hour * 3600 + minute * 60 + second for second in seconds if hour in hours and minute in minutes]
    matches += [hour * 3600 + minute * 60 + seconds[0] for minute in minutes if hour in hours]
    matches += [hour * 3600 + minutes[0] * 60 + seconds[0] for hour in hours]
    return min((match - first) % DAY_SECONDS for match in matches) + 1


def _matches(alarm: int, value: int) -> bool:
    return alarm >= ANY or alarm == value
