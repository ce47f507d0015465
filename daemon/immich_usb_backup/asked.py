"""What a person asks the daemon for, done or refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from immich_usb_backup import messages
from immich_usb_backup.config import Config
from immich_usb_backup.disks_here import DisksHere
from immich_usb_backup.enrolling import enroll
from immich_usb_backup.errors import Interrupted
from immich_usb_backup.jobs import Job
from immich_usb_backup.model import Disk, Mode, Outcome, PartitionSeen, PlanReport, Rereading, RunReport, Trigger
from immich_usb_backup.overview import Overview
from immich_usb_backup.policy.disk_facts import DiskFacts
from immich_usb_backup.policy.library_findings import OF_CONTENT
from immich_usb_backup.policy.text import printable
from immich_usb_backup.ports import Ports
from immich_usb_backup.release import release
from immich_usb_backup.reminding import remind
from immich_usb_backup.requests import Candidate, Refusal, Refused, mode_of, rereading_of
from immich_usb_backup.trust_look import demand_enrolled
from immich_usb_backup.worker import Current, Worker

_RELEASE_SECONDS = 10.0
_LOOK_SECONDS = 15.0
"""How long it takes to see that a disk is none that is backed up to."""
_CANCELLED_HINT = (
    "The next backup completes it: unplug the disk and plug it in again, or run: sudo immich-usb-backup backup DISK"
)


class Asked:
    """Implements ``requests.Requests``."""

    def __init__(self, ports: Ports, worker: Worker, here: DisksHere, config: Callable[[], Config]) -> None:
        self._ports = ports
        self._worker = worker
        self._here = here
        self._config = config
        self._overview = Overview(ports, worker, here, config)

    async def plan(self, disk: str, mode: str) -> PlanReport:
        """What a run would do now, when its turn has come. Cancelled, the plan is given up and the disk let go of. Raises
        ``Refused``, and what looking at the disk raises."""
        wanted = mode_of(mode)
        chosen, seen = await self._here.called(disk)
        self._refuse_in_a_backup(chosen, seen)
        answer: asyncio.Future[PlanReport] = asyncio.get_running_loop().create_future()
        job = Job(seen, wanted, answer)
        self._worker.queue.add(job)
        try:
            return await answer
        except asyncio.CancelledError:
            self._end_abandoned(job)
            raise

    async def backup(self, disk: str, mode: str, *, trigger: Trigger = Trigger.ASKED) -> str:
        """Have a run begin, or wait for its turn, though this plug-in had one. Raises ``Refused``."""
        wanted = mode_of(mode)
        chosen, seen = await self._here.called(disk)
        await self._demand_enrolled(seen)
        self._refuse_in_a_backup(chosen, seen)
        self._worker.enqueue(Job(seen, wanted, trigger=trigger))
        return chosen.name

    async def verify(self, disk: str, what: str) -> Candidate:
        """Have a run begin that reads back, however long it takes, what is ``due`` or ``all``. Raises ``Refused``."""
        wanted = rereading_of(what)
        chosen, seen = await self._here.called(disk)
        await self._demand_enrolled(seen)
        self._refuse_in_a_backup(chosen, seen)
        self._worker.enqueue(Job(seen, rereading=wanted, trigger=Trigger.ASKED))
        return chosen

    async def eject(self, disk: str) -> str:
        """Have a disk unmounted; a run that only reads it back ends early. Returns when it may be unplugged. Raises
        ``Refused``, ``UnmountBusy``, ``DiskGone``."""
        chosen, seen = await self._here.called(disk)
        if self._worker.runs_on(seen.plug_in):
            await self._end_reading(chosen)
            return chosen.name
        async with self._worker.noting:
            if self._worker.queue.backup_of(seen.plug_in) is not None or self._worker.runs_on(seen.plug_in):
                raise _busy(chosen, "waits for its backup")
            partition = await self._ports.disks.find(seen)
            await release(partition, ports=self._ports, busy_seconds=_RELEASE_SECONDS)
        return chosen.name

    async def _end_reading(self, chosen: Candidate) -> None:
        current = self._worker.current
        assert current is not None
        if not current.job.is_backup:
            raise _busy(chosen, "is being looked at now")
        if not current.stop.all_there:
            raise Refused(
                Refusal.BUSY,
                f"'{printable(chosen.name)}' is being backed up now: what is new is not on it yet",
                hint="Ask again when photos are read back, or wait for the message that says it is safe to unplug.",
            )
        current.stop.wish.set()
        await asyncio.wait({current.task})
        report = None if current.task.cancelled() else current.task.result()
        if report is not None and not report.safe_to_unplug:
            raise Refused(Refusal.FAILED, messages.headline(report), hint="See: journalctl -u immich-usb-backup")

    async def approve(self, disk: str) -> int:
        """Approve the held deletions of a disk; where it is here and there were any, a run follows. Raises ``Refused``,
        ``StateDamaged``."""
        async with self._worker.noting:
            chosen = await self._here.known_as(disk)
            self._refuse_in_use(chosen)
            approved = await self._ports.manifests.approve(chosen.uuid)
        if approved:
            self._follow_up(chosen)
        return approved

    async def adopt(self, disk: str) -> str:
        """Let a disk be taken over from another server; where it is here, a run follows. Raises ``Refused``,
        ``StateDamaged``."""
        async with self._worker.noting:
            chosen = await self._here.known_as(disk)
            self._refuse_in_use(chosen)
            await self._ports.manifests.adopt(chosen.uuid)
        self._follow_up(chosen)
        return chosen.name

    # Ending, forgetting, trying again ---------------------------------------------------------------------

    async def cancel(self, disk: str) -> str:
        """End what goes on, or take what waits from the queue. Raises ``Refused``."""
        current = self._worker.current
        if not disk:
            if current is None:
                raise Refused(Refusal.NOT_RUNNING, "No backup goes on")
            name = await self._here.name_of(current.job.seen)
            _cancel(current)
            return name
        chosen, seen = await self._here.called(disk)
        current = self._worker.current
        if current is not None and self._worker.runs_on(seen.plug_in):
            _cancel(current)
        elif not self._worker.drop(seen.plug_in, Interrupted("The plan was cancelled before its turn came", hint="")):
            message = f"'{printable(chosen.name)}' is neither being backed up nor waiting for it"
            raise Refused(Refusal.NOT_RUNNING, message)
        return chosen.name

    async def forget(self, disk: str) -> str:
        """Remove a disk's enrolment, its history and the server's manifest of it. Raises ``Refused``, ``StateDamaged``."""
        async with self._worker.noting:
            chosen = await self._here.known_as(disk)
            self._refuse_in_use(chosen)
            if chosen.seen is not None and self._worker.waits_for(chosen.seen.plug_in):
                raise _busy(chosen, "waits for its backup")
            await self._ports.enrolments.revoke(chosen.uuid)
            await self._ports.manifests.forget(chosen.uuid)
            await self._ports.history.forget(chosen.uuid)
        self._worker.changed()
        return chosen.name

    async def retry(self, run_id: str) -> str:
        """Have a run begin that copies what that one did not, and reads nothing in turn but what did not read back as it
        was written. Raises ``Refused``."""
        report = await self._overview.report(run_id)
        if report.outcome is Outcome.OK:
            raise Refused(Refusal.BAD_CHOICE, "Nothing is to be tried again: that backup had everything")
        chosen, seen = await self._here.called(report.disk.uuid)
        await self._demand_enrolled(seen)
        self._refuse_in_a_backup(chosen, seen)
        if self._worker.queue.backup_of(seen.plug_in) is None:  # else that one does it
            in_doubt = any(finding.code in OF_CONTENT for finding in report.findings)
            rereading = Rereading.TURN if in_doubt else Rereading.NONE
            self._worker.enqueue(Job(seen, Mode.QUICK, rereading=rereading, trigger=Trigger.ASKED))
        return chosen.name

    # What is told -----------------------------------------------------------------------------------------

    async def disks(self) -> tuple[DiskFacts, ...]:
        """Every disk that is known or plugged in. Raises ``StateDamaged``."""
        return await self._overview.disks()

    async def runs(self, disk: str, number: int, *, failed: bool) -> tuple[RunReport, ...]:
        """The newest runs that are over. Raises ``Refused``, ``StateDamaged``."""
        return await self._overview.runs(disk, number, failed=failed)

    async def report(self, run_id: str) -> RunReport:
        """One run that is over. Raises ``Refused``, ``StateDamaged``."""
        return await self._overview.report(run_id)

    def going(self, disk: Disk) -> tuple[Mode, Trigger] | None:
        """How the run on this disk that has just begun goes, and why it began."""
        current = self._worker.current
        if current is None or not current.job.is_backup:
            return None
        mode = current.job.mode or self._config().mode_of(disk.name, disk.label, disk.uuid)
        return mode, current.job.trigger

    def watch(self, changed: Callable[[], None]) -> None:
        """Have ``changed`` called whenever ``disks`` may have another answer than before."""
        self._worker.changed = changed

    # Elsewhere --------------------------------------------------------------------------------------------

    async def enroll(self, device: str, name: str) -> str:
        """Make the marker of an enrolled disk, and return its name when it is unmounted. A look at a disk that was just
        plugged in is waited for. Raises ``Refused``, and what ``enrolling.enroll`` raises."""
        chosen, seen = await self._here.called(device)
        await self._end_of_look(seen)
        async with self._worker.noting:
            if self._worker.queue.backup_of(seen.plug_in) is not None or self._worker.runs_on(seen.plug_in):
                raise _busy(chosen, "is being backed up now, or waits for it")
            enrolled = await enroll(seen, name.strip(), transports=self._config().disks.transports, ports=self._ports)
        self._worker.changed()
        return enrolled

    async def _end_of_look(self, seen: PartitionSeen) -> None:
        current = self._worker.current
        if current is not None and self._worker.runs_on(seen.plug_in):
            await asyncio.wait({current.task}, timeout=_LOOK_SECONDS)

    async def remind(self) -> int:
        """Remind of the disks that are due. Raises ``StateDamaged``."""
        current = self._worker.current
        return await remind(
            self._config(),
            history=self._ports.history,
            book=self._ports.reminder_book,
            outbox=self._ports.outbox,
            watchers=self._ports.watchers,
            log=self._ports.log,
            clock=self._ports.clock,
            server=self._ports.server,
            here=self._here.uuids(),
            running=current.job.seen.uuid if current is not None and current.job.is_backup else "",
        )

    def _end_abandoned(self, job: Job) -> None:
        """One that still waits for its turn is skipped when that comes."""
        if self._worker.current is not None and self._worker.current.job is job:
            self._worker.current.cancel(Interrupted("The plan was stopped: nobody waits for it any more", hint=""))

    def _follow_up(self, chosen: Candidate) -> None:
        if chosen.seen is not None and chosen.seen.plug_in in self._here:
            self._worker.enqueue(Job(chosen.seen, trigger=Trigger.ASKED))

    async def _demand_enrolled(self, seen: PartitionSeen) -> None:
        await demand_enrolled(seen, trust=self._config().disks.trust, ports=self._ports)

    def _refuse_in_a_backup(self, chosen: Candidate, seen: PartitionSeen) -> None:
        if self._worker.stopping.is_set():
            raise Refused(Refusal.FAILED, "The backup service is being stopped")
        current = self._worker.current
        if current is not None and current.job.is_backup and self._worker.runs_on(seen.plug_in):
            raise _busy(chosen, "is being backed up now")

    def _refuse_in_use(self, chosen: Candidate) -> None:
        """What is written down about a disk now would be lost on a job that has read it already."""
        if self._worker.current is not None and self._worker.current.job.seen.uuid == chosen.uuid:
            raise _busy(
                chosen, "is being backed up now" if self._worker.current.job.is_backup else "is being looked at now"
            )


def _cancel(current: Current) -> None:
    """Once everything is on the disk, the run is asked to end by itself; asked a second time, it is interrupted."""
    if current.stop.all_there and not current.stop.wish.is_set():
        current.stop.wish.set()
        return
    hint = _CANCELLED_HINT if current.job.is_backup else ""
    current.cancel(Interrupted(f"The {current.what} was cancelled by somebody on the server", hint=hint))


def _busy(chosen: Candidate, doing: str) -> Refused:
    return Refused(Refusal.BUSY, f"'{printable(chosen.name)}' {doing}", hint="Ask again when that is over.")
