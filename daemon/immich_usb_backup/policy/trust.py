"""Whether the manifest can be believed without walking the disk. Any doubt is resolved towards walking."""

from __future__ import annotations

from datetime import datetime, timedelta

from immich_usb_backup.model import Mode
from immich_usb_backup.policy.disk_state import DiskState
from immich_usb_backup.policy.manifest import DiskRecord, Fingerprint


def reasons_to_walk(
    *,
    state: DiskState | None,
    record: DiskRecord,
    fingerprint: Fingerprint,
    mode: Mode,
    now: datetime,
    walk_after_days: int,
    unclean: bool = False,
) -> tuple[str, ...]:
    """Every reason to walk the disk from end to end, in words; none: what the server remembers is what lies there."""
    if not record.generation:
        return ("this server has no record of what lies on it",)
    found = [_of_state(state, record), _of_fingerprint(record, fingerprint), _of_age(record, now, walk_after_days)]
    if mode is not Mode.QUICK:
        found.append(f"the mode is {mode.value}")
    if unclean:
        found.append("it was not unmounted properly")
    return tuple(filter(None, found))


def _of_state(state: DiskState | None, record: DiskRecord) -> str:
    if state is None:
        return "its state file is missing or damaged"
    if state.writing:
        return "the last backup to it was not finished"
    if state.generation != record.generation:
        return "it was written to without this server's knowing"
    return ""


def _of_fingerprint(record: DiskRecord, now: Fingerprint) -> str:
    before = record.fingerprint
    if before is None:
        return "nothing is known of how it was left"
    if before.free_clusters != now.free_clusters:
        return "its free room is another than it was left with"
    if before.entries != now.entries:
        return "its backup folder is not as it was left"
    return ""


def _of_age(record: DiskRecord, now: datetime, days: int) -> str:
    if record.walked is None:
        return "it was never walked"
    age = now - record.walked
    if age >= timedelta(days=days) or age < timedelta(0):
        return f"it was last walked {max(0, age.days)} days ago"
    return ""
