"""What the core needs from the world. Adapters implement these; fakes in the tests pass the same contract suites."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

from immich_usb_backup.events import Event
from immich_usb_backup.model import (
    Disk,
    Health,
    KnownDisk,
    Mount,
    Notice,
    Outcome,
    Partition,
    PartitionSeen,
    PlugIn,
    Progress,
    Reminders,
    RunReport,
)
from immich_usb_backup.policy.assets import Asset, DumpFacts
from immich_usb_backup.policy.copy_check import FileFact
from immich_usb_backup.policy.enrolment import Enrolment
from immich_usb_backup.policy.manifest import (
    Change,
    DiskRecord,
    Fingerprint,
    Folder,
    FolderName,
    Known,
    KnownFolder,
    ManifestHeader,
)

T = TypeVar("T")


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

    async def write(self, folder: str, name: str, produce: Callable[[Sink], None]) -> Written:
        """Write a file whole: under a temporary name, fsynced, read back from the medium, renamed."""

    async def sha256(self, folder: str, name: str) -> str | None:
        """The hash of a file on the disk, or None where it does not exist."""

    async def read(self, folder: str, name: str) -> bytes | None:
        """A small file of ours as the medium has it, or None where it does not exist."""

    async def remove(self, folder: str, name: str) -> None:
        """Remove one file; missing is fine."""

    async def clear_temporary(self, folder: str) -> None:
        """Remove the temporary files of a folder (``TEMPORARY`` in it), with their folder. Missing is fine."""

    async def clear(self, folder: str) -> None:
        """Remove a flat folder of ours with the files in it. Missing is fine."""

    async def facts(self, folder: str, paths: Iterable[bytes]) -> Mapping[bytes, FileFact]:
        """Size and time of those of the files that exist."""

    def walk(self, folder: bytes, beat: Callable[[], None]) -> Iterator[Folder]:
        """All folders below one, each before those in it, sorted, without the temporary ones; nothing where it does not
        exist. Blocks, for use in a thread; ``beat`` is called at each step."""

    async def fingerprint(self) -> Fingerprint:
        """What the disk looks like without walking it; a bounded number of reads."""

    async def sha1s(
        self, paths: Iterable[bytes], progress: Callable[[int], None]
    ) -> Mapping[bytes, bytes | str | None]:
        """SHA-1 (20 bytes) of files as the medium has them, not the page cache; None for one that does not exist, a text
        for one that cannot be read (the disk answers with errors). ``progress`` gets bytes read since the last call."""

    async def copy_in(
        self, source: Path, files: Mapping[bytes, bytes], progress: Callable[[int], None]
    ) -> tuple[tuple[bytes, str], ...]:
        """Copy files under other names: from the path below ``source`` to the path below the backup folder, each written
        under a temporary name, given the source's time and renamed. Links in the source are not followed. Returns those
        that could not be: path and reason. ``progress`` gets bytes copied since the last call. Raises like the others
        where the disk is the reason."""

    async def move(self, pairs: Iterable[tuple[bytes, bytes]], *, beside: bool) -> tuple[tuple[bytes, str], ...]:
        """Rename files within the backup folder, making folders and removing those that this leaves empty. Nothing is
        overwritten: where something has the new name already, ``beside`` chooses a free one like it, else it is left.
        Returns the old paths that were left where they were, with the reason."""

    async def set_times(self, times: Mapping[bytes, int]) -> None:
        """Set modification times, in nanoseconds since 1970. Missing files are fine."""

    async def remove_files(self, paths: Iterable[bytes]) -> None:
        """Remove files by their paths below the backup folder, and the folders that this leaves empty. Missing is fine."""

    async def folders(self, folder: str) -> tuple[str, ...]:
        """The names of the folders in a folder, sorted; none where it does not exist."""

    async def room_taken(self, folder: str) -> int:
        """Bytes on the disk, in whole clusters, that the files below a folder take."""

    async def consume(self, folder: str, name: str, take: Callable[[IO[bytes]], T]) -> T | None:
        """Have ``take`` read a file of ours, of any size, as the medium has it; None where it does not exist. ``take``
        runs in a thread."""

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

    async def write_marker(self, mount: Mount, content: bytes) -> None:
        """Put the marker file of an enrolled disk into the root: there is the old one or the new one, whole, whenever the
        power fails. It is on the medium when this returns. Raises like ``Target``, and ``MarkerUnusable`` where something
        that is no small file has its name."""

    async def clear_marker_temporary(self, mount: Mount) -> None:
        """Remove what a ``write_marker`` left that was cut off. Missing is fine. Raises like ``Target``."""

    async def open(self, mount: Mount, *, marker_entry: str | None) -> Target:
        """Open the backup folder, made where it is missing. ``marker_entry`` is a marker file that stands where the
        folder must be: it is moved into it. Raises ``WrongDevice``, ``DiskReadOnly``, ``MarkerUnusable``."""

    async def open_to_read(self, mount: Mount) -> Target:
        """Open the backup folder as it is, for reading only; one that is not there yet is like an empty one. Raises
        ``WrongDevice``, ``MarkerUnusable``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveResult:
    """What went into an archive, and what did not: path and reason."""

    files: int
    unreadable: tuple[tuple[bytes, str], ...]


