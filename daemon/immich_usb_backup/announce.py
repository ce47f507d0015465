"""The end of every run: written down, handed on, said."""

from __future__ import annotations

from collections.abc import Awaitable

from immich_usb_backup import messages
from immich_usb_backup.errors import BackupError
from immich_usb_backup.events import Event
from immich_usb_backup.model import Outcome, RunReport
from immich_usb_backup.ports import Ports

OUTCOME_EVENTS = {
    Outcome.OK: Event.RUN_OK,
    Outcome.PARTIAL: Event.RUN_PARTIAL,
    Outcome.FAILED: Event.RUN_FAILED,
    Outcome.INTERRUPTED: Event.RUN_INTERRUPTED,
}


async def announce_begin(report: RunReport, ports: Ports) -> None:
    """Hand on that a run has begun. A failure is said, and keeps nobody from backing up."""
    try:
        await ports.outbox.put_begun(report)
    except (BackupError, OSError) as error:
        hint = error.hint if isinstance(error, BackupError) else ""
        ports.log.say(Event.BEGIN_UNTOLD, message=str(error), hint=hint)


async def announce(report: RunReport, ports: Ports) -> None:
    """Write the outcome down, hand it on, say it: in this order, and a failure in one does not stop the next.

    Only what was handed on is marked so; the rest is handed on at the next start.
    """
    await _attempt(ports.history.finish(report), ports)
    if await _attempt(ports.outbox.put(report), ports):
        await _attempt(ports.history.announced(report.run_id), ports)
    ports.log.say(
        OUTCOME_EVENTS[report.outcome],
        message=messages.story_line(report),
        outcome=report.outcome.value,
        disk=report.disk.name,
        run=report.run_id,
        safe_to_unplug=report.safe_to_unplug,
        findings=tuple(finding.code for finding in report.findings),
        files=sum(stage.files for stage in report.stages),
        bytes=sum(stage.bytes for stage in report.stages),
        seconds=round((report.ended - report.started).total_seconds(), 3),
    )
    ports.watchers.finished(report)


async def _attempt(step: Awaitable[None], ports: Ports) -> bool:
    try:
        await step
    except (BackupError, OSError) as error:
        hint = error.hint if isinstance(error, BackupError) else ""
        ports.log.say(Event.ANNOUNCE_FAILED, message=str(error), hint=hint)
        return False
    return True
