"""One job at a time: backups, which plugging in or a person asks for, and plans, which somebody waits for."""

from __future__ import annotations

import asyncio
import traceback
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from immich_usb_backup.config import Config
from immich_usb_backup.dry_run import dry_run
from immich_usb_backup.errors import BackupError, DiskGone, Interrupted
from immich_usb_backup.events import Event
from immich_usb_backup.jobs import Job, JobQueue
from immich_usb_backup.mains import Mains
from immich_usb_backup.model import PartitionSeen, PlugIn, RunReport
from immich_usb_backup.ports import Ports
from immich_usb_backup.requests import Refusal, Refused
from immich_usb_backup.run import Stop, back_up

_HANDLED_KEPT = 500
_WISH_SECONDS = 20.0
"""How long a run may take to end by itself when the service is stopped, once everything is on the disk."""
_ASK_AGAIN = "Plug it in and ask again."


@dataclass(frozen=True, slots=True)
class Current:
    """The job that the worker has taken. Its task ends with a report where there was a run."""

    job: Job
    stop: Stop
    task: asyncio.Task[RunReport | None]

    @property
    def plug_in(self) -> PlugIn:
        """Which plugging-in of which disk it is about."""
        return self.job.seen.plug_in

    @property
    def what(self) -> str:
        """What it is called in messages."""
        return "backup" if self.job.is_backup else "plan"

    @property
    def goes_on(self) -> bool:
        """Whether it has not lost its disk."""
        return not isinstance(self.stop.cause, DiskGone)

    def cancel(self, cause: BackupError) -> None:
        """End it; the first cause is the one that counts."""
        self.stop.cause = self.stop.cause or cause
        self.task.cancel()


