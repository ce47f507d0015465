"""What people are told outside of a run: handed on to every channel, and said."""

from __future__ import annotations

from immich_usb_backup.errors import BackupError
from immich_usb_backup.events import Event
from immich_usb_backup.model import Notice
from immich_usb_backup.policy.text import sentence
from immich_usb_backup.ports import Log, Outbox, Watchers


async def give(notice: Notice, event: Event, *, outbox: Outbox, watchers: Watchers | None, log: Log) -> bool:
    """Leave a notice for delivery, show it, say it. Returns whether it waits for delivery now; a failure in that does not stop
    the rest."""
    left = await _left(notice, outbox, log)
    log.say(
        event,
        message=sentence(notice.headline, *notice.lines),
        hint=sentence(*notice.todo),
        disk=notice.disk_name,
        uuid=notice.disk_uuid,
    )
    if watchers is not None:
        watchers.notice(notice)
    return left


async def _left(notice: Notice, outbox: Outbox, log: Log) -> bool:
    try:
        await outbox.put_notice(notice)
    except (BackupError, OSError) as error:
        hint = error.hint if isinstance(error, BackupError) else ""
        log.say(Event.ANNOUNCE_FAILED, message=str(error), hint=hint)
        return False
    return True
