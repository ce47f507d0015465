"""One plug-in, from the partition that udev saw to the outcome that is told. Read it from top to bottom."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace

from structlog.contextvars import bound_contextvars

from immich_usb_backup import messages
from immich_usb_backup.announce import announce, announce_begin
from immich_usb_backup.config import Config
from immich_usb_backup.errors import (
    BackupError,
    DeadlineMissed,
    DiskGone,
    DiskReadOnly,
    Interrupted,
    MountFailed,
    SourceUnreadable,
    StateDamaged,
    UnmountBusy,
    WrongDevice,
)
from immich_usb_backup.events import Event
from immich_usb_backup.first_look import as_backup_error, first_look, new_run_id
from immich_usb_backup.marker_look import Looked, mount_for_writing
from immich_usb_backup.model import (
    Disk,
    Finding,
    Mode,
    Mount,
    Outcome,
    PartitionSeen,
    Rereading,
    RunReport,
    Severity,
    Stage,
    StageReport,
    Trigger,
)
from immich_usb_backup.policy.marker import has_folder_name
from immich_usb_backup.policy.outcome import conclude, finding_of
from immich_usb_backup.policy.report import first_report, identify
from immich_usb_backup.policy.text import duration
from immich_usb_backup.ports import Ports, Target
from immich_usb_backup.protect import protected
from immich_usb_backup.release import release
from immich_usb_backup.stages.assets import open_assets
from immich_usb_backup.stages.books import Books
from immich_usb_backup.stages.config_files import back_up_config
from immich_usb_backup.stages.context import RunContext, Work
from immich_usb_backup.stages.database import back_up_database
from immich_usb_backup.stages.file_system import check_file_system
from immich_usb_backup.stages.mirror import mirror
from immich_usb_backup.stages.page import write_page
from immich_usb_backup.stages.prove import due, prove
from immich_usb_backup.stages.verdict import judge

_PULLED_HINT = (
    "Next time wait for the message that says it is safe to unplug, or run: sudo immich-usb-backup eject DISK"
)

PULL_SECONDS = 2.0
"""How long the news of a pulled disk may take after its first errors."""


@dataclass(slots=True)
class Stop:
    """Why a run is being cancelled; set before the cancellation."""

    cause: BackupError | None = None
    drive_wanted: Callable[[], bool] = lambda: False
    """Whether another partition of the same drive waits for its turn."""
    wish: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when somebody wants to unplug the disk, or the service is to end: what is not needed is left for the next time."""
    all_there: bool = False
    """Whether everything is on the disk, so that ``wish`` leads to the end of the run."""


async def back_up(
    seen: PartitionSeen,
    *,
    config: Config,
    ports: Ports,
    stop: Stop,
    mode: Mode | None = None,
    rereading: Rereading = Rereading.TURN,
    trigger: Trigger = Trigger.PLUG_IN,
    allowed: Callable[[Disk], Awaitable[bool]] | None = None,
) -> RunReport | None:
    """Look for the marker; where it is, back up, unmount, record and tell. None for a disk that is not ours, and where
    ``allowed`` says no.

    Cancelled, it cleans up, records why, and returns the report all the same.
    """
    with bound_contextvars(device=seen.device_node, uuid=seen.uuid):
        try:
            looked = await first_look(seen, config=config, ports=ports)
        except Exception as error:  # noqa: BLE001  # whatever lies on one disk, the next one is waited for
            ports.log.say(Event.BUG, message=repr(error), trace=traceback.format_exc())
            return None
        if looked is None or (allowed is not None and not await allowed(_disk_of(seen, looked))):
            return None
        run = _Run(seen, looked, config=config, ports=ports, stop=stop, mode=mode, rereading=rereading, trigger=trigger)
        return await run.story()


def _disk_of(seen: PartitionSeen, looked: Looked) -> Disk:
    assert looked.marker is not None
    return identify(seen, looked.partition, looked.marker.name)


