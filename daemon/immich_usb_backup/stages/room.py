"""Room on the disk: is there enough, what may go for it, and what has been kept long enough."""

from __future__ import annotations

from datetime import UTC

from immich_usb_backup.errors import DiskFull
from immich_usb_backup.model import Finding, Severity
from immich_usb_backup.policy.deletions import DELETED, due_for_purge, oldest_first
from immich_usb_backup.policy.space import Room, RoomVerdict, judge_room
from immich_usb_backup.policy.text import counted, size
from immich_usb_backup.stages.context import Work
from immich_usb_backup.stages.planning import Decision
from immich_usb_backup.stages.state import begin_writing

_MEGABYTE = 1_000_000


async def judge(work: Work, decision: Decision) -> RoomVerdict:
    """Both checks of the plan against the disk."""
    needed = decision.steps.room(decision.cluster)
    if not needed:
        return RoomVerdict()
    free = await work.target.free_bytes()
    room = Room(
        needed=needed,
        free=free,
        library=sum(folder.room for folder in decision.plan.folders),
        partition=work.run.disk.size,
        reserve=work.run.config.disks.reserve_megabytes * _MEGABYTE,
    )
    verdict = judge_room(room)
    if not verdict.missing:
        return verdict
    purgeable = 0
    for name in await _before_today(work):
        purgeable += await work.target.room_taken(f"{DELETED}/{name}")
    return judge_room(
        Room(
            needed=needed,
            free=free,
            library=room.library,
            partition=room.partition,
            reserve=room.reserve,
            purgeable=purgeable,
        )
    )


async def make_room(work: Work, decision: Decision) -> None:
    """Give back what ``deleted/`` holds, oldest first, where the plan needs it. Raises ``DiskFull`` where even that is not
    enough; then nothing is half done."""
    verdict = await judge(work, decision)
    if verdict.missing:
        raise DiskFull(verdict.reason, hint=verdict.hint)
    freed, names = 0, []
    for name in await _before_today(work) if verdict.purge else ():
        if freed >= verdict.purge:
            break
        freed += await work.target.room_taken(f"{DELETED}/{name}")
        names.append(name)
    await _purge(work, names, f"to make room for new ones ({size(freed)})")


async def purge_old(work: Work) -> None:
    """Let go of what was set aside long enough ago."""
    today = work.run.started.astimezone(UTC).date()
    days = work.run.config.keep_deleted_days
    names = due_for_purge(await work.target.folders(DELETED), today=today, keep_days=days)
    await _purge(work, list(names), f"after {counted(days, 'day')}")


async def _before_today(work: Work) -> tuple[str, ...]:
    return oldest_first(await work.target.folders(DELETED), before=work.run.started.astimezone(UTC).date())


async def _purge(work: Work, names: list[str], why: str) -> None:
    if not names:
        return
    await begin_writing(work)
    for name in names:
        await work.target.clear(f"{DELETED}/{name}")
    days = ", ".join(f"{name[:4]}-{name[4:6]}-{name[6:]}" for name in names)
    message = f"What had left the backup on {days} is no longer kept in {DELETED}/ on the disk, {why}"
    work.run.note(Finding(code="deleted-purged", severity=Severity.NOTE, message=message))
