"""How long ago something was, and how long it is until something, in the words of people."""

from __future__ import annotations

from datetime import datetime

from immich_usb_backup.policy.text import counted

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_MONTH, _YEAR = 30 * _DAY, 365 * _DAY
_UNITS = (
    (_MINUTE, "minute", 2 * _HOUR),
    (_HOUR, "hour", 2 * _DAY),
    (_DAY, "day", 100 * _DAY),
    (_MONTH, "month", 2 * _YEAR),
)


def span(seconds: float, *, nearest: bool = False) -> str:
    """``5 minutes``, ``3 hours``, ``41 days``, ``7 months``: one unit, rounded down or to the nearest, the smaller one up to
    twice the larger."""
    for unit, name, until in _UNITS:
        if seconds < until:
            return counted(max(0, int(seconds / unit + 0.5 * nearest)), name)
    return counted(int(seconds / _YEAR), "year")


def ago(when: datetime | None, now: datetime) -> str:
    """``3 days ago``; ``never`` for None. A time to come, by a clock that was set, is ``just now``."""
    if when is None:
        return "never"
    seconds = (now - when).total_seconds()
    return "just now" if seconds < _MINUTE else f"{span(seconds)} ago"


def ahead(when: datetime, now: datetime) -> str:
    """``in 27 days``, or ``now`` for what has come."""
    seconds = (when - now).total_seconds()
    return "now" if seconds < _MINUTE else f"in {span(seconds, nearest=True)}"
