"""The backup folder on the disk, reached only through a descriptor that was proven to lie on that disk.

When a disk is pulled its mount point becomes a plain folder of the server's own disk. A path would then lead there; a
descriptor leads to the dead file system and fails.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import math
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import IO, TypeVar

from immich_usb_backup.adapters.mounts import mount_points
from immich_usb_backup.adapters.syncfs import bytes_written, syncfs
from immich_usb_backup.adapters.threads import Pulse, in_thread
from immich_usb_backup.adapters.tree import Descriptor, file_facts, scan_tree
from immich_usb_backup.errors import (
    BackupError,
    DiskFailing,
    DiskFull,
    DiskGone,
    DiskReadOnly,
    FlushFailed,
    MarkerUnusable,
    WrongDevice,
)
from immich_usb_backup.model import BACKUP_FOLDER, TEMPORARY, Mount
from immich_usb_backup.policy.marker import INNER_MARKER, MARKER_ENDINGS
from immich_usb_backup.policy.mirror import FileFact, Tree
from immich_usb_backup.ports import Sink, Written

T = TypeVar("T")

_CHUNK = 1 << 20
_NO_ORIGINALS_NS = 981_173_106_000_000_000  # 3 February 2001, 04:05:06 UTC
_ROOT_ENTRIES = 20_000
_READ_AT_MOST = 64 * _CHUNK
_FLUSH_LOOK_SECONDS = 1.0
_FLUSH_STALL_SECONDS = 600.0
_DEAD = {errno.ENODEV, errno.ENXIO, errno.ESHUTDOWN, errno.ENOTCONN, errno.ECONNABORTED}


class HashingWriter:
    """A binary file for writing that hashes and counts what passes, and beats its pulse."""

    def __init__(self, file: IO[bytes], pulse: Pulse) -> None:
        self._file = file
        self._pulse = pulse
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        """Write all of ``data``."""
        self._pulse.beat()
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is buffered here."""

    @property
    def written(self) -> Written:
        """What has passed so far."""
        return Written(self.size, self._hash.hexdigest())


class DiskTargets:
    """The ``Targets`` port. ``presence`` gives, for a device number, a function that tells whether it is still there."""

    def __init__(self, presence: Callable[[int], Callable[[], bool]]) -> None:
        self._presence = presence

    async def list_root(self, mount: Mount) -> tuple[tuple[str, bool], ...]:
        """The root's plain files and folders. Raises ``DiskGone``, ``DiskFailing``, ``DeadlineMissed``."""
        return await in_thread(lambda pulse: self._list_root(mount, pulse), what="Reading the disk's root folder")

    def _list_root(self, mount: Mount, pulse: Pulse) -> tuple[tuple[str, bool], ...]:
        found: list[tuple[str, bool]] = []
        with self._errors(mount), _open_root(mount) as root, os.scandir(root.fd) as entries:
            for entry in entries:
                pulse.beat()
                if entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False):
                    found.append((entry.name, entry.is_dir(follow_symlinks=False)))
                if len(found) >= _ROOT_ENTRIES:
                    break
        return tuple(found)

    async def read_root_file(self, mount: Mount, path: str, limit: int) -> bytes | None:
        """The beginning of a plain file. Raises like ``list_root``."""
        return await in_thread(lambda _: self._read_file(mount, path, limit), what="Reading the marker")

    def _read_file(self, mount: Mount, path: str, limit: int) -> bytes | None:
        with self._errors(mount), _open_root(mount) as root:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=root.fd)
            except (FileNotFoundError, NotADirectoryError):
                return None
            try:
                return os.read(fd, limit) if stat.S_ISREG(os.fstat(fd).st_mode) else None
            finally:
                os.close(fd)

    async def open(self, mount: Mount, *, marker_entry: str | None) -> DiskTarget:
        """Open or make the backup folder. Raises ``WrongDevice``, ``DiskReadOnly``, ``MarkerUnusable``."""
        opened: list[DiskTarget] = []
        try:
            await in_thread(lambda _: opened.append(self._open(mount, marker_entry)), what="Opening the backup folder")
        except BaseException:  # cancelled: what the thread opened meanwhile would keep the disk busy
            for target in opened:
                await target.close()
            raise
        return opened[0]

    def _open(self, mount: Mount, marker_entry: str | None) -> DiskTarget:
        with self._errors(mount), _open_root(mount) as root:
            waiting = None if marker_entry is None else _make_way(root.fd, marker_entry)
            folder = _open_backup_folder(root.fd)
            try:
                if waiting is not None:
                    _move_in(root.fd, folder.fd, waiting)
                os.fsync(root.fd)
            except BaseException:
                folder.close()  # else the disk could not be unmounted
                raise
        return DiskTarget(folder, mount, self._presence(mount.partition.device_number))

    def _errors(self, mount: Mount) -> AbstractContextManager[None]:
        return _translated(mount, self._presence(mount.partition.device_number))


