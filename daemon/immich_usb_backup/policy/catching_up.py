"""What somebody is told who was not there: for each disk the newest outcome, unless it was shown, is old, or is out of date.

The values are those of the daemon's ``GetHistory`` and ``GetDisks``, read with defaults.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from immich_usb_backup import messages
from immich_usb_backup.model import Outcome
from immich_usb_backup.policy.notes import GONE, Values, text, texts, truth

RECENT = timedelta(days=14)
"""What is older is for the history, not for a screen."""


def missed(
    history: Iterable[Values],
    disks: Iterable[Values],
    *,
    seen: Mapping[str, str],
    wanted: Collection[Outcome],
    now: datetime,
) -> tuple[dict[str, Any], ...]:
    """The outcomes to show, as ``RunFinished`` would have told them, the oldest first. ``seen`` has for each UUID the run
    that was shown last; ``wanted`` are the outcomes that are shown at all."""
    here = {text(disk, "Uuid") for disk in disks if text(disk, "Device")}
    newest: dict[str, Values] = {}
    for run in sorted(history, key=_begun, reverse=True):
        newest.setdefault(text(run, "Disk"), run)
    told = [
        _as_finished(run, here=uuid in here)
        for uuid, run in newest.items()
        if text(run, "Run") not in {"", seen.get(uuid)} and _is_told(run, wanted, now)
    ]
    return tuple(reversed(told))


def _is_told(run: Values, wanted: Collection[Outcome], now: datetime) -> bool:
    """A run that still goes on supersedes what was before it, and tells its own end."""
    old = now.timestamp() - _number(run, "Ended") > RECENT.total_seconds()
    return text(run, "Outcome") in set(wanted) and not old


def _as_finished(run: Values, *, here: bool) -> dict[str, Any]:
    safe = truth(run, "SafeToUnplug", default=False)
    codes = texts(run, "Findings")
    unplug = "" if not here or GONE in codes else messages.SAFE_TO_UNPLUG if safe else messages.MAYBE_MOUNTED
    outcome = Outcome(text(run, "Outcome"))
    return {
        "run": text(run, "Run"),
        "uuid": text(run, "Disk"),
        "disk": text(run, "Name"),
        "outcome": outcome.value,
        "safe_to_unplug": safe or not here,
        "headline": messages.away_headline(text(run, "Name"), outcome, unplug),
        "body": text(run, "Verdict"),
        "todo": "",
        "findings": list(codes),
    }


def _begun(run: Values) -> int:
    return _number(run, "Started")


def _number(run: Values, key: str) -> int:
    value = run.get(key, 0)
    return value if isinstance(value, int) else 0
