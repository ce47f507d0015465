"""Events and requests in, one worker, one run at a time; and how the service starts, reloads and stops."""

from __future__ import annotations

import asyncio
import traceback
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from immich_usb_backup import messages, recovery
from immich_usb_backup.config import Config
from immich_usb_backup.disks_here import DisksHere
from immich_usb_backup.dry_run import dry_run
from immich_usb_backup.errors import BackupError, BusLost, ConfigError, DiskGone, Interrupted
from immich_usb_backup.events import Event
from immich_usb_backup.jobs import Job, JobQueue
from immich_usb_backup.model import DeviceAction, PartitionSeen, PlanReport, PlugIn, RunReport
from immich_usb_backup.policy.eligibility import judge_seen, worth_a_line
from immich_usb_backup.policy.text import printable
from immich_usb_backup.ports import Ports
from immich_usb_backup.release import release
from immich_usb_backup.requests import Candidate, Refusal, Refused, mode_of, rereading_of
from immich_usb_backup.run import Stop, back_up

_HANDLED_KEPT = 500
_WISH_SECONDS = 20.0
"""How long a run may take to end by itself when the service is stopped, once everything is on the disk."""
_RELEASE_SECONDS = 10.0
_ASK_AGAIN = "Plug it in and ask again."


@dataclass(frozen=True, slots=True)
class _Current:
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


