"""What the core needs from the world. Adapters implement these; fakes in the tests pass the same contract suites."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from immich_usb_backup.events import Event
from immich_usb_backup.model import Disk, Mount, Partition, PartitionSeen, PlugIn, Progress, RunReport
from immich_usb_backup.policy.mirror import FileFact, Tree


class Log(Protocol):
    """The journal. Fields become journal fields as they are; the sentence comes from the event's template."""

    def say(self, event: Event, **fields: Any) -> None:
        """Write one event. Never raises, never blocks for long."""


class Devices(Protocol):
    """Block devices as udev knows them."""

    async def start(self) -> None:
        """Listen, then look at what is there. Raises ``CommandFailed`` where udev does not run."""

    def events(self) -> AsyncIterator[PartitionSeen]:
        """What was there at the start, then what comes and goes, for ever."""

    def present(self, plug_in: PlugIn) -> bool:
        """Whether this very plug-in is still in the machine."""

    async def gone(self, plug_in: PlugIn, *, seconds: float) -> bool:
        """Whether it has left the machine, or does so within ``seconds``."""


class Disks(Protocol):
    """Mounting, through UDisks2. All calls have deadlines of their own."""

    async def find(self, seen: PartitionSeen) -> Partition:
        """The partition once its file system is known. Raises ``DiskNotReady``, ``DiskGone``."""

    async def wait_for_automounter(self, partition: Partition, *, seconds: float) -> Partition:
        """The partition as it is when somebody has mounted it, or after ``seconds``. Raises ``DiskGone``."""

    async def mount(self, partition: Partition, *, read_only: bool) -> Mount:
        """Mount it with ``nosuid,nodev,noexec``; where it is mounted already, that mount with ``ours`` false.

        Raises ``MountFailed``, ``WrongDevice`` (what is at the path is not the device), ``DiskGone``.
        """

    async def unmount(self, partition: Partition) -> None:
        """Unmount it, and return only when it is. Not mounted is fine. Raises ``UnmountBusy``, ``DiskGone``."""

    async def is_mounted(self, uuid: str) -> bool:
        """Whether anybody has this file system mounted."""

    async def left_mounted(self, uuid: str) -> Partition | None:
        """The partition with this file system where this user has it mounted: a run that was cut off left it so."""

    def writable(self, mount: Mount) -> bool:
        """Whether this user may write to a mount that somebody else made."""

    async def power_off(self, partition: Partition) -> None:
        """Switch the drive off. Raises ``BusCallFailed`` where that cannot be done."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was written to a file: its size in bytes and SHA-256."""

    size: int
    sha256: str


class Sink(Protocol):
    """Where a file's content goes, from beginning to end."""

    def write(self, data: bytes, /) -> int:
        """Take all of ``data``."""

    def flush(self) -> None:
        """For those who believe in buffers."""


class Target(Protocol):
    """The folder ``immich-server-backups`` on the mounted disk, held open, so that nothing can land elsewhere.

    Names are single components or relative paths with ``/``. Every method raises ``DiskGone``, ``DiskReadOnly``,
    ``DiskFull`` or ``DeadlineMissed`` for what they say, and ``OSError`` for the rest.
    """

    working_folder: str
    """A path that programs can be started in; it leads to this folder and nowhere else."""

    async def check(self) -> None:
        """Raise ``DiskGone`` or ``DiskReadOnly`` when the disk is not the writable disk it was."""

    async def make_folder(self, path: str) -> None:
        """Make a folder and those above it, where they are missing."""

    async def names(self, folder: str) -> tuple[str, ...]:
        """The file names in a folder; none where it does not exist."""

    async def scan(self, folder: str) -> Tree:
        """All files below a folder but the temporary ones; an empty tree where it does not exist."""

    async def write(self, folder: str, name: str, produce: Callable[[Sink], None]) -> Written:
        """Write a file whole: under a temporary name, fsynced, read back from the medium, renamed."""

    async def sha256(self, folder: str, name: str) -> str | None:
        """The hash of a file on the disk, or None where it does not exist."""

    async def read(self, folder: str, name: str) -> bytes | None:
        """A small file of ours as the medium has it, or None where it does not exist."""

    async def remove(self, folder: str, name: str) -> None:
        """Remove one file; missing is fine."""

    async def set_aside(self, folder: str, paths: Iterable[bytes], *, into: str) -> int:
        """Move files of a folder to the same paths below ``into``; nothing is overwritten. Returns how many; one that
        cannot be moved stays where it is."""

    async def distrust(self, folder: str, paths: Iterable[bytes]) -> None:
        """Give files a time that no original has, so that only copying them anew makes them look right."""

    async def clear_temporary(self, folder: str) -> None:
        """Remove the temporary files of a folder (``TEMPORARY`` in it), with their folder. Missing is fine."""

    async def clear(self, folder: str) -> None:
        """Remove a flat folder of ours with the files in it. Missing is fine."""

    async def facts(self, folder: str, paths: Iterable[bytes]) -> Mapping[bytes, FileFact]:
        """Size and time of those of the files that exist."""

    async def free_bytes(self) -> int:
        """Room that is left on the disk."""

    async def cluster_bytes(self) -> int:
        """The unit in which the disk gives out room."""

    async def flush(self, progress: Callable[[int], None]) -> None:
        """Write everything out to the medium. ``progress`` gets the bytes that have reached the device since it was
        opened, about once a second. Raises ``FlushFailed``, ``DiskGone``, ``DeadlineMissed``; once it has failed it
        fails always, though the kernel tells of each loss but once."""

    async def close(self) -> None:
        """Let go of the disk, so that it can be unmounted."""


