"""When a disk that stays plugged in is backed up to: systemd's calendar syntax, handier forms of it, and the timers' texts."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
UNIT = "immich-usb-backup-schedule@"
"""How the names of the timers and of the service that they start begin."""

_LONGEST = 200
_LONGEST_UNIT = 255
_TIME = r"(?P<hour>[01]?\d|2[0-3]):(?P<minute>[0-5]\d)(:00)?"
_WEEKDAY = r"(?P<day>mon|tue|wed|thu|fri|sat|sun)[a-z]*"
_DAILY = re.compile(rf"(daily\s+|\*-\*-\*\s+)?{_TIME}", re.IGNORECASE)
_WEEKLY = re.compile(rf"(weekly\s+)?{_WEEKDAY}(\s+\*-\*-\*)?\s+{_TIME}", re.IGNORECASE)
_FULL_WEEKDAYS = frozenset(("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"))
_HANDY_WORD = re.compile(r"(daily|weekly)\s", re.IGNORECASE)
_CALENDAR = re.compile(r"[A-Za-z0-9*:,./~_+ -]+")
"""Every character of systemd's calendar syntax. No line feed and no ``%``: the text goes into a unit."""


def normalised(text: str) -> str:
    """A schedule as systemd's ``OnCalendar=`` takes it; empty: there is none. Raises ``ValueError``, in words, for what
    cannot be one. Whether systemd understands the rest only systemd can tell."""
    words = " ".join(text.split(" ")).strip()
    if not words:
        return ""
    if len(words) > _LONGEST or not _CALENDAR.fullmatch(words):
        raise ValueError('must be a time such as "daily 03:00", "weekly Sun 03:00", or what systemd.time(7) calls one')
    if daily := _DAILY.fullmatch(words):
        return f"*-*-* {_clock(daily)}"
    if (weekly := _WEEKLY.fullmatch(words)) and _is_weekday(words):
        return f"{weekly['day'].title()} *-*-* {_clock(weekly)}"
    if _HANDY_WORD.match(words):
        raise ValueError('must be like "daily 03:00" or "weekly Sun 03:00"')
    return words


def _clock(found: re.Match[str]) -> str:
    return f"{int(found['hour']):02}:{found['minute']}:00"


def _is_weekday(words: str) -> bool:
    """``Sun`` and ``Sunday``, as systemd has it, and not ``Sunk``."""
    named = next(word for word in words.lower().split() if word[:3] in WEEKDAYS)
    return named in WEEKDAYS or named in _FULL_WEEKDAYS


def shown(schedule: str) -> str:
    """A schedule for people: ``daily 03:00``, ``weekly Sun 03:00``, else systemd's words."""
    text = normalised(schedule)
    if daily := _DAILY.fullmatch(text):
        return f"daily {_clock(daily)[:5]}"
    if weekly := _WEEKLY.fullmatch(text):
        return f"weekly {weekly['day'].title()} {_clock(weekly)[:5]}"
    return text


def next_run(schedule: str, now: datetime) -> datetime | None:
    """When a schedule comes next, by this machine's clock on the wall; None where there is none, or where only systemd can
    tell: for anything but one time on each day, or on one day of the week."""
    text = normalised(schedule)
    daily, weekly = _DAILY.fullmatch(text), _WEEKLY.fullmatch(text)
    found = daily or weekly
    if found is None:
        return None
    wanted = WEEKDAYS.index(weekly["day"].lower()) if weekly else None
    today = now.astimezone().date()
    for ahead in range(9):
        day = today + timedelta(days=ahead)
        when = datetime.combine(day, datetime.min.time()).replace(hour=int(found["hour"]), minute=int(found["minute"]))
        if wanted in {None, day.weekday()} and when.astimezone() > now:
            return when.astimezone()
    return None


# Timers -----------------------------------------------------------------------------------------------------


def timer_name(disk: str) -> str | None:
    """The name of a disk's timer, by systemd's rules of escaping; None for a name that no unit can have."""
    if not disk or not disk.isprintable():
        return None
    name = f"{UNIT}{escaped(disk)}.timer"
    return name if len(name) <= _LONGEST_UNIT else None


def escaped(text: str) -> str:
    """As ``systemd-escape`` does it, so that ``%I`` in a unit gives the text back."""
    parts = ("-" if byte == ord("/") else _escaped_byte(byte) for byte in text.encode("utf-8", "backslashreplace"))
    whole = "".join(parts)
    return rf"\x2e{whole[1:]}" if whole.startswith(".") else whole


def _escaped_byte(byte: int) -> str:
    character = chr(byte)
    return character if character.isascii() and (character.isalnum() or character in ":_.") else rf"\x{byte:02x}"


def timer_text(schedule: str) -> str:
    """The timer of a schedule. Raises ``ValueError`` like ``normalised``."""
    return (
        "# Written by immich-usb-backup-generator from the schedule in the configuration: change it there, then run\n"
        "# systemctl daemon-reload.\n\n"
        "[Unit]\n"
        "Description=Schedule of a backup of Immich to the disk %I\n\n"
        "[Timer]\n"
        f"OnCalendar={normalised(schedule)}\n"
        "# One that was missed while the machine was off is made up for.\n"
        "Persistent=true\n"
        "RandomizedDelaySec=30s\n"
    )