class Daemon:
    """The long-running part. ``reload`` reads the configuration again; ``bus_lost`` returns when D-Bus is gone.

    Implements ``requests.Requests`` for whoever brings a person's requests.
    """

    def __init__(
        self,
        config: Config,
        ports: Ports,
        *,
        reload: Callable[[], Config],
        bus_lost: Callable[[], Coroutine[Any, Any, None]],
        runs_at_most: int | None = None,
    ) -> None:
        self.config = config
        self._ports = ports
        self._reload = reload
        self._bus_lost = bus_lost
        self._runs_left = runs_at_most
        self._queue = JobQueue()
        self._stopping = asyncio.Event()
        self._current: _Current | None = None
        self._noting = asyncio.Lock()
        """Held while an approval is written down; no job begins meanwhile, as it would have the same file open."""
        self._here = DisksHere(ports, lambda: self.config.disks.transports)
        self._handled: OrderedDict[PlugIn, str] = OrderedDict()
        self._rejected: OrderedDict[PlugIn, tuple[str, ...]] = OrderedDict()

    async def run(self, *, ready: Callable[[], None]) -> None:
        """Work until ``stop``. ``ready`` is called when plugging in is noticed. Raises ``BusLost``."""
        await recovery.clean_up(self._ports)
        await self._ports.devices.start()
        ready()
        self._ports.log.say(Event.READY, transports=", ".join(self.config.disks.transports))
        tasks = [asyncio.ensure_future(work) for work in (self._listen(), self._work(), self._stopping.wait())]
        lost = asyncio.ensure_future(self._bus_lost())
        try:
            done, _ = await asyncio.wait({lost, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            await self._end_current(lost_bus=lost in done)
        finally:
            await _cancel({lost, *tasks})
        for task in done:
            task.result()
        if lost in done:
            raise BusLost("The connection to D-Bus was lost")

    def stop(self) -> None:
        """End: a run that goes on is interrupted, its disk unmounted, its outcome recorded."""
        self._stopping.set()

    @property
    def healthy(self) -> bool:
        """Whether the service does what it is there for; the watchdog is fed only then."""
        return not self._stopping.is_set()

    @property
    def busy(self) -> bool:
        """Whether a run goes on."""
        return self._current is not None

    def reload(self) -> None:
        """Read the configuration again. One with mistakes changes nothing; a run that goes on keeps its own."""
        try:
            self.config = self._reload()
        except ConfigError as error:
            self._ports.log.say(Event.RELOAD_REFUSED, problems="; ".join(error.problems))
        else:
            self._ports.log.say(Event.RELOADED)
            self._rejected.clear()

    async def _listen(self) -> None:
        async for seen in self._ports.devices.events():
            if seen.action is DeviceAction.REMOVE:
                self._on_removed(seen)
            else:
                await self._on_seen(seen)

    def _on_removed(self, seen: PartitionSeen) -> None:
        self._here.forget(seen.plug_in)
        self._queue.drop(seen.plug_in, _gone(seen, "its turn came", hint=_ASK_AGAIN))
        self._rejected.pop(seen.plug_in, None)
        self._cancel_if_pulled(seen)
        name = self._handled.pop(seen.plug_in, None)
        if name:
            self._ports.log.say(Event.DISK_REMOVED, disk=name, uuid=seen.uuid, device=seen.device_node)
            self._ports.watchers.disk_removed(seen.uuid, name)

    def _cancel_if_pulled(self, seen: PartitionSeen) -> None:
        """The disk of the job that goes on was pulled, or is another one now."""
        current = self._current
        if current is None:
            return
        replaced = seen.plug_in.device_number == current.plug_in.device_number and seen.plug_in != current.plug_in
        if seen.plug_in == current.plug_in or replaced:
            hint = None if current.job.is_backup else _ASK_AGAIN
            current.cancel(_gone(current.job.seen, f"the {current.what} was finished", hint=hint))

    async def _on_seen(self, seen: PartitionSeen) -> None:
        self._here.note(seen)
        if self._current is not None and seen.plug_in != self._current.plug_in:
            self._cancel_if_pulled(seen)
        if self._is_known(seen.plug_in):
            return
        verdict = judge_seen(seen, transports=self.config.disks.transports)
        if not verdict.accepted:
            self._reject(seen, verdict.reasons)
            return
        if await self._had_its_run(seen.plug_in):
            _remember(self._handled, seen.plug_in, "")
            return
        if not self._is_known(seen.plug_in):  # somebody may have asked for it meanwhile
            self._enqueue(Job(seen))

    def _is_known(self, plug_in: PlugIn) -> bool:
        current = self._current
        # one that went and came back (its partitions were read again) is new: its run is ending
        running = current is not None and current.plug_in == plug_in and current.goes_on
        return running or self._queue.backup_of(plug_in) is not None or plug_in in self._handled

    async def _had_its_run(self, plug_in: PlugIn) -> bool:
        try:
            return await self._ports.history.handled(plug_in)
        except BackupError as error:
            self._ports.log.say(Event.FATAL, message=error.message, hint=error.hint)
            return False

    def _reject(self, seen: PartitionSeen, reasons: tuple[str, ...]) -> None:
        """One line in the journal for each plug-in, not for each of its events."""
        if self._rejected.get(seen.plug_in) == reasons:
            return
        _remember(self._rejected, seen.plug_in, reasons)
        event = Event.DISK_IGNORED if worth_a_line(seen) else Event.DISK_IRRELEVANT
        self._ports.log.say(
            event, device=seen.device_node, label=seen.label, uuid=seen.uuid, reasons="; ".join(reasons)
        )

    def _enqueue(self, job: Job) -> None:
        if self._stopping.is_set():
            return
        seen = job.seen
        if self._current is not None or len(self._queue):
            self._ports.log.say(Event.DISK_QUEUED, device=seen.device_node, label=seen.label, uuid=seen.uuid)
        self._queue.add(job)

    # The worker -------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while self._runs_left is None or self._runs_left > 0:
            await self._queue.filled()
            async with self._noting:
                self._current = self._begin_next()
            if self._current is not None:
                await self._finish(self._current)

    def _begin_next(self) -> _Current | None:
        job = self._queue.take()
        if job is None:
            return None
        stop = Stop(drive_wanted=lambda: self._queue.wants_drive_of(job.seen.plug_in))
        return _Current(job, stop, asyncio.ensure_future(self._do(job, stop)))

    async def _do(self, job: Job, stop: Stop) -> RunReport | None:
        if job.is_backup:
            return await self._back_up(job, stop)
        try:
            job.succeed(await dry_run(job.seen, config=self.config, ports=self._ports, mode=job.mode, stop=stop))
        except (BackupError, OSError) as error:
            job.fail(stop.cause or _as_backup_error(error))
        except Exception as error:  # noqa: BLE001  # whatever went wrong in a plan, the next disk is waited for
            self._ports.log.say(Event.BUG, message=repr(error), trace=traceback.format_exc())
            message = "The backup program made a mistake"
            job.fail(Refused(Refusal.FAILED, message, hint="See: journalctl -u immich-usb-backup"))
        return None

    async def _back_up(self, job: Job, stop: Stop) -> RunReport | None:
        return await back_up(
            job.seen, config=self.config, ports=self._ports, stop=stop, mode=job.mode, rereading=job.rereading
        )

    async def _finish(self, current: _Current) -> None:
        try:
            await asyncio.wait({current.task})
        finally:
            self._current = None
            current.job.fail(current.stop.cause or Interrupted("The plan was stopped"))
        report = None if current.task.cancelled() else current.task.result()
        if current.job.is_backup:
            self._after_backup(current, report)

    def _after_backup(self, current: _Current, report: RunReport | None) -> None:
        came_back = not current.goes_on and self._queue.backup_of(current.plug_in) is not None
        if self._ports.devices.present(current.plug_in) and not came_back:
            _remember(self._handled, current.plug_in, report.disk.name if report else "")
        if report is not None and self._runs_left is not None:
            self._runs_left -= 1

    async def _end_current(self, *, lost_bus: bool) -> None:
        """Interrupt the job that goes on, and wait until its disk is unmounted and its outcome recorded."""
        self._stopping.set()
        why = "the connection to D-Bus was lost" if lost_bus else "the backup service was stopped"
        self._queue.clear(Interrupted(f"There will be no plan: {why}", hint=""))
        if self._current is None:
            return
        current = self._current
        if current.stop.all_there and not lost_bus:
            current.stop.wish.set()
            await asyncio.wait({current.task}, timeout=_WISH_SECONDS)
        hint = None if current.job.is_backup else ""
        current.cancel(Interrupted(f"The {current.what} was interrupted: {why}", hint=hint))
        await asyncio.wait({current.task})

    # What a person asks for -------------------------------------------------------------------------------

    async def plan(self, disk: str, mode: str) -> PlanReport:
        """What a run would do now, when its turn has come. Cancelled, the plan is given up and the disk let go of. Raises
        ``Refused``, and what looking at the disk raises."""
        wanted = mode_of(mode)
        chosen, seen = await self._here.called(disk)
        self._refuse_in_a_backup(chosen, seen)
        answer: asyncio.Future[PlanReport] = asyncio.get_running_loop().create_future()
        job = Job(seen, wanted, answer)
        self._queue.add(job)
        try:
            return await answer
        except asyncio.CancelledError:
            self._end_abandoned(job)
            raise

    async def backup(self, disk: str, mode: str) -> str:
        """Have a run begin, or wait for its turn, though this plug-in had one. Raises ``Refused``."""
        wanted = mode_of(mode)
        chosen, seen = await self._here.called(disk)
        self._refuse_in_a_backup(chosen, seen)
        self._enqueue(Job(seen, wanted))
        return chosen.name

    async def verify(self, disk: str, what: str) -> Candidate:
        """Have a run begin that reads back, however long it takes, what is ``due`` or ``all``. Raises ``Refused``."""
        wanted = rereading_of(what)
        chosen, seen = await self._here.called(disk)
        self._refuse_in_a_backup(chosen, seen)
        self._enqueue(Job(seen, rereading=wanted))
        return chosen

    async def eject(self, disk: str) -> str:
        """Have a disk unmounted; a run that only reads it back ends early. Returns when it may be unplugged. Raises
        ``Refused``, ``UnmountBusy``, ``DiskGone``."""
        chosen, seen = await self._here.called(disk)
        if self._is_current(seen):
            await self._end_reading(chosen)
            return chosen.name
        async with self._noting:
            if self._queue.backup_of(seen.plug_in) is not None or self._is_current(seen):
                raise _busy(chosen, "waits for its backup")
            partition = await self._ports.disks.find(seen)
            await release(partition, ports=self._ports, busy_seconds=_RELEASE_SECONDS)
        return chosen.name

    def _is_current(self, seen: PartitionSeen) -> bool:
        current = self._current
        return current is not None and current.plug_in == seen.plug_in and current.goes_on

    async def _end_reading(self, chosen: Candidate) -> None:
        current = self._current
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
        async with self._noting:
            chosen = await self._here.known_as(disk)
            self._refuse_in_use(chosen)
            approved = await self._ports.manifests.approve(chosen.uuid)
        if approved:
            self._follow_up(chosen)
        return approved

    async def adopt(self, disk: str) -> str:
        """Let a disk be taken over from another server; where it is here, a run follows. Raises ``Refused``,
        ``StateDamaged``."""
        async with self._noting:
            chosen = await self._here.known_as(disk)
            self._refuse_in_use(chosen)
            await self._ports.manifests.adopt(chosen.uuid)
        self._follow_up(chosen)
        return chosen.name

    def _end_abandoned(self, job: Job) -> None:
        """One that still waits for its turn is skipped when that comes."""
        if self._current is not None and self._current.job is job:
            self._current.cancel(Interrupted("The plan was stopped: nobody waits for it any more", hint=""))

    def _follow_up(self, chosen: Candidate) -> None:
        if chosen.seen is not None and chosen.seen.plug_in in self._here:
            self._enqueue(Job(chosen.seen))

    def _refuse_in_a_backup(self, chosen: Candidate, seen: PartitionSeen) -> None:
        if self._stopping.is_set():
            raise Refused(Refusal.FAILED, "The backup service is being stopped")
        current = self._current
        if current is not None and current.job.is_backup and current.plug_in == seen.plug_in and current.goes_on:
            raise _busy(chosen, "is being backed up now")

    def _refuse_in_use(self, chosen: Candidate) -> None:
        """What is written down about a disk now would be lost on a job that has read it already."""
        if self._current is not None and self._current.job.seen.uuid == chosen.uuid:
            raise _busy(chosen, "is being backed up now" if self._current.job.is_backup else "is being looked at now")


def _busy(chosen: Candidate, doing: str) -> Refused:
    return Refused(Refusal.BUSY, f"'{printable(chosen.name)}' {doing}", hint="Ask again when that is over.")


def _gone(seen: PartitionSeen, before: str, *, hint: str | None = None) -> DiskGone:
    return DiskGone(f"{seen.device_node} was unplugged before {before}", hint=hint)


def _as_backup_error(error: BackupError | OSError) -> BackupError:
    return error if isinstance(error, BackupError) else BackupError(f"The disk answered: {error.strerror or error}")


def _remember(known: OrderedDict[PlugIn, Any], plug_in: PlugIn, value: Any) -> None:
    known[plug_in] = value
    while len(known) > _HANDLED_KEPT:
        known.popitem(last=False)


async def _cancel(tasks: set[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