class Targets(Protocol):
    """Opens targets."""

    async def list_root(self, mount: Mount) -> tuple[tuple[str, bool], ...]:
        """The root's files and folders as (name, is a folder), at most some thousands. Raises like ``Target``."""

    async def read_root_file(self, mount: Mount, path: str, limit: int) -> bytes | None:
        """The first ``limit`` bytes of a file below the root, or None where it is not a plain file."""

    async def open(self, mount: Mount, *, marker_entry: str | None) -> Target:
        """Open the backup folder, made where it is missing. ``marker_entry`` is a marker file that stands where the
        folder must be: it is moved into it. Raises ``WrongDevice``, ``DiskReadOnly``, ``MarkerUnusable``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveResult:
    """What went into an archive, and what did not: path and reason."""

    files: int
    unreadable: tuple[tuple[bytes, str], ...]


class Source(Protocol):
    """The server's files, which are only ever read."""

    async def scan(self, folder: Path) -> Tree:
        """All files below a folder. Raises ``SourceUnreadable`` where it cannot be opened."""

    async def names(self, folder: Path) -> tuple[str, ...]:
        """The file names in a folder. Raises ``SourceUnreadable``."""

    async def dump_problem(self, path: Path) -> str | None:
        """Read a gzip dump to its end; what is wrong with it, or None. Raises ``SourceUnreadable``."""

    async def sha256(self, path: Path) -> str:
        """A file's hash. Raises ``SourceUnreadable``."""

    def copy_into(self, path: Path, sink: Sink) -> None:
        """Copy a file's content; blocks, for use by ``Target.write``. Raises ``SourceUnreadable``."""

    async def archive_sha256(self, paths: Iterable[Path]) -> tuple[str, ArchiveResult]:
        """The hash that the archive would have."""

    def archive_into(self, paths: Iterable[Path], sink: Sink) -> ArchiveResult:
        """Zip files and folders, the same bytes for the same content; blocks, for use by ``Target.write``."""

    async def facts(self, folder: Path, paths: Iterable[bytes]) -> Mapping[bytes, FileFact]:
        """Size and time of those of the files that (still) exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyResult:
    """How a copying program ended. ``finished``: it went through the whole list; ``complaints`` are its lines on errors."""

    finished: bool
    full: bool
    complaints: tuple[str, ...]
    exit_code: int


class Copier(Protocol):
    """Copies a list of files, and nothing else."""

    async def copy(
        self, source: Path, target: Target, folder: str, paths: Iterable[bytes], progress: Callable[[int], None]
    ) -> CopyResult:
        """Copy ``paths`` (relative to ``source``) to ``folder``; ``progress`` gets bytes done. Raises ``CommandFailed``,
        ``DeadlineMissed``; cancelling it stops the program before it returns."""


class History(Protocol):
    """What is known about earlier runs. Every change is on the server's disk when the call returns."""

    async def begin(self, report: RunReport, plug_in: PlugIn) -> None:
        """A run starts: ``report`` is what is known now, with an outcome as if it were cut off here."""

    async def finish(self, report: RunReport) -> None:
        """A run is over."""

    async def announced(self, run_id: str) -> None:
        """The outcome has been handed to the notifiers."""

    async def unannounced(self) -> tuple[RunReport, ...]:
        """Runs that are over and have not been handed on."""

    async def cut_off(self) -> tuple[RunReport, ...]:
        """Runs that began and never ended: the service was killed, or the power failed."""

    async def handled(self, plug_in: PlugIn) -> bool:
        """Whether this plug-in has had its run."""

    async def disk_name(self, uuid: str) -> str | None:
        """The name under which a file system was backed up to before."""

    async def runs(self, limit: int) -> tuple[RunReport, ...]:
        """The newest runs first."""


class Outbox(Protocol):
    """Where outcomes wait for the notifier."""

    async def put(self, report: RunReport) -> None:
        """Leave a report for delivery; the same run twice is one."""


class Watchers(Protocol):
    """Whoever wants to know how a run goes: the service manager's status line, D-Bus listeners."""

    def started(self, run_id: str, disk: Disk) -> None:
        """A run begins."""

    def progress(self, progress: Progress) -> None:
        """A run goes on. May be called often; each watcher limits its own rate."""

    def finished(self, report: RunReport) -> None:
        """A run is over and recorded."""

    def disk_removed(self, uuid: str, disk_name: str) -> None:
        """A disk with a finished run was unplugged."""


class Inhibitor(Protocol):
    """Holds off sleep and shutdown."""

    def held(self, why: str) -> AbstractAsyncContextManager[None]:
        """While inside, the machine stays awake. Where that is not possible, a line in the log and nothing else."""


class Clock(Protocol):
    """The time."""

    def now(self) -> datetime:
        """Now, in UTC."""

    def monotonic(self) -> float:
        """Seconds from some start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Everything that a run is given."""

    log: Log
    devices: Devices
    disks: Disks
    targets: Targets
    source: Source
    copier: Copier
    history: History
    outbox: Outbox
    watchers: Watchers
    inhibitor: Inhibitor
    clock: Clock
    server: str
