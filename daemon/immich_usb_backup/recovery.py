"""After a crash: what a run left behind that was cut off, and outcomes that nobody has heard of yet."""

from __future__ import annotations

from dataclasses import replace

from immich_usb_backup import enrolling
from immich_usb_backup.announce import announce
from immich_usb_backup.errors import BackupError
from immich_usb_backup.events import Event
from immich_usb_backup.model import RunReport
from immich_usb_backup.ports import Ports
from immich_usb_backup.release import release

_LOOKED_BACK = 20
"""Runs whose disk may still be mounted: a run that could not unmount, because D-Bus was lost."""


async def clean_up(ports: Ports) -> None:
    """Unmount what a cut-off run left mounted, record it as interrupted, and tell what was never told.

    A damaged history is said and does not keep the service from backing up.
    """
    try:
        for report in await ports.history.cut_off():
            await _close_case(report, ports)
        for report in await ports.history.runs(_LOOKED_BACK):
            if not report.safe_to_unplug:
                await _unmount_leftover(report, ports)
        for report in await ports.history.unannounced():
            await ports.outbox.put(report)
            await ports.history.announced(report.run_id)
        await enrolling.clean_up(ports)
    except (BackupError, OSError) as error:
        ports.log.say(Event.FATAL, message=str(error), hint=getattr(error, "hint", ""))


async def _close_case(report: RunReport, ports: Ports) -> None:
    ports.log.say(Event.CRASHED_RUN_FOUND, disk=report.disk.name, run=report.run_id)
    unmounted = await _unmount_leftover(report, ports)
    await announce(replace(report, ended=ports.clock.now(), safe_to_unplug=unmounted), ports)


async def _unmount_leftover(report: RunReport, ports: Ports) -> bool:
    try:
        partition = await ports.disks.left_mounted(report.disk.uuid)
        if partition is not None:
            await release(partition, ports=ports)
        return not await ports.disks.is_mounted(report.disk.uuid)
    except BackupError as error:
        ports.log.say(Event.FATAL, message=error.message, hint=error.hint)
        return False
