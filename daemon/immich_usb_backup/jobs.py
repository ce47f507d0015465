"""What waits for the worker: backups, which plugging in or a person asks for, and plans, which somebody waits for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from immich_usb_backup.errors import BackupError
from immich_usb_backup.model import Mode, PartitionSeen, PlanReport, PlugIn, Rereading, Trigger


@dataclass(slots=True, eq=False)
class Job:
    """One thing to do with one disk: a plan where there is somebody to ``answer``, else a backup.

    ``mode`` None: as it is configured. ``rereading``: what is read again of what was on the disk before. ``trigger``: why.
    """

    seen: PartitionSeen
    mode: Mode | None = None
    answer: asyncio.Future[PlanReport] | None = None
    rereading: Rereading = Rereading.TURN
    trigger: Trigger = Trigger.PLUG_IN

    @property
    def is_backup(self) -> bool:
        """Whether something may be written to the disk."""
        return self.answer is None

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self.answer is not None and self.answer.done()

    def become(self, later: Job) -> None:
        """What was asked for last counts, where it asks for more."""
        self.mode = later.mode or self.mode
        if later.rereading in {Rereading.DUE, Rereading.ALL} or self.rereading is Rereading.NONE:
            self.rereading = later.rereading
        if later.trigger is not Trigger.PLUG_IN:
            self.trigger = later.trigger

    def succeed(self, report: PlanReport) -> None:
        """Answer who waits."""
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(report)

    def fail(self, error: BackupError) -> None:
        """Tell who waits that there will be no answer. Nobody waits for a backup, or once there is an answer."""
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(error)


class JobQueue:
    """Jobs in the order in which they came, one backup at most for each plug-in."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: Job) -> None:
        """At the end. A second backup of a plug-in is no second run; what was asked for last counts."""
        waiting = self.backup_of(job.seen.plug_in) if job.is_backup else None
        if waiting is None:
            self._jobs.append(job)
        else:
            waiting.become(job)
        self._filled.set()

    async def filled(self) -> None:
        """Return when something waits."""
        while not self._jobs:
            self._filled.clear()
            await self._filled.wait()

    def take(self) -> Job | None:
        """The next one that somebody still wants, or None."""
        while self._jobs:
            job = self._jobs.pop(0)
            if not job.abandoned:
                return job
        return None

    def backup_of(self, plug_in: PlugIn) -> Job | None:
        """The backup that waits for this plug-in's disk."""
        return next((job for job in self._jobs if job.is_backup and job.seen.plug_in == plug_in), None)

    def wants_drive_of(self, plug_in: PlugIn) -> bool:
        """Whether anything waits for the same drive, be it for another partition."""
        drive = (plug_in.boot_id, plug_in.disk_sequence)
        return any((job.seen.plug_in.boot_id, job.seen.plug_in.disk_sequence) == drive for job in self._jobs)

    def drop(self, plug_in: PlugIn, why: BackupError) -> None:
        """Nothing is to be done any more with a disk that is gone."""
        gone = [job for job in self._jobs if job.seen.plug_in == plug_in]
        self._jobs = [job for job in self._jobs if job.seen.plug_in != plug_in]
        for job in gone:
            job.fail(why)

    def waits_for(self, plug_in: PlugIn) -> bool:
        """Whether anything waits for this plug-in's disk."""
        return any(job.seen.plug_in == plug_in for job in self._jobs)

    def clear(self, why: BackupError) -> None:
        """Nothing is to be done any more at all."""
        jobs, self._jobs = self._jobs, []
        for job in jobs:
            job.fail(why)