class Worker:
    """Takes jobs in the order in which they came. ``config`` is the one that holds when a job begins."""

    def __init__(self, ports: Ports, config: Callable[[], Config], *, runs_at_most: int | None) -> None:
        self._ports = ports
        self._config = config
        self._runs_left = runs_at_most
        self.queue = JobQueue()
        self.mains = Mains(ports, config, self.enqueue)
        self.current: Current | None = None
        self.stopping = asyncio.Event()
        """Set when nothing more is to be begun."""
        self.noting = asyncio.Lock()
        """Held while something is written down about a disk; no job begins meanwhile, as it would have the same file open."""
        self.handled: OrderedDict[PlugIn, str] = OrderedDict()
        """The plug-ins that had their run, with the disk's name where it is one of ours."""
        self.changed: Callable[[], None] = lambda: None
        """Called when something waits, begins or is over."""
        self.anew = asyncio.Event()
        """Set when the service is to end as soon as it has nothing to do."""
        self._something = asyncio.Event()

    async def work(self) -> None:
        """Do what is in the queue, one after the other, until there have been as many runs as there may be."""
        while self._runs_left is None or self._runs_left > 0:
            await self.queue.filled()
            async with self.noting:
                self.current = self._begin_next()
            self._news()
            if self.current is not None:
                await self._finish(self.current)

    async def end_when_idle(self) -> None:
        """Once ``anew`` is set: return when nothing goes on, waits or is being written down; then nothing begins any more."""
        await self.anew.wait()
        while True:
            self._something.clear()
            async with self.noting:
                if self.current is None and not len(self.queue):
                    self.stopping.set()
                    return
            await self._something.wait()

    def _news(self) -> None:
        self._something.set()
        self.changed()

    def enqueue(self, job: Job) -> None:
        """Have it done when its turn comes."""
        if self.stopping.is_set():
            return
        seen = job.seen
        if self.current is not None or len(self.queue):
            self._ports.log.say(Event.DISK_QUEUED, device=seen.device_node, label=seen.label, uuid=seen.uuid)
        self.queue.add(job)
        self._news()

    def remember(self, plug_in: PlugIn, name: str) -> None:
        """It had its run, on a disk of this name."""
        self.handled[plug_in] = name
        while len(self.handled) > _HANDLED_KEPT:
            self.handled.popitem(last=False)

    def drop(self, plug_in: PlugIn, why: BackupError) -> bool:
        """Take what waits for this plug-in's disk from the queue. Plugged in as it is, it is not begun again by itself.
        Returns whether there was anything."""
        if not self.waits_for(plug_in):
            return False
        if self.mains.cancelled(plug_in) or self.queue.backup_of(plug_in) is not None:
            self.remember(plug_in, self.handled.get(plug_in, ""))
        self.queue.drop(plug_in, why)
        self._news()
        return True

    def waits_for(self, plug_in: PlugIn) -> bool:
        """Whether anything waits for this plug-in's disk: for its turn, or for mains power."""
        return self.queue.waits_for(plug_in) or self.mains.waits_for(plug_in)

    def knows(self, plug_in: PlugIn) -> bool:
        """Whether it had its run, has it now, or waits for it."""
        waits = self.queue.backup_of(plug_in) is not None or self.mains.waits_for(plug_in)
        return waits or self.runs_on(plug_in) or plug_in in self.handled

    def runs_on(self, plug_in: PlugIn) -> bool:
        """Whether the job that goes on is about it. One that went and came back (its partitions were read again) is new:
        its run is ending."""
        current = self.current
        return current is not None and current.plug_in == plug_in and current.goes_on

    def removed(self, seen: PartitionSeen) -> None:
        """A disk was unplugged."""
        self.queue.drop(seen.plug_in, _gone(seen, "its turn came", hint=_ASK_AGAIN))
        self.mains.removed(seen.plug_in)
        self.cancel_if_pulled(seen)
        self._news()

    def cancel_if_pulled(self, seen: PartitionSeen) -> None:
        """The disk of the job that goes on was pulled, or is another one now."""
        current = self.current
        if current is None:
            return
        replaced = seen.plug_in.device_number == current.plug_in.device_number and seen.plug_in != current.plug_in
        if seen.plug_in == current.plug_in or replaced:
            hint = None if current.job.is_backup else _ASK_AGAIN
            current.cancel(_gone(current.job.seen, f"the {current.what} was finished", hint=hint))

    async def end(self, *, lost_bus: bool) -> None:
        """Begin nothing more, interrupt the job that goes on, and wait until its disk is unmounted and its outcome recorded."""
        self.stopping.set()
        why = "the connection to D-Bus was lost" if lost_bus else "the backup service was stopped"
        self.queue.clear(Interrupted(f"There will be no plan: {why}", hint=""))
        if self.current is None:
            return
        current = self.current
        if current.stop.all_there and not lost_bus:
            current.stop.wish.set()
            await asyncio.wait({current.task}, timeout=_WISH_SECONDS)
        hint = None if current.job.is_backup else ""
        current.cancel(Interrupted(f"The {current.what} was interrupted: {why}", hint=hint))
        await asyncio.wait({current.task})

    def _begin_next(self) -> Current | None:
        job = self.queue.take()
        if job is None:
            return None
        stop = Stop(drive_wanted=lambda: self.queue.wants_drive_of(job.seen.plug_in))
        return Current(job, stop, asyncio.ensure_future(self._do(job, stop)))

    async def _do(self, job: Job, stop: Stop) -> RunReport | None:
        if job.is_backup:
            return await self._back_up(job, stop)
        try:
            job.succeed(await dry_run(job.seen, config=self._config(), ports=self._ports, mode=job.mode, stop=stop))
        except (BackupError, OSError) as error:
            job.fail(stop.cause or _as_backup_error(error))
        except Exception as error:  # noqa: BLE001  # whatever went wrong in a plan, the next disk is waited for
            self._ports.log.say(Event.BUG, message=repr(error), trace=traceback.format_exc())
            message = "The backup program made a mistake"
            job.fail(Refused(Refusal.FAILED, message, hint="See: journalctl -u immich-usb-backup"))
        return None

    async def _back_up(self, job: Job, stop: Stop) -> RunReport | None:
        return await back_up(
            job.seen,
            config=self._config(),
            ports=self._ports,
            stop=stop,
            mode=job.mode,
            rereading=job.rereading,
            trigger=job.trigger,
            allowed=lambda disk: self.mains.allows(job, disk),
        )

    async def _finish(self, current: Current) -> None:
        try:
            await asyncio.wait({current.task})
        finally:
            self.current = None
            self._news()
            current.job.fail(current.stop.cause or Interrupted("The plan was stopped"))
        report = None if current.task.cancelled() else current.task.result()
        if current.job.is_backup:
            self._after_backup(current, report)

    def _after_backup(self, current: Current, report: RunReport | None) -> None:
        came_back = not current.goes_on and self.queue.backup_of(current.plug_in) is not None
        if self._ports.devices.present(current.plug_in) and not came_back:
            self.remember(current.plug_in, report.disk.name if report else "")
        if report is not None and self._runs_left is not None:
            self._runs_left -= 1


def _gone(seen: PartitionSeen, before: str, *, hint: str | None = None) -> DiskGone:
    return DiskGone(f"{seen.device_node} was unplugged before {before}", hint=hint)


def _as_backup_error(error: BackupError | OSError) -> BackupError:
    return error if isinstance(error, BackupError) else BackupError(f"The disk answered: {error.strerror or error}")
