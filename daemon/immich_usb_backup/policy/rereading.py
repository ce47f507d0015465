"""Which files are read again now, for how long, and how far that is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from immich_usb_backup.config import UNLIMITED_MINUTES, Verification
from immich_usb_backup.model import Rereading
from immich_usb_backup.policy.manifest import Known

FRESH_DAYS = 30
"""A verification of all files that began longer ago is not gone on with, but begun anew."""

_AT_ONCE_BYTES = 128_000_000
_AT_ONCE_FILES = 1000

Line = tuple[bytes, bytes, Known]
"""A file on the disk: the server's path, the disk's, and what the manifest has of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What a run reads again: the files that were last read before ``before``, for ``seconds`` at most (None: no limit).
    ``verifying`` is when the verification of all files began that this is; None for any other."""

    before: datetime
    seconds: float | None
    verifying: datetime | None = None


def turn_of(rereading: Rereading, settings: Verification, *, now: datetime, verifying: datetime | None) -> Turn | None:
    """What this run is to read; None for nothing. ``now`` is when the run began: what it has read itself is not read again.
    ``verifying`` is when a verification began that was not finished."""
    if rereading is Rereading.NONE:
        return None
    due = now - timedelta(days=settings.again_after_days)
    if rereading is Rereading.ALL:
        since = now if verifying is None or now - verifying > timedelta(days=FRESH_DAYS) else min(verifying, now)
        return Turn(before=since, seconds=None, verifying=since)
    if rereading is Rereading.DUE or settings.minutes == UNLIMITED_MINUTES:
        return Turn(before=due, seconds=None)
    return Turn(before=due, seconds=settings.minutes * 60.0) if settings.minutes else None


def portions(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """So many at once that it is worth the while, and so few that the time is kept."""
    portion: list[Line] = []
    size = 0
    for line in lines:
        portion.append(line)
        size += line[2].size
        if size >= _AT_ONCE_BYTES or len(portion) >= _AT_ONCE_FILES:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast it goes: bytes in a second, and the seconds that are left (None while nothing is known), percent likewise."""

    rate: float | None
    seconds_left: float | None
    percent: int | None


def pace(*, done: int, total: int, seconds: float, limit: float | None) -> Pace:
    """From ``done`` of ``total`` bytes in so many ``seconds``; ``limit`` is when it ends at the latest."""
    if seconds <= 0 or done <= 0:
        return Pace(None, limit, None)
    rate = done / seconds
    left = max(0, total - done) / rate
    if limit is not None:
        left = min(left, max(0.0, limit - seconds))
    return Pace(rate, left, min(100, int(100 * seconds / (seconds + left))))
