"""Whether a marked disk may receive the photos, and what is told where it may not."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from immich_usb_backup.errors import BackupError, DiskNotTrusted
from immich_usb_backup.events import Event
from immich_usb_backup.marker_look import Looked
from immich_usb_backup.model import Marker, Outcome, PartitionSeen
from immich_usb_backup.notices import give
from immich_usb_backup.policy.enrolment import Enrolment, Trust, judge
from immich_usb_backup.policy.trust_words import (
    enroll_command,
    first_run_note,
    not_trusted_line,
    stranger_notice,
)
from immich_usb_backup.ports import Ports

Asked = Literal["marker", "enrolled"]

_RUNS_SEARCHED = 5
"""Runs in a row that may fail before it is told again what the marker means."""


async def only_trusted(seen: PartitionSeen, looked: Looked, *, trust: Asked, ports: Ports) -> Looked | None:
    """The disk as it may be backed up to, with what its run has to say; None where it is not enrolled and must be, which is
    told here. Raises ``StateDamaged``."""
    assert looked.marker is not None
    if trust == "marker":
        return await _with_note(seen, looked, ports)
    verdict, about = await _judged(seen, looked.marker, ports)
    if verdict is Trust.TRUSTED:
        return looked
    await _tell(seen, looked.marker, verdict, about, ports)
    return None


async def demand_trust(seen: PartitionSeen, looked: Looked, *, trust: Asked, ports: Ports) -> None:
    """For who waits for an answer. Raises ``DiskNotTrusted``, ``StateDamaged``."""
    if trust == "marker" or looked.marker is None:
        return
    verdict, about = await _judged(seen, looked.marker, ports)
    if verdict is not Trust.TRUSTED:
        raise _not_trusted(seen, not_trusted_line(verdict, about))


async def demand_enrolled(seen: PartitionSeen, *, trust: Asked, ports: Ports) -> None:
    """The same of a disk that nobody has looked at yet, by its UUID: a look may still find that it is another one. Raises
    ``DiskNotTrusted``, ``StateDamaged``."""
    if trust == "marker" or any(one.uuid.upper() == seen.uuid.upper() for one in await ports.enrolments.all()):
        return
    raise _not_trusted(seen, f"{seen.device_node} is not enrolled on this server")


def _not_trusted(seen: PartitionSeen, why: str) -> DiskNotTrusted:
    return DiskNotTrusted(why, hint=f"If it is your disk, run: {enroll_command(seen)} --name NAME")


async def _judged(seen: PartitionSeen, marker: Marker, ports: Ports) -> tuple[Trust, Enrolment | None]:
    return judge(marker.secret, seen.uuid, await ports.enrolments.all())


async def _with_note(seen: PartitionSeen, looked: Looked, ports: Ports) -> Looked:
    """The first run that brings photos to a disk says what it means that the marker is enough. Without a history there is
    none to say that it is not the first."""
    try:
        before = await ports.history.runs(_RUNS_SEARCHED, uuid=seen.uuid)
    except BackupError:
        return looked
    told = any(report.outcome in {Outcome.OK, Outcome.PARTIAL} for report in before)
    return looked if told else replace(looked, findings=(first_run_note(),))


async def _tell(seen: PartitionSeen, marker: Marker, verdict: Trust, about: Enrolment | None, ports: Ports) -> None:
    notice = stranger_notice(
        seen,
        marker,
        trust=verdict,
        about=about,
        known_as=await ports.history.disk_name(seen.uuid),
        server=ports.server,
        time=ports.clock.now(),
    )
    await give(notice, Event.DISK_NOT_TRUSTED, outbox=ports.outbox, watchers=ports.watchers, log=ports.log)
