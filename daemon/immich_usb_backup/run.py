"""One plug-in, from the partition that udev saw to the outcome that is told. Read it from top to bottom."""

from __future__ import annotations

import asyncio
import secrets
import traceback
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from structlog.contextvars import bound_contextvars

from immich_usb_backup import messages
from immich_usb_backup.announce import announce
from immich_usb_backup.config import Config
from immich_usb_backup.errors import (
    BackupError,
    BusLost,
    DeadlineMissed,
    DiskGone,
    DiskReadOnly,
    Interrupted,
    MountFailed,
    UnmountBusy,
    WrongDevice,
)
from immich_usb_backup.events import Event
from immich_usb_backup.marker_look import Looked, look_for_marker, mount_for_writing
from immich_usb_backup.model import (
    Finding,
    Mode,
    Mount,
    Outcome,
    Partition,
    PartitionSeen,
    RunReport,
    Severity,
    Stage,
    StageReport,
)
from immich_usb_backup.policy.eligibility import judge_partition
from immich_usb_backup.policy.marker import has_folder_name
from immich_usb_backup.policy.outcome import conclude, finding_of
from immich_usb_backup.policy.report import first_report, identify
from immich_usb_backup.policy.text import duration, utc_stamp
from immich_usb_backup.ports import Ports, Target
from immich_usb_backup.protect import protected
from immich_usb_backup.release import release
from immich_usb_backup.stages.books import Books
from immich_usb_backup.stages.config_files import back_up_config
from immich_usb_backup.stages.context import RunContext, Work
from immich_usb_backup.stages.database import back_up_database
from immich_usb_backup.stages.file_system import check_file_system
from immich_usb_backup.stages.mirror import mirror

PULL_SECONDS = 2.0
"""How long the news of a pulled disk may take after its first errors."""


@dataclass(slots=True)
class Stop:
    """Why a run is being cancelled; set before the cancellation."""

    cause: BackupError | None = None
    drive_wanted: Callable[[], bool] = lambda: False
    """Whether another partition of the same drive waits for its turn."""


async def back_up(
    seen: PartitionSeen, *, config: Config, ports: Ports, stop: Stop, mode: Mode | None = None
) -> RunReport | None:
    """Look for the marker; where it is, back up, unmount, record and tell. None for a disk that is not ours.

    Cancelled, it cleans up, records why, and returns the report all the same.
    """
    with bound_contextvars(device=seen.device_node, uuid=seen.uuid):
        try:
            looked = await _look(seen, config=config, ports=ports)
        except Exception as error:  # noqa: BLE001  # whatever lies on one disk, the next one is waited for
            ports.log.say(Event.BUG, message=repr(error), trace=traceback.format_exc())
            return None
        if looked is None:
            return None
        return await _Run(seen, looked, config=config, ports=ports, stop=stop, mode=mode).story()


async def _look(seen: PartitionSeen, *, config: Config, ports: Ports) -> Looked | None:
    try:
        partition = await ports.disks.find(seen)
        verdict = judge_partition(seen, partition, transports=config.disks.transports)
        if not verdict.accepted:
            ports.log.say(
                Event.DISK_IGNORED, device=seen.device_node, label=seen.label, reasons="; ".join(verdict.reasons)
            )
            return None
        grace = config.disks.automounter_grace_seconds
        looked = await look_for_marker(partition, grace_seconds=grace, ports=ports)
    except (BackupError, OSError) as error:
        await _unreadable(seen, _as_backup_error(error), ports)
        return None
    if looked.marker is None:
        ports.log.say(Event.DISK_UNMARKED, device=seen.device_node, label=seen.label)
        return None
    return looked


async def _unreadable(seen: PartitionSeen, error: BackupError, ports: Ports) -> None:
    """A disk that could not be looked at: a line for a stranger's; a failed run for one that we know."""
    ports.log.say(Event.DISK_UNREADABLE, device=seen.device_node, label=seen.label, message=error.message)
    try:
        name = await ports.history.disk_name(seen.uuid)
    except BackupError as unknown:
        ports.log.say(Event.FATAL, message=unknown.message, hint=unknown.hint)
        return
    if name is None or isinstance(error, DiskGone):
        return
    partition = Partition(
        block_path="",
        drive_path=None,
        device_node=seen.device_node,
        device_number=seen.plug_in.device_number,
        file_system=seen.file_system,
        uuid=seen.uuid,
        label=seen.label,
        connection_bus="",
        size=seen.size,
        read_only=False,
    )
    started = ports.clock.now()
    report = first_report(_run_id(ports), ports.server, identify(seen, partition, name), started)
    try:
        await ports.history.begin(report, seen.plug_in)
    except BackupError as problem:
        ports.log.say(Event.ANNOUNCE_FAILED, message=problem.message, hint=problem.hint)
    unmounted = not isinstance(error, UnmountBusy | DeadlineMissed | BusLost)
    failed = replace(report, outcome=Outcome.FAILED, findings=(finding_of(error),), safe_to_unplug=unmounted)
    await announce(replace(failed, ended=ports.clock.now()), ports)


