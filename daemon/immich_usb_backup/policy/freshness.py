"""Nobody forgets: when a disk is late, whether somebody is to be reminded today, and with which words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

from immich_usb_backup.config import Config
from immich_usb_backup.model import Disk, KnownDisk, Notice, NoticeKind, Outcome, Reminded, Reminders
from immich_usb_backup.policy.text import counted, printable

PAUSE_DAYS = (1, 3, 7, 14, 30)
"""How long after a reminder the next one follows, first, second and so on; the last one holds for all that come."""
NEVER_DAYS = 7
"""After so many days a server that no backup was ever made of is a reason for a reminder."""
NO_DISK = ""
"""In place of a UUID: the reminder that there is no backup at all."""

_SLACK = timedelta(hours=2)
"""A daily timer is not exact: a day has passed when it comes again."""
_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Lateness:
    """What is the matter now. ``late``: disks that somebody is to be reminded of; ``fresh``: those that are not late;
    ``none``: there is no backup at all, and there has been none for some days."""

    late: tuple[KnownDisk, ...] = ()
    fresh: tuple[KnownDisk, ...] = ()
    none: bool = False

    @property
    def about(self) -> frozenset[str]:
        """The UUIDs that are concerned, or ``NO_DISK``."""
        return frozenset({known.disk.uuid for known in self.late} | ({NO_DISK} if self.none else set()))


def due(known: KnownDisk, config: Config) -> datetime | None:
    """When a disk is late: so many days after its last good run, or after its first one where none was good. None: never."""
    disk = known.disk
    days = config.due_days_of(disk.name, disk.label, disk.uuid)
    return (known.good or known.first) + timedelta(days=days) if days else None


def is_late(known: KnownDisk, config: Config, now: datetime) -> bool:
    """Whether a disk should have had a good run by now."""
    when = due(known, config)
    return when is not None and when <= now


def rotated(uuids: Iterable[str]) -> frozenset[str]:
    """The disks that take part in a rotation. ``uuids`` are those of the runs in their order: a disk that came back after
    another one had its turn is one of several that are used alternately. One that was used for a while and then laid
    aside is not."""
    turns = [uuid for uuid, _ in groupby(uuids)]
    return frozenset(uuid for uuid in turns if turns.count(uuid) > 1)


def lateness(
    disks: Sequence[KnownDisk], *, rotation: frozenset[str], config: Config, since: datetime, now: datetime
) -> Lateness:
    """Which disks somebody is to be reminded of: all that are late where none is fresh, else those of a rotation."""
    watched = [known for known in disks if due(known, config) is not None]
    late = [known for known in watched if is_late(known, config, now)]
    fresh = tuple(known for known in watched if known not in late and known.good is not None)
    if not disks:
        days = min(NEVER_DAYS, config.freshness.due_days)
        return Lateness(none=bool(days) and now - since >= timedelta(days=days))
    if fresh:
        late = [known for known in late if known.disk.uuid in rotation]
    return Lateness(late=tuple(sorted(late, key=_age_key)), fresh=fresh)


def without(what: Lateness, running: str) -> Lateness:
    """What is left to say while a disk of this UUID is being backed up to: a backup is on its way."""
    if not running:
        return what
    return Lateness(late=tuple(known for known in what.late if known.disk.uuid != running), fresh=what.fresh)


def _age_key(known: KnownDisk) -> datetime:
    return known.good or known.first


def remind_now(reminders: Reminders, what: Lateness, now: datetime) -> bool:
    """Whether a reminder goes out: about something new at once, then at growing intervals, and never twice in a day."""
    if not what.about or (reminders.last is not None and not _passed(1, reminders.last, now)):
        return False
    return any(_is_time(reminders.disks.get(uuid), now) for uuid in what.about)


def _is_time(said: Reminded | None, now: datetime) -> bool:
    if said is None:
        return True
    pause = PAUSE_DAYS[min(said.times, len(PAUSE_DAYS)) - 1]
    return _passed(pause, said.last, now)


def _passed(days: int, last: datetime, now: datetime) -> bool:
    return now - last >= timedelta(days=days) - _SLACK


def settled(reminders: Reminders, what: Lateness, now: datetime) -> Reminders:
    """What is kept when nothing goes out: a disk that is no longer late is forgotten, so that its reminders begin anew. A
    reminder of the future is one of a clock that was wrong: it counts from now."""
    kept = {uuid: said for uuid, said in reminders.disks.items() if uuid in what.about}
    kept = {uuid: Reminded(times=said.times, last=min(said.last, now)) for uuid, said in kept.items()}
    last = min(reminders.last, now) if reminders.last is not None else None
    return Reminders(since=min(reminders.since, now), last=last, disks=kept)


def told(reminders: Reminders, what: Lateness, now: datetime) -> Reminders:
    """What is kept when a reminder went out."""
    before = {uuid: reminders.disks[uuid].times for uuid in what.about if uuid in reminders.disks}
    disks = {uuid: Reminded(times=before.get(uuid, 0) + 1, last=now) for uuid in what.about}
    return Reminders(since=reminders.since, last=now, disks=disks)


# Words ------------------------------------------------------------------------------------------------------


def reminder(
    what: Lateness,
    *,
    server: str,
    since: datetime,
    now: datetime,
    service_runs: bool,
    here: frozenset[str] = frozenset(),
) -> Notice:
    """The reminder itself. ``here``: the UUIDs of disks that are plugged in, as far as that is known."""
    headline, lines, todo = _never(server, since, now) if what.none else _late(what, now, here)
    if not service_runs:
        lines = (
            *lines,
            "The backup service does not run: until it does, a disk that is plugged in is not backed up to.",
        )
        todo = (
            "Start it: sudo systemctl restart immich-usb-backup, and see: systemctl status immich-usb-backup",
            *todo,
        )
    only = what.late[0].disk if len(what.late) == 1 else None
    return Notice(
        notice_id=f"reminder-{now.astimezone(UTC):%Y%m%d}",
        kind=NoticeKind.REMINDER,
        server=server,
        time=now,
        headline=headline,
        lines=lines,
        todo=todo,
        disk_uuid=only.uuid if only else "",
        disk_name=only.name if only else "",
    )


_Words = tuple[str, tuple[str, ...], tuple[str, ...]]


def _never(server: str, since: datetime, now: datetime) -> _Words:
    return (
        f"There is no backup of '{printable(server)}'",
        (
            f"The server waits for a disk since {_day(since, now)}: no backup has ever been made, or every disk was forgotten.",
            "If the server's disks fail today, all photos are lost.",
        ),
        (
            "Plug in an exFAT disk that has an empty folder immich-server-backups, and wait for the message that says it is "
            "safe to unplug.",
            "If one was plugged in already and nothing happened, see: sudo immich-usb-backup disks",
        ),
    )


def _late(what: Lateness, now: datetime, here: frozenset[str]) -> _Words:
    shown = what.late[:_SHOWN]
    ages = [_how_old(known, now) for known in shown]
    more = len(what.late) - len(shown)
    lines = [f"{age}." for age in ages[1:]] + ([f"And {counted(more, 'more disk')}."] if more else [])
    notes = [note for known in shown if (note := _last_try(known))]
    return ages[0], (*lines, *notes, _meaning(what, now)), tuple(_todo(what, here))


def _how_old(known: KnownDisk, now: datetime) -> str:
    """``'Blue' is 41 days old (last seen 10 October)``."""
    name, seen = _name(known.disk), _day(known.last.ended, now)
    if known.good is None:
        return f"{name} has no complete backup yet (last seen {seen})"
    return f"{name} is {_days(known.good, now)} old (last seen {seen})"


def _last_try(known: KnownDisk) -> str:
    """Where a disk was there later than its age says."""
    words = {
        Outcome.PARTIAL: "was not complete",
        Outcome.FAILED: "failed",
        Outcome.INTERRUPTED: "was interrupted",
    }.get(known.last.outcome)
    return (
        f"The last backup to {_name(known.disk)} {words}: its age counts from the last one that was complete."
        if words
        else ""
    )


def _meaning(what: Lateness, now: datetime) -> str:
    if not what.fresh:
        return "No disk has a fresh backup: if the server's disks fail today, the photos that came since then are lost."
    newest = max(what.fresh, key=_age_key)
    age = _days(_age_key(newest), now)
    return f"{_name(newest.disk)} is fresh ({age} old), but it would be the only one if that disk fails or is lost as well."


def _todo(what: Lateness, here: frozenset[str]) -> Iterable[str]:
    away = [known.disk for known in what.late if known.disk.uuid not in here]
    if away:
        names = " or ".join(map(_name, away[:3]))
        yield f"Plug in {names}, and wait for the message that says it is safe to unplug."
    if any(known.disk.uuid in here for known in what.late):
        yield "What is plugged in: sudo immich-usb-backup backup DISK"
    if any(known.last.outcome is not Outcome.OK for known in what.late):
        yield "What kept a backup from being complete: sudo immich-usb-backup history"
    yield "A disk that you no longer use: sudo immich-usb-backup forget DISK"


def _name(disk: Disk) -> str:
    return f"'{printable(disk.name)}'"


def _days(then: datetime, now: datetime) -> str:
    return counted(max(0, (now - then).days), "day")


def _day(when: datetime, now: datetime) -> str:
    """``10 October``, with the year where it is another one."""
    local, today = when.astimezone(), now.astimezone()
    return f"{local.day} {local:%B}" + (f" {local.year}" if local.year != today.year else "")