class Source(Protocol):
    """The server's files, which are only ever read."""

    def walk(self, folder: Path, beat: Callable[[], None]) -> Iterator[Folder]:
        """All folders from ``folder`` on, each before those in it, sorted; links are not followed (but ``folder`` may be
        one). Blocks, for use in a thread; ``beat`` is called at each step. Raises ``SourceUnreadable`` where ``folder``
        cannot be opened; what cannot be read below it is in the results."""

    async def is_mount_point(self, folder: Path) -> bool:
        """Whether a file system is mounted there. Raises ``SourceUnreadable``."""

    async def sha1s(
        self, folder: Path, paths: Iterable[bytes], progress: Callable[[int], None]
    ) -> Mapping[bytes, bytes | str | None]:
        """SHA-1 (20 bytes) of files below a folder; None for one that does not exist (any more), a text for one that
        cannot be read. Links are not followed. ``progress`` gets bytes read since the last call."""

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

    async def runs(self, limit: int, *, uuid: str = "", failed: bool = False) -> tuple[RunReport, ...]:
        """The newest runs first, those that are over; of one disk only, and only those that did not end well, where that is
        asked for."""

    async def report(self, run_id: str) -> RunReport | None:
        """One run that is over."""

    async def disks(self) -> tuple[KnownDisk, ...]:
        """Every disk that a run was made on, the one with the newest run first."""

    async def outcomes(self, newest: int) -> Mapping[str, tuple[Outcome, ...]]:
        """How the newest runs of each disk (by its UUID) ended, the oldest first."""

    async def forget(self, uuid: str) -> None:
        """Remove all runs of a disk that are over."""