def _run_id(ports: Ports) -> str:
    return f"{utc_stamp(ports.clock.now())}-{secrets.token_hex(2)}"


class _Run:
    """A run on a marked disk."""

    def __init__(
        self, seen: PartitionSeen, looked: Looked, *, config: Config, ports: Ports, stop: Stop, mode: Mode | None
    ) -> None:
        assert looked.marker is not None
        self._seen = seen
        self._looked = looked
        self._marker = looked.marker
        self._partition = looked.partition
        self._ports = ports
        self._stop = stop
        self._mounted: Mount | None = None
        self._copied = False
        self._flushed = False
        self._unmounted = True
        self._powered_off = False
        disk = identify(seen, looked.partition, looked.marker.name)
        self._run = RunContext(
            run_id=_run_id(ports),
            disk=disk,
            started=ports.clock.now(),
            config=config,
            ports=ports,
            mode=mode or config.mode_of(disk.name, disk.label, disk.uuid),
        )

    async def story(self) -> RunReport:
        """Begin, work, conclude, tell."""
        with bound_contextvars(run=self._run.run_id, disk=self._run.disk.name):
            await self._work()
            await _finish(self._was_it_pulled())
            report = self._conclude()
            await _finish(announce(report, self._ports))
            return report

    async def _begin(self) -> None:
        run = self._run
        self._ports.watchers.started(run.run_id, run.disk)
        try:
            first = first_report(run.run_id, self._ports.server, run.disk, run.started)
            await self._ports.history.begin(first, self._seen.plug_in)
        except BackupError as error:
            finding = finding_of(error)
            run.note(replace(finding, severity=Severity.PARTIAL))  # the photos are worth more than the history

    async def _work(self) -> None:
        """All that can go wrong ends here, as a finding. The outermost edge of a run."""
        try:
            await protected(self._begin())
            async with self._ports.inhibitor.held(f"Backing up to '{self._run.disk.name}'"):
                await self._with_disk()
        except asyncio.CancelledError:
            cause = self._stop.cause or Interrupted("The backup was stopped")
            if not (self._done_with_disk and isinstance(cause, DiskGone)):
                self._note_once(finding_of(cause))
            _forget_cancellation()
        except (BackupError, OSError) as error:
            self._note_once(finding_of(_as_backup_error(error)))
        except Exception as error:  # noqa: BLE001  # a bug must end in an unmounted disk and a message, not in silence
            self._ports.log.say(Event.BUG, message=repr(error), trace=traceback.format_exc())
            self._run.note(_bug(error))

    async def _was_it_pulled(self) -> None:
        """A disk that is pulled answers with errors for a moment before it is gone: then the errors are not its fault."""
        if (self._flushed and self._unmounted) or conclude(self._run.findings) is not Outcome.FAILED:
            return
        if await self._ports.devices.gone(self._seen.plug_in, seconds=PULL_SECONDS):
            node = self._seen.device_node
            self._note_once(finding_of(DiskGone(f"{node} was unplugged before the backup was finished")))

    @property
    def _done_with_disk(self) -> bool:
        """Whether the disk may go, as it does when it is switched off."""
        return self._copied and self._flushed and self._unmounted

    def _note_once(self, finding: Finding) -> None:
        if all(known.code != finding.code for known in self._run.findings):
            self._run.note(finding)

    async def _with_disk(self) -> None:
        self._run.show(Stage.MOUNT)
        if self._partition.read_only:
            raise DiskReadOnly(f"{self._partition.device_node} is write-protected")
        target: Target | None = None
        books = Books()
        try:
            unclean = await self._check_file_system()
            await protected(self._mount())  # UDisks2 mounts whether or not somebody still waits for its answer
            target = await self._open()
            work = await books.open(self._run, target, unclean=unclean)
            await self._copy_everything(work)
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
        ours = state is not None and state.writing and state.server_id == await self._ports.manifests.server_id()
        before = len(self._run.findings)
        unclean = await check_file_system(self._run, self._partition, ours=ours)
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
        await self._stage(lambda: back_up_config(work))
        before = len(self._run.findings)
        await mirror(work, self._tell)
        for finding in self._run.findings[before:]:
            self._say(finding)
        self._run.free_bytes = await work.target.free_bytes()

    async def _stage(self, work: Callable[[], Awaitable[StageReport]]) -> None:
        before = len(self._run.findings)
        self._tell(await work())
        for finding in self._run.findings[before:]:
            self._say(finding)

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
            self._note_once(finding_of(_as_backup_error(error)))
            return
        self._flushed = True
        seconds = self._ports.clock.monotonic() - began
        self._done(Stage.FLUSH, seconds, f"Everything is written out to the disk ({duration(seconds)})")

    async def _write_manifest(self, books: Books) -> bool:
        """Without it the disk goes on saying that it was left unfinished; the next run repairs that."""
        try:
            await books.write_manifest()
        except (BackupError, OSError) as error:
            self._note_once(finding_of(_as_backup_error(error)))
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


def _as_backup_error(error: BackupError | OSError) -> BackupError:
    if isinstance(error, BackupError):
        return error
    return BackupError(f"The disk answered: {error.strerror or error}", hint="Plug the disk in again.")
