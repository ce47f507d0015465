"""Which modification times exFAT can keep."""

from __future__ import annotations

from datetime import UTC, datetime

TIME_TOLERANCE_NS = 2_000_000_000
"""exFAT keeps 10 ms, some writers 2 s."""

_EARLIEST_NS = int(datetime(1980, 1, 1, tzinfo=UTC).timestamp()) * 10**9
_LATEST_NS = int(datetime(2107, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()) * 10**9
_DAY_NS = 86_400 * 10**9


def times_agree(source_ns: int, stored_ns: int) -> bool:
    """Whether the stored time is the source's, as far as exFAT (1980 to 2107, 10 ms) can tell.

    Beyond its range the driver stores a bound, but shows the time it was given until the file system is mounted again
    (measured): both are right.
    """
    if abs(source_ns - stored_ns) <= TIME_TOLERANCE_NS:
        return True
    if _EARLIEST_NS <= source_ns <= _LATEST_NS:
        return False
    bound = _EARLIEST_NS if source_ns < _EARLIEST_NS else _LATEST_NS
    return abs(stored_ns - bound) <= _DAY_NS