class Manifest(Protocol):
    """What lies on one disk, open for one run: SQLite in the state directory.

    All changes belong to one transaction until ``commit``. ``folder`` and ``stored_folder`` block (a millisecond at
    most) and may be called from any one thread while nothing else is under way; the others are for the loop. Everything
    raises ``StateDamaged`` where the file cannot be used.
    """

    def folder(self, path: bytes) -> KnownFolder | None:
        """A folder by the server's path (``b"upload/u1"``; ``b""`` has the roots), or None where none is known."""

    def stored_folder(self, path: bytes) -> KnownFolder | None:
        """A folder by the disk's path, or None."""

    async def file(self, path: bytes) -> Known | None:
        """One file by the server's path."""

    async def totals(self) -> tuple[int, int]:
        """How many files lie on the disk (links not counted), and their bytes."""

    async def least_proven(self, limit: int, *, before: int) -> tuple[tuple[bytes, bytes, Known], ...]:
        """The files on the disk that were last read back before ``before`` (seconds since 1970) or never, longest ago
        first, at most ``limit``: the server's path, the disk's path, and the line. No links."""

    async def unproven(self, *, before: int) -> tuple[int, int]:
        """How many files were last read back before ``before`` (seconds since 1970) or never, and their bytes. No links."""

    async def proofs(self) -> tuple[int, int | None]:
        """How many files (links not counted) were ever read back and found good, and when the one that was read back
        longest ago was (seconds since 1970), None where there are none."""

    async def with_digests(self, digests: Iterable[bytes]) -> Mapping[bytes, bytes]:
        """The server's path of a file with each of these SHA-1s (20 bytes) that the manifest knows."""

    async def apply(self, changes: Iterable[Change | FolderName]) -> None:
        """Make changes, in their order. Folders come and go with the files in them; a folder's disk name is its own
        unless a ``FolderName`` came before."""

    async def clear(self) -> None:
        """Forget all files and folders (the record stays)."""

    async def record(self) -> DiskRecord:
        """What is remembered beside the files."""

    async def save(self, record: DiskRecord) -> None:
        """Remember it; holds from ``commit`` on."""

    async def held(self) -> frozenset[bytes]:
        """The paths (the server's) of the deletions that were held by an earlier run."""

    async def hold(self, paths: Iterable[bytes]) -> None:
        """Replace them."""

    async def commit(self) -> None:
        """Make everything since the last commit durable."""

    async def rollback(self) -> None:
        """Forget everything since the last commit."""

    def write(self, header: ManifestHeader, sink: Sink) -> None:
        """Write it in the form that lies on the disk (docs/reference/manifest.md). Blocks, for ``Target.write``."""

    def read(self, stream: IO[bytes]) -> ManifestHeader:
        """Replace all files and folders by what a disk's manifest says. Blocks, for ``Target.consume``. Raises
        ``ManifestUnusable`` for one that is not whole, not ours or written by a newer version; the old content then
        still stands."""

    def peek(self, stream: IO[bytes]) -> ManifestHeader:
        """Only what a disk's manifest says of itself. Blocks, for ``Target.consume``. Raises ``ManifestUnusable``."""

    async def close(self) -> None:
        """Close it; what is not committed is forgotten."""


class Manifests(Protocol):
    """Opens manifests, one for each file system."""

    async def open(self, uuid: str) -> Manifest:
        """Open or make the manifest of the disk with this file system. A damaged one is moved aside and begun anew: the
        disk has a copy. Raises ``StateDamaged`` where a newer version wrote it, or the state directory cannot be used."""

    async def approve(self, uuid: str) -> int:
        """Approve the deletions that are held, durably. Returns how many those are; 0: nothing was held."""

    async def adopt(self, uuid: str) -> None:
        """Let the next run take the disk over from another server, durably."""

    async def forget(self, uuid: str) -> None:
        """Remove what is known of a disk; nothing known is fine. Not while it is open. The next run takes it from the disk."""

    async def server_id(self) -> str:
        """This server's random identity, made at the first call and kept."""


class Enrolments(Protocol):
    """The disks that were enrolled on this server. Every change is on the server's disk when the call returns. Everything
    raises ``StateDamaged`` where that cannot be read or written: then no disk is trusted."""

    async def all(self) -> tuple[Enrolment, ...]:
        """Every enrolled disk, the newest last."""

    async def put(self, enrolment: Enrolment) -> None:
        """Remember one, instead of an earlier one of the same file system."""

    async def revoke(self, uuid: str) -> bool:
        """Forget the one of this file system. Returns whether there was one."""


class DumpMaker(Protocol):
    """Has fresh database dumps made: this process has neither the network nor a database."""

    @property
    def folder(self) -> Path:
        """Where they lie, but for those that Immich itself makes. It need not exist."""

    async def make(self, *, seconds: float) -> str | None:
        """Have one made, as the configuration says, in at most so long. None where the maker says that it is there, else why
        not, in one harmless line. Raises ``BusLost``, ``DeadlineMissed``."""


