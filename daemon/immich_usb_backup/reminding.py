"""Once a day: is any disk late, and is somebody to be reminded of it?"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from immich_usb_backup.config import Config
from immich_usb_backup.events import Event
from immich_usb_backup.notices import give
from immich_usb_backup.policy import freshness
from immich_usb_backup.policy.freshness import Lateness
from immich_usb_backup.ports import Clock, History, Log, Outbox, ReminderBook, Watchers

_RUNS_LOOKED_AT = 300
"""Whether disks are used in turn is seen in so many of the newest runs."""


async def remind(
    config: Config,
    *,
    history: History,
    book: ReminderBook,
    outbox: Outbox,
    watchers: Watchers | None,
    log: Log,
    clock: Clock,
    server: str,
    here: Collection[str] = (),
    running: str = "",
    service_runs: bool = True,
) -> int:
    """Remind of the disks that are late, where it is time to. Returns of how many (1 where there is no backup at all); 0: of
    none today. ``here``: the UUIDs of disks that are plugged in; ``running``: of the one that is being backed up to, which
    nobody is reminded of. Raises ``StateDamaged``."""
    if not config.freshness.remind:
        return 0
    now = clock.now()
    reminders = await book.load(now)
    what = freshness.without(await _lateness(config, history, reminders.since, clock), running)
    kept = freshness.settled(reminders, what, now)
    if not freshness.remind_now(kept, what, now):
        await book.save(kept)
        return 0
    notice = freshness.reminder(
        what, server=server, since=kept.since, now=now, service_runs=service_runs, here=frozenset(here)
    )
    if await give(notice, Event.REMINDED, outbox=outbox, watchers=watchers, log=log):
        kept = freshness.told(kept, what, now)
    await book.save(kept)
    return len(what.about)


async def _lateness(config: Config, history: History, since: datetime, clock: Clock) -> Lateness:
    disks = await history.disks()
    runs = await history.runs(_RUNS_LOOKED_AT) if len(disks) > 1 else ()
    rotation = freshness.rotated(report.disk.uuid for report in runs)
    return freshness.lateness(disks, rotation=rotation, config=config, since=since, now=clock.now())