class _Run:
    """A run on a marked disk."""

    def __init__(
        self,
        seen: PartitionSeen,
        looked: Looked,
        *,
        config: Config,
        ports: Ports,
        stop: Stop,
        mode: Mode | None,
        rereading: Rereading,
        trigger: Trigger,
    ) -> None:
        assert looked.marker is not None
        self._seen = seen
        self._looked = looked
        self._marker = looked.marker
        self._partition = looked.partition
        self._ports = ports
        self._stop = stop
        self._trigger = trigger
        self._mounted: Mount | None = None
        self._books = Books()
        self._copied = False
        self._flushed = False
        self._unmounted = True
        self._powered_off = False
        disk = _disk_of(seen, looked)
        self._run = RunContext(
            run_id=new_run_id(ports),
            disk=disk,
            started=ports.clock.now(),
            config=config,
            ports=ports,
            mode=mode or config.mode_of(disk.name, disk.label, disk.uuid),
            rereading=rereading,
        )

    async def story(self) -> RunReport:
        """Begin, work, conclude, tell."""
        with bound_contextvars(run=self._run.run_id, disk=self._run.disk.name):
            await self._work()
            await _finish(self._was_it_pulled())
            self._tell_what_was_seen()
            report = self._conclude()
            await _finish(announce(report, self._ports))
            return report

    def _tell_what_was_seen(self) -> None:
        """What the look before the run has to say, once the photos are on the disk."""
        for finding in self._looked.findings if self._copied else ():
            self._run.note(finding)
            self._say(finding)

    async def _begin(self) -> None:
        run = self._run
        self._ports.watchers.started(run.run_id, run.disk)
        first = first_report(run.run_id, self._ports.server, run.disk, run.started)
        first = replace(first, mode=run.mode, trigger=self._trigger)
        try:
            await self._ports.history.begin(first, self._seen.plug_in)
        except BackupError as error:
            finding = finding_of(error)
            run.note(replace(finding, severity=Severity.PARTIAL))  # the photos are worth more than the history
        await announce_begin(first, self._ports)

    async def _work(self) -> None:
        """All that can go wrong ends here, as a finding. The outermost edge of a run."""
        try:
            await protected(self._begin())
            async with self._ports.inhibitor.held(f"Backing up to '{self._run.disk.name}'"):
                await self._with_disk()
        except asyncio.CancelledError:
            cause = self._stop.cause or Interrupted("The backup was stopped")
            if not (self._done_with_disk and isinstance(cause, DiskGone)):
                self._note_error(cause)
            _forget_cancellation()
        except (BackupError, OSError) as error:
            self._note_error(as_backup_error(error))
        except Exception as error:  # noqa: BLE001  # a bug must end in an unmounted disk and a message, not in silence
            self._ports.log.say(Event.BUG, message=repr(error), trace=traceback.format_exc())
            self._run.note(_bug(error))

    async def _was_it_pulled(self) -> None:
        """A disk that is pulled answers with errors for a moment before it is gone: then the errors are not its fault."""
        if (self._flushed and self._unmounted) or conclude(self._run.findings) is not Outcome.FAILED:
            return
        if await self._ports.devices.gone(self._seen.plug_in, seconds=PULL_SECONDS):
            node = self._seen.device_node
            self._note_error(DiskGone(f"{node} was unplugged before the backup was finished"))

    @property
    def _done_with_disk(self) -> bool:
        """Whether the disk may go, as it does when it is switched off."""
        return self._copied and self._flushed and self._unmounted

    def _note_error(self, error: BackupError) -> None:
        if isinstance(error, DiskGone) and self._books.settled:
            message = (
                f"{self._seen.device_node} was unplugged before it was unmounted: everything is on it, nothing is lost"
            )
            error = DiskGone(message, hint=_PULLED_HINT)
        self._note_once(finding_of(error))

    def _note_once(self, finding: Finding) -> None:
        if all(known.code != finding.code for known in self._run.findings):
            self._run.note(finding)

    async def _with_disk(self) -> None:
        self._run.show(Stage.MOUNT)
        if self._partition.read_only:
            raise DiskReadOnly(f"{self._partition.device_node} is write-protected")
        target: Target | None = None
        books = self._books
        try:
            unclean = await self._check_file_system()
            await protected(self._mount())  # UDisks2 mounts whether or not somebody still waits for its answer
            target = await self._open()
            work = await books.open(self._run, target, unclean=unclean)
            await self._copy_everything(work)
            await self._read_in_turn(work)
            await self._tell_its_worth(work)
            self._copied = True
        except asyncio.CancelledError:
            books.leave_open()
            raise
        finally:
            if self._mounted is not None:
                await protected(self._let_go(target, books))

    async def _check_file_system(self) -> bool:
        """Whether it had not been unmounted properly. A mount that a desktop made is taken over first; where it is busy, it is used unchecked."""
        if self._looked.automounted:
            try:
                await self._ports.disks.unmount(self._partition)
            except UnmountBusy:
                return False
        state = self._looked.state
        carries_ours = state is not None and state.server_id == await self._ports.manifests.server_id()
        ours = carries_ours and state is not None and state.writing
        before = len(self._run.findings)
        unclean = await check_file_system(self._run, self._partition, ours=ours, carries_ours=carries_ours)
        for finding in self._run.findings[before:]:
            self._say(finding)
        return unclean

    async def _mount(self) -> None:
        self._unmounted = False
        try:
            self._mounted = await mount_for_writing(self._partition, self._ports)
        except (MountFailed, WrongDevice):
            self._unmounted = True
            raise

    async def _open(self) -> Target:
        assert self._mounted is not None
        entry = self._marker.entry if has_folder_name(self._marker) else None
        target = await self._ports.targets.open(self._mounted, marker_entry=entry)
        free = await target.free_bytes()
        self._ports.log.say(
            Event.RUN_STARTED,
            disk=self._run.disk.name,
            device=self._seen.device_node,
            total_bytes=self._run.disk.size,
            free_bytes=free,
        )
        return target

    async def _copy_everything(self, work: Work) -> None:
        await self._stage(lambda: back_up_database(work))
        await self._saying(open_assets(work))
        await self._stage(lambda: back_up_config(work))
        await self._saying(mirror(work, self._tell))

    async def _read_in_turn(self, work: Work) -> None:
        """Read again what was on the disk before, as long as it may take. The disk is settled first: from then on a pull
        costs nothing until more is written."""
        turn = await due(work)
        if turn is None or self._stop.wish.is_set():
            return
        await self._settle(work.target)
        self._stop.all_there = True
        await self._saying(prove(work, turn, self._tell, wish=self._stop.wish))

    async def _tell_its_worth(self, work: Work) -> None:
        """The verdict, and the page on the disk that shows it. Without a verdict it is a backup all the same."""
        self._run.free_bytes = await work.target.free_bytes()
        try:
            await self._saying(judge(work))
        except (StateDamaged, SourceUnreadable, DeadlineMissed) as error:
            self._run.note(replace(finding_of(error), severity=Severity.PARTIAL))
        await self._saying(write_page(work))

    async def _settle(self, target: Target) -> None:
        await target.flush(self._run.show_flush)
        await self._books.write_manifest()
        await self._books.settle()

    async def _saying(self, work: Awaitable[object]) -> None:
        """Await it, and say what it noticed."""
        before = len(self._run.findings)
        await work
        for finding in self._run.findings[before:]:
            self._say(finding)

    async def _stage(self, work: Callable[[], Awaitable[StageReport]]) -> None:
        async def body() -> None:
            self._tell(await work())

        await self._saying(body())

    def _tell(self, report: StageReport) -> None:
        self._run.stages.append(report)
        self._ports.log.say(
            Event.STAGE_DONE,
            stage=report.stage.value,
            summary=report.summary,
            seconds=round(report.seconds, 3),
            files=report.files,
            bytes=report.bytes,
        )

    def _say(self, finding: Finding) -> None:
        event = Event.FINDING_NOTE if finding.severity is Severity.NOTE else Event.FINDING
        self._ports.log.say(
            event,
            finding=finding.code,
            message=messages.finding_line(finding),
            hint=finding.hint,
            items=finding.items,
            count=finding.count,
        )

    async def _let_go(self, target: Target | None, books: Books) -> None:
        """Flush, close, unmount, power off. Runs to its end whatever happens; each failure becomes a finding."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._unmount)
            stack.push_async_callback(books.close)
            if target is not None:
                stack.push_async_callback(target.close)
                await self._flush(target, books)
        if self._unmounted and self._run.config.disks.power_off and not self._stop.drive_wanted():
            await self._power_off()

    async def _flush(self, target: Target, books: Books) -> None:
        began = self._ports.clock.monotonic()
        self._run.show_flush(0)
        try:
            # First of all the files: an fsync, as the manifest's, writes out every folder's blocks on exFAT, and those of
            # files that are not written yet go a second time: a third more write requests, measured.
            await target.flush(self._run.show_flush)
            if not await self._write_manifest(books):
                await target.flush(self._run.show_flush)
            await books.settle()
        except (BackupError, OSError) as error:
            self._note_error(as_backup_error(error))
            return
        self._flushed = True
        seconds = self._ports.clock.monotonic() - began
        self._done(Stage.FLUSH, seconds, f"Everything is written out to the disk ({duration(seconds)})")

    async def _write_manifest(self, books: Books) -> bool:
        """Without it the disk goes on saying that it was left unfinished; the next run repairs that."""
        try:
            await books.write_manifest()
        except (BackupError, OSError) as error:
            self._note_once(finding_of(as_backup_error(error)))
            return False
        return True

    async def _unmount(self) -> None:
        began = self._ports.clock.monotonic()
        self._run.show(Stage.UNMOUNT)
        try:
            await release(self._partition, ports=self._ports)
        except UnmountBusy as error:
            severity = Severity.PARTIAL if self._flushed else Severity.FAILED
            self._run.note(replace(finding_of(error), severity=severity))
            return
        except BackupError as error:
            self._note_once(finding_of(error))
            return
        self._unmounted = True
        self._done(Stage.UNMOUNT, self._ports.clock.monotonic() - began, "Unmounted")

    def _done(self, stage: Stage, seconds: float, summary: str) -> None:
        self._run.stages.append(StageReport(stage=stage, seconds=seconds, summary=summary))
        self._ports.log.say(Event.STAGE_DONE, stage=stage.value, summary=summary, seconds=round(seconds, 3))

    async def _power_off(self) -> None:
        try:
            await self._ports.disks.power_off(self._partition)
        except BackupError as error:
            self._run.note(
                Finding(
                    code="power-off-failed",
                    severity=Severity.NOTE,
                    message=f"The disk is unmounted, but could not be switched off: {error.message}",
                )
            )
        else:
            self._powered_off = True
            self._ports.log.say(Event.POWERED_OFF, disk=self._run.disk.name)

    def _conclude(self) -> RunReport:
        run = self._run
        outcome = conclude(run.findings)
        if outcome is Outcome.OK:  # the one promise that no path may break
            assert self._flushed and self._unmounted  # noqa: PT018
        return RunReport(
            run_id=run.run_id,
            server=self._ports.server,
            disk=run.disk,
            started=run.started,
            ended=self._ports.clock.now(),
            outcome=outcome,
            safe_to_unplug=self._unmounted and (self._flushed or self._ports.devices.present(self._seen.plug_in)),
            powered_off=self._powered_off,
            findings=tuple(run.findings),
            stages=tuple(run.stages),
            dump=run.dump,
            dump_time=run.dump_time,
            free_bytes=run.free_bytes,
            verdict=run.verdict,
            mode=run.mode,
            trigger=self._trigger,
            plugged_in=self._ports.devices.present(self._seen.plug_in),
            schedule=run.config.schedule_of(run.disk.name, run.disk.label, run.disk.uuid),
        )


def _forget_cancellation() -> None:
    """The cancellation has been answered; what follows (the record, the messages) must not be cancelled by it again."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()


async def _finish(work: Awaitable[None]) -> None:
    async def body() -> None:
        await work

    try:
        await protected(body())
    except asyncio.CancelledError:
        _forget_cancellation()  # the report is out; the caller is about to end anyway


def _bug(error: Exception) -> Finding:
    return Finding(
        code="bug",
        severity=Severity.FAILED,
        message=f"The backup program made a mistake: {type(error).__name__}: {error}",
        hint="Please report it with the output of: journalctl -u immich-usb-backup",
    )