class AssetBook(Protocol):
    """The originals that one database dump names, by their folders, in bounded memory (SQLite on disk). What is not
    ``async`` blocks (a millisecond at most) and may be called from any one thread at a time."""

    facts: DumpFacts

    def folders(self) -> Iterator[tuple[bytes, Mapping[bytes, Asset]]]:
        """Every folder below the media location (``b"upload/u1/ab/cd"``) with its assets by their names, sorted."""

    def folder(self, path: bytes) -> Mapping[bytes, Asset]:
        """One folder's assets by name; none where the dump has none there."""

    def outside(self) -> Iterator[Asset]:
        """The assets whose files lie outside the media location, sorted by path."""

    async def sha1s(self, paths: Iterable[bytes]) -> Mapping[bytes, bytes]:
        """Immich's SHA-1 of those of the paths (from the media location on) that it has one for."""

    async def close(self) -> None:
        """Let go of it."""


class AssetBooks(Protocol):
    """Reads dumps."""

    async def open(self, dump: Path, *, sha256: str, media_location: Path) -> AssetBook:
        """The assets of a dump (gzip or plain); remembered by the dump's ``sha256``, so that the same one is read once.
        ``media_location`` is the server's, for a dump that does not tell Immich's. Raises ``DumpUnusable`` and
        ``SourceUnreadable``."""


class Outbox(Protocol):
    """Where outcomes wait for the notifier."""

    async def put(self, report: RunReport) -> None:
        """Leave a report for delivery; the same run twice is one."""

    async def put_begun(self, report: RunReport) -> None:
        """Leave word that a run has begun, for those who want to know: ``report`` is what is known now."""

    async def put_notice(self, notice: Notice) -> None:
        """Leave a notice for delivery; the same one twice is one."""


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

    def notice(self, notice: Notice) -> None:
        """Something to know outside of a run."""


class Power(Protocol):
    """Mains or battery."""

    async def on_battery(self) -> bool:
        """Whether the machine runs on battery now; False where nobody can tell."""

    async def changed(self, *, seconds: float) -> None:
        """Return when it may be otherwise than at the last look, after ``seconds`` at the latest."""


class ReminderBook(Protocol):
    """What was said in reminders."""

    async def load(self, now: datetime) -> Reminders:
        """What is kept; ``since`` is ``now`` where there is nothing, or nothing that can be read."""

    async def save(self, reminders: Reminders) -> None:
        """Keep it, durably. Raises ``StateDamaged``."""


class Inhibitor(Protocol):
    """Holds off sleep and shutdown."""

    def held(self, why: str) -> AbstractAsyncContextManager[None]:
        """While inside, the machine stays awake. Where that is not possible, a line in the log and nothing else."""


class FileSystems(Protocol):
    """Looks at the structure of a file system that nobody has mounted. The text is what the check said, one printable
    line. Both take minutes on a large disk, and end what they began when they are cancelled.

    Raise ``DiskGone``, ``BusLost`` or ``DeadlineMissed``; whatever else keeps them from it is ``Health.UNKNOWN``.
    """

    async def check(self, partition: Partition) -> tuple[Health, str]:
        """Look, and change nothing. At once where the file system says that it was unmounted properly."""

    async def repair(self, partition: Partition) -> tuple[Health, str]:
        """Look, and repair what is damaged within the backup folder. Where anything else is, nothing is changed."""


class Background(Protocol):
    """Where long work on values runs."""

    async def __call__(self, work: Callable[[Callable[[], None]], T], *, what: str) -> T:
        """Run ``work`` beside the loop; it calls what it is given at each small step. Raises what ``work`` raises, and
        ``DeadlineMissed`` where it does not get on."""


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
    manifests: Manifests
    enrolments: Enrolments
    asset_books: AssetBooks
    dump_maker: DumpMaker
    background: Background
    file_systems: FileSystems
    outbox: Outbox
    watchers: Watchers
    inhibitor: Inhibitor
    power: Power
    reminder_book: ReminderBook
    clock: Clock
    server: str