class DiskTarget:
    """The ``Target`` port on an open backup folder."""

    def __init__(
        self,
        folder: Descriptor,
        mount: Mount,
        present: Callable[[], bool],
    ) -> None:
        self._folder = folder
        self._mount = mount
        self._present = present
        self._number = mount.partition.device_number
        self._lost: BackupError | None = None
        self._at_work = 0
        self._written_before = bytes_written(self._number) or 0
        self.working_folder = f"/proc/self/fd/{folder.fd}"

    async def _do(self, what: str, work: Callable[[Pulse], T]) -> T:
        def guarded(pulse: Pulse) -> T:
            self._at_work += 1
            try:
                with _translated(self._mount, self._present):
                    return work(pulse)
            finally:
                self._at_work -= 1

        return await in_thread(guarded, what=what)

    async def check(self) -> None:
        """Raise ``DiskGone`` or ``DiskReadOnly`` when the disk is not the writable disk it was."""
        await self._do("Looking at the disk", lambda _: self._check())

    def _check(self) -> None:
        if not self._present() or not mount_points(self._number):
            raise DiskGone(f"{self._mount.partition.device_node} is gone")
        if os.fstatvfs(self._folder.fd).f_flag & os.ST_RDONLY:
            raise DiskReadOnly(f"{self._mount.partition.device_node} has become read-only")

    async def make_folder(self, path: str) -> None:
        """Make a folder and those above it."""
        await self._do("Making a folder", lambda _: _make_folders(self._folder.fd, os.fsencode(path)))

    async def names(self, folder: str) -> tuple[str, ...]:
        """The file names in a folder; none where it does not exist."""
        return await self._do("Reading a folder", lambda _: self._names(folder))

    def _names(self, folder: str) -> tuple[str, ...]:
        try:
            with Descriptor.open(folder, at=self._folder.fd) as opened, os.scandir(opened.fd) as entries:
                return tuple(sorted(entry.name for entry in entries if entry.is_file(follow_symlinks=False)))
        except FileNotFoundError:
            return ()

    async def scan(self, folder: str) -> Tree:
        """All files below a folder; an empty tree where it does not exist."""
        return await self._do("Reading the disk's folders", lambda pulse: self._scan(folder, pulse))

    def _scan(self, folder: str, pulse: Pulse) -> Tree:
        try:
            with Descriptor.open(folder, at=self._folder.fd) as opened:
                return scan_tree(opened.fd, pulse.beat, skip=os.fsencode(TEMPORARY))
        except FileNotFoundError:
            return Tree()

    async def write(self, folder: str, name: str, produce: Callable[[Sink], None]) -> Written:
        """Write a file whole: temporary name, fsync, read back past the page cache, rename, fsync of the folder.

        Raises ``DiskFailing`` when what comes back is not what was written; the old file then still stands.
        """
        return await self._do(f"Writing {name}", lambda pulse: self._write(folder, name, produce, pulse))

    def _write(self, folder: str, name: str, produce: Callable[[Sink], None], pulse: Pulse) -> Written:
        _make_folders(self._folder.fd, os.fsencode(folder))
        _make_folders(self._folder.fd, os.fsencode(TEMPORARY))
        temporary = f"{TEMPORARY}/{name}"
        written = self._write_temporary(temporary, produce, pulse)
        if self._hash(temporary, pulse) != written.sha256:
            raise DiskFailing(f"{name} reads back from the disk differently than it was written")
        at = self._folder.fd
        os.rename(temporary, f"{folder}/{name}", src_dir_fd=at, dst_dir_fd=at)
        with Descriptor.open(folder, at=at) as opened:
            os.fsync(opened.fd)
        return written

    def _write_temporary(self, path: str, produce: Callable[[Sink], None], pulse: Pulse) -> Written:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with open(os.open(path, flags, 0o644, dir_fd=self._folder.fd), "wb") as file:
            writer = HashingWriter(file, pulse)
            produce(writer)
            file.flush()
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return writer.written

    async def sha256(self, folder: str, name: str) -> str | None:
        """The hash of a file as the medium has it, or None where it does not exist."""
        return await self._do(f"Reading {name}", lambda pulse: self._hash(f"{folder}/{name}", pulse))

    def _hash(self, path: str, pulse: Pulse) -> str | None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._folder.fd)
        except FileNotFoundError:
            return None
        digest = hashlib.sha256()
        with open(fd, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return None
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            while chunk := file.read(_CHUNK):
                pulse.beat()
                digest.update(chunk)
        return digest.hexdigest()

    async def read(self, folder: str, name: str) -> bytes | None:
        """A small file of ours as the medium has it, or None where it does not exist."""
        return await self._do(f"Reading {name}", lambda _: self._read(f"{folder}/{name}"))

    def _read(self, path: str) -> bytes | None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._folder.fd)
        except FileNotFoundError:
            return None
        with open(fd, "rb") as file:
            return file.read(_READ_AT_MOST)

    async def remove(self, folder: str, name: str) -> None:
        """Remove one file; missing is fine."""
        await self._do(f"Removing {name}", lambda _: self._remove(f"{folder}/{name}"))

    def _remove(self, path: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(path, dir_fd=self._folder.fd)

    async def set_aside(self, folder: str, paths: Iterable[bytes], *, into: str) -> int:
        """Move files to the same paths below ``into``, and remove the folders that this leaves empty."""
        return await self._do("Moving files aside", lambda pulse: self._set_aside(folder, tuple(paths), into, pulse))

    def _set_aside(self, folder: str, paths: tuple[bytes, ...], into: str, pulse: Pulse) -> int:
        at = self._folder.fd
        moved = 0
        for path in paths:
            pulse.beat()
            moved += _move(at, os.fsencode(folder) + b"/" + path, os.fsencode(into) + b"/" + path)
        for parent in sorted({parent for path in paths for parent in _parents(path)}, key=len, reverse=True):
            pulse.beat()
            with suppress(OSError):  # not empty: it stays
                os.rmdir(os.fsencode(folder) + b"/" + parent, dir_fd=at)
        return moved

    async def distrust(self, folder: str, paths: Iterable[bytes]) -> None:
        """Give files a time that no original has."""
        await self._do("Marking what is in doubt", lambda pulse: self._distrust(os.fsencode(folder), paths, pulse))

    def _distrust(self, folder: bytes, paths: Iterable[bytes], pulse: Pulse) -> None:
        for path in paths:
            pulse.beat()
            with suppress(FileNotFoundError):
                os.utime(folder + b"/" + path, ns=(_NO_ORIGINALS_NS, _NO_ORIGINALS_NS), dir_fd=self._folder.fd)

    async def clear_temporary(self, folder: str) -> None:
        """Remove the temporary files of a folder, with their folder. Missing is fine."""
        await self.clear(f"{folder}/{TEMPORARY}" if folder else TEMPORARY)

    async def clear(self, folder: str) -> None:
        """Remove a folder of ours with all that is in it. Missing is fine."""
        await self._do("Removing a folder", lambda pulse: self._clear(os.fsencode(folder), pulse))

    def _clear(self, path: bytes, pulse: Pulse) -> None:
        """Depth first, without recursion, each folder by its own descriptor."""
        at = self._folder.fd
        waiting = [path]
        while waiting:
            pulse.beat()
            folders = _unlink_files(at, waiting[-1])
            if folders:
                waiting += folders
                continue
            with suppress(FileNotFoundError):
                os.rmdir(waiting.pop(), dir_fd=at)

    async def facts(self, folder: str, paths: Iterable[bytes]) -> Mapping[bytes, FileFact]:
        """Size and time of those of the files that exist."""
        return await self._do("Checking what was copied", lambda pulse: self._facts(folder, paths, pulse))

    def _facts(self, folder: str, paths: Iterable[bytes], pulse: Pulse) -> Mapping[bytes, FileFact]:
        with Descriptor.open(folder, at=self._folder.fd) as opened:
            return file_facts(opened.fd, paths, pulse.beat)

    async def free_bytes(self) -> int:
        """Room that is left on the disk."""
        found = await self._do("Looking at the disk", lambda _: os.fstatvfs(self._folder.fd))
        return found.f_bavail * found.f_frsize

    async def cluster_bytes(self) -> int:
        """exFAT's cluster size."""
        found = await self._do("Looking at the disk", lambda _: os.fstatvfs(self._folder.fd))
        return found.f_frsize

    async def flush(self, progress: Callable[[int], None]) -> None:
        """Write everything out. Given up only when the device has written nothing for ten minutes.

        The kernel tells each descriptor of a loss but once (measured): the first failure is final.
        """
        if self._lost is not None:
            raise self._lost
        try:
            await self._flush_watched(progress)
        except BackupError as error:
            self._lost = error
            raise

    async def _flush_watched(self, progress: Callable[[int], None]) -> None:
        flushing = asyncio.ensure_future(
            in_thread(self._flush, what="Writing out the last data", stall_seconds=math.inf)
        )
        try:
            await self._watch_flush(flushing, progress)
        finally:
            if not flushing.done():
                flushing.cancel()
            elif not flushing.cancelled():
                flushing.exception()  # looked at, whatever ended the watch: else asyncio complains in the journal
        await self.check()

    async def _watch_flush(self, flushing: asyncio.Future[None], progress: Callable[[int], None]) -> None:
        still, last = 0.0, -1
        while not flushing.done():
            await asyncio.wait({flushing}, timeout=_FLUSH_LOOK_SECONDS)
            written = bytes_written(self._number)
            if written is None:
                raise DiskGone(f"{self._mount.partition.device_node} was unplugged while it was written to")
            still, last = (0.0, written) if written != last else (still + _FLUSH_LOOK_SECONDS, last)
            progress(max(0, written - self._written_before))
            if still >= _FLUSH_STALL_SECONDS and not flushing.done():
                raise FlushFailed(f"{self._mount.partition.device_node} stopped accepting data")
        flushing.result()

    def _flush(self, _: Pulse) -> None:
        try:
            os.fsync(self._folder.fd)  # tells of lost metadata, which exFAT's sync_fs keeps to itself
            syncfs(self._folder.fd)
            os.fsync(self._folder.fd)  # empties the drive's own cache, which syncfs does not on a volume once pulled
        except OSError as error:
            if not self._present() or error.errno in _DEAD:
                raise DiskGone(f"{self._mount.partition.device_node} was unplugged while it was written to") from error
            raise FlushFailed(f"Data was lost on the way to the disk: {error.strerror}") from error

    async def close(self) -> None:
        """Let go of the disk. Where a call hangs in a dead disk the number stays taken: when it wakes up, it must not
        meet another disk under it."""
        if not self._at_work:
            self._folder.close()


@contextmanager
def _translated(mount: Mount, present: Callable[[], bool]) -> Iterator[None]:
    """What the disk's error numbers mean."""
    try:
        yield
    except OSError as error:
        raise _meaning(error, mount, present=present()) from error


def _open_root(mount: Mount) -> Descriptor:
    """The mount's root, proven to lie on the device. Raises ``WrongDevice``, ``OSError``."""
    root = Descriptor.open(mount.path)
    if os.fstat(root.fd).st_dev != mount.partition.device_number:
        root.close()
        raise WrongDevice(f"What is mounted at {mount.path} is not {mount.partition.device_node}")
    return root


def _open_backup_folder(root: int) -> Descriptor:
    with suppress(FileExistsError):
        os.mkdir(BACKUP_FOLDER, dir_fd=root)
    try:
        return Descriptor.open(BACKUP_FOLDER, at=root)
    except NotADirectoryError as error:
        raise MarkerUnusable(f"{BACKUP_FOLDER} on the disk is neither a folder nor a plain file") from error


def _make_way(root: int, entry: str) -> str:
    """Give the marker file an ending, under which it is a marker too: it is never lost, whenever the power fails."""
    for ending in MARKER_ENDINGS:
        name = BACKUP_FOLDER + ending
        if not _exists(root, os.fsencode(name)):
            os.rename(entry, name, src_dir_fd=root, dst_dir_fd=root)
            os.fsync(root)
            return name
    raise MarkerUnusable(f"There are several marker files on the disk, {BACKUP_FOLDER} with and without endings")


def _move_in(root: int, folder: int, waiting: str) -> None:
    """Move the marker that ``_make_way`` renamed into the folder, once the folder is on the medium."""
    os.fsync(root)
    os.rename(waiting, INNER_MARKER, src_dir_fd=root, dst_dir_fd=folder)
    os.fsync(folder)


def _unlink_files(at: int, path: bytes) -> list[bytes]:
    """Remove the files in a folder, or the file that stands in its place. Returns the folders in it."""
    try:
        folder = Descriptor.open(path, at=at)
    except FileNotFoundError:
        return []
    except NotADirectoryError:
        os.unlink(path, dir_fd=at)
        return []
    found: list[bytes] = []
    with folder, os.scandir(folder.fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                found.append(path + b"/" + os.fsencode(entry.name))
            else:
                os.unlink(entry.name, dir_fd=folder.fd)
    return found


_NOT_MOVABLE = {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOENT, errno.EINVAL}


def _move(at: int, path: bytes, goal: bytes) -> bool:
    """Move a file without overwriting anything; whether it was possible."""
    try:
        free = _free_name(at, goal)
        _make_folders(at, free.rpartition(b"/")[0])
        os.rename(path, free, src_dir_fd=at, dst_dir_fd=at)
    except OSError as error:
        if error.errno not in _NOT_MOVABLE:
            raise
        return False
    return True


def _exists(at: int, path: bytes) -> bool:
    try:
        os.stat(path, dir_fd=at, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _make_folders(at: int, path: bytes) -> None:
    for parent in (*_parents(path), path):
        with suppress(FileExistsError):
            os.mkdir(parent, dir_fd=at)


def _parents(path: bytes) -> Iterator[bytes]:
    position = path.find(b"/")
    while position > 0:
        yield path[:position]
        position = path.find(b"/", position + 1)


def _free_name(at: int, path: bytes) -> bytes:
    """``path``, or with a number before its ending where that is taken."""
    folder, _, name = path.rpartition(b"/")
    stem, dot, ending = name.rpartition(b".") if b"." in name[1:] else (name, b"", b"")
    candidate, number = path, 1
    while _exists(at, candidate):
        number += 1
        candidate = folder + b"/" + stem + b" (%d)" % number + dot + ending
    return candidate


def _meaning(error: OSError, mount: Mount, *, present: bool) -> BackupError | OSError:
    node = mount.partition.device_node
    if not present or error.errno in _DEAD:
        return DiskGone(f"{node} was unplugged")
    if error.errno == errno.ENOSPC:
        return DiskFull(f"{node} is full")
    if error.errno == errno.EROFS:
        return DiskReadOnly(f"{node} cannot be written to: it is read-only")
    if error.errno in {errno.ENOTDIR, errno.EISDIR}:
        return MarkerUnusable(
            f"In {BACKUP_FOLDER} on {node} a file stands where a folder must be, or the other way round"
        )
    if error.errno == errno.EIO:
        return DiskFailing(f"{node} answers with errors: {error.strerror}")
    return error
