"""The backup folder on the disk, reached only through a descriptor that was proven to lie on that disk.

When a disk is pulled its mount point becomes a plain folder of the server's own disk. A path would then lead there; a
descriptor leads to the dead file system and fails.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

from immich_usb_backup.adapters import disk_files, disk_marker, disk_moves, disk_root, disk_writing
from immich_usb_backup.adapters.copying import copy_in
from immich_usb_backup.adapters.digests import sha1s
from immich_usb_backup.adapters.disk_errors import tells_of_death, translated
from immich_usb_backup.adapters.disk_flush import Flusher
from immich_usb_backup.adapters.mounts import mount_points
from immich_usb_backup.adapters.threads import Callers, Meter, Pulse, in_thread
from immich_usb_backup.adapters.tree import Descriptor, file_facts
from immich_usb_backup.adapters.walk import walk
from immich_usb_backup.errors import DiskGone, DiskReadOnly
from immich_usb_backup.model import BACKUP_FOLDER, TEMPORARY, Mount
from immich_usb_backup.policy.copy_check import FileFact
from immich_usb_backup.policy.manifest import Fingerprint, Folder
from immich_usb_backup.ports import Sink, Written

T = TypeVar("T")

_TEMPORARY = os.fsencode(TEMPORARY)


class DiskTargets:
    """The ``Targets`` port. ``presence`` gives, for a device number, a function that tells whether it is still there."""

    def __init__(self, presence: Callable[[int], Callable[[], bool]]) -> None:
        self._presence = presence

    async def list_root(self, mount: Mount) -> tuple[tuple[str, bool], ...]:
        """The root's plain files and folders. Raises ``DiskGone``, ``DiskFailing``, ``DeadlineMissed``."""

        def work(pulse: Pulse) -> tuple[tuple[str, bool], ...]:
            with self._root(mount) as root:
                return disk_root.list_root(root, pulse.beat)

        return await in_thread(work, what="Reading the disk's root folder")

    async def read_root_file(self, mount: Mount, path: str, limit: int) -> bytes | None:
        """The beginning of a plain file. Raises like ``list_root``."""

        def work(_: Pulse) -> bytes | None:
            with self._root(mount) as root:
                return disk_root.read_beginning(root, path, limit)

        return await in_thread(work, what="Reading the marker")

    async def write_marker(self, mount: Mount, content: bytes) -> None:
        """Put the marker file of an enrolled disk into the root, whole. Raises ``MarkerUnusable``, ``DiskFailing``,
        ``DiskReadOnly``, ``DiskFull``, ``DiskGone``."""

        def work(pulse: Pulse) -> None:
            with self._root(mount) as root:
                disk_marker.write(root, content, pulse.beat)

        await in_thread(work, what="Writing the marker")

    async def clear_marker_temporary(self, mount: Mount) -> None:
        """Remove what a cut-off ``write_marker`` left. Raises like it."""

        def work(_: Pulse) -> None:
            with self._root(mount) as root:
                disk_marker.clear(root)

        await in_thread(work, what="Looking at the marker")

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
        with self._root(mount) as root:
            folder = disk_root.open_backup_folder(root, marker_entry)
        return DiskTarget(folder, mount, self._presence(mount.partition.device_number))

    async def open_to_read(self, mount: Mount) -> DiskTarget:
        """Open the backup folder as it is; one that is not there yet is like an empty one. Raises ``WrongDevice``,
        ``MarkerUnusable``."""
        return await in_thread(lambda _: self._open_to_read(mount), what="Opening the backup folder")

    def _open_to_read(self, mount: Mount) -> DiskTarget:
        present = self._presence(mount.partition.device_number)
        with translated(mount, present):
            root = disk_root.open_root(mount)
            try:
                folder = Descriptor.open(BACKUP_FOLDER, at=root.fd)
            except (
                FileNotFoundError,
                NotADirectoryError,
            ):  # a marker file stands there, or one with an ending beside it
                return _NothingThere(root, mount, present)
            root.close()
        return DiskTarget(folder, mount, present)

    @contextmanager
    def _root(self, mount: Mount) -> Iterator[int]:
        with translated(mount, self._presence(mount.partition.device_number)), disk_root.open_root(mount) as root:
            yield root.fd


class DiskTarget:
    """The ``Target`` port on an open backup folder."""

    def __init__(self, folder: Descriptor, mount: Mount, present: Callable[[], bool]) -> None:
        self._folder = folder
        self._mount = mount
        self._present = present
        self._callers = Callers()
        self._numbers = itertools.count(1)
        self._flusher = Flusher(folder.fd, mount, present, callers=self._callers, check=self.check)
        self.working_folder = f"/proc/self/fd/{folder.fd}"

    async def _do(self, what: str, work: Callable[[int, Pulse], T]) -> T:
        """Run ``work`` in a thread, with the folder's descriptor."""

        def guarded(pulse: Pulse) -> T:
            with self._guard():
                return work(self._folder.fd, pulse)

        return await in_thread(guarded, what=what)

    @contextmanager
    def _guard(self) -> Iterator[None]:
        with self._callers, translated(self._mount, self._present):
            yield

    def _is_fatal(self, error: OSError) -> bool:
        return tells_of_death(error) or not self._present()

    async def check(self) -> None:
        """Raise ``DiskGone`` or ``DiskReadOnly`` when the disk is not the writable disk it was."""
        await self._do("Looking at the disk", lambda at, _: self._check(at))

    def _check(self, at: int) -> None:
        if not self._present() or not mount_points(self._mount.partition.device_number):
            raise DiskGone(f"{self._mount.partition.device_node} is gone")
        if os.fstatvfs(at).f_flag & os.ST_RDONLY:
            raise DiskReadOnly(f"{self._mount.partition.device_node} has become read-only")

    async def make_folder(self, path: str) -> None:
        """Make a folder and those above it."""
        await self._do("Making a folder", lambda at, _: disk_files.make_folders(at, os.fsencode(path)))

    async def names(self, folder: str) -> tuple[str, ...]:
        """The file names in a folder; none where it does not exist."""
        return await self._do("Reading a folder", lambda at, _: disk_files.names(at, folder, folders=False))

    async def folders(self, folder: str) -> tuple[str, ...]:
        """The names of the folders in a folder; none where it does not exist."""
        return await self._do("Reading a folder", lambda at, _: disk_files.names(at, folder, folders=True))

    def walk(self, folder: bytes, beat: Callable[[], None]) -> Iterator[Folder]:
        """All folders below one, each before those in it; nothing where it does not exist. Blocks. Nothing on the disk is
        open between two of them."""
        found = walk(self._folder.fd, folder, beat=beat, skip=_TEMPORARY, fatal=self._is_fatal)
        while True:
            with self._guard():
                try:
                    one = next(found, None)
                except FileNotFoundError as error:
                    if self._is_fatal(error):
                        raise
                    return
            if one is None:
                return
            yield one

    async def fingerprint(self) -> Fingerprint:
        """What the disk looks like without walking it."""
        return await self._do("Looking at the disk", lambda at, pulse: disk_files.fingerprint(at, pulse.beat))

    async def sha1s(
        self, paths: Iterable[bytes], progress: Callable[[int], None]
    ) -> Mapping[bytes, bytes | str | None]:
        """SHA-1 of files as the medium has them; None where no plain file has the path, a text where it cannot be read."""
        with Meter(progress) as meter:
            return await self._do(
                "Reading the disk's files",
                lambda at, pulse: sha1s(
                    at, paths, beat=pulse.beat, count=meter.add, from_medium=True, fatal=self._is_fatal
                ),
            )

    async def copy_in(
        self, source: Path, files: Mapping[bytes, bytes], progress: Callable[[int], None]
    ) -> tuple[tuple[bytes, str], ...]:
        """Copy files under other names, each whole before it has its name. Returns those that could not be, and why."""
        number = next(self._numbers)
        with Meter(progress) as meter:
            return await self._do(
                "Copying files",
                lambda at, pulse: copy_in(source, at, files, number=number, beat=pulse.beat, count=meter.add),
            )

    async def move(self, pairs: Iterable[tuple[bytes, bytes]], *, beside: bool) -> tuple[tuple[bytes, str], ...]:
        """Rename files without overwriting anything. Returns the old paths that were left, and why."""
        return await self._do(
            "Moving files", lambda at, pulse: disk_moves.move_files(at, pairs, beside=beside, beat=pulse.beat)
        )

    async def set_times(self, times: Mapping[bytes, int]) -> None:
        """Set modification times, in nanoseconds since 1970. Missing files are fine."""
        await self._do("Setting times", lambda at, pulse: disk_files.set_times(at, times, pulse.beat))

    async def remove_files(self, paths: Iterable[bytes]) -> None:
        """Remove files, and the folders that this leaves empty. Missing is fine."""
        await self._do("Removing files", lambda at, pulse: disk_files.remove_files(at, paths, pulse.beat))

    async def room_taken(self, folder: str) -> int:
        """Bytes in whole clusters that the files below a folder take."""
        cluster = await self.cluster_bytes()
        return await self._do(
            "Reading the disk's folders",
            lambda at, pulse: disk_files.room_taken(at, folder, pulse.beat, cluster=cluster, fatal=self._is_fatal),
        )

    async def write(self, folder: str, name: str, produce: Callable[[Sink], None]) -> Written:
        """Write a file whole: temporary name, fsync, read back past the page cache, rename, fsync of the folder.

        Raises ``DiskFailing`` when what comes back is not what was written; the old file then still stands.
        """
        path = f"{folder}/{name}"
        return await self._do(
            f"Writing {name}", lambda at, pulse: disk_writing.write_whole(at, path, produce, pulse.beat)
        )

    async def sha256(self, folder: str, name: str) -> str | None:
        """The hash of a file as the medium has it, or None where it does not exist."""
        return await self._do(
            f"Reading {name}", lambda at, pulse: disk_writing.sha256(at, f"{folder}/{name}", pulse.beat)
        )

    async def read(self, folder: str, name: str) -> bytes | None:
        """A small file of ours as the medium has it, or None where it does not exist."""
        return await self._do(
            f"Reading {name}", lambda at, pulse: disk_writing.read_small(at, f"{folder}/{name}", pulse.beat)
        )

    async def consume(self, folder: str, name: str, take: Callable[[IO[bytes]], T]) -> T | None:
        """Have ``take`` read a file of ours as the medium has it, in a thread; None where it does not exist."""
        path = f"{folder}/{name}"
        return await self._do(f"Reading {name}", lambda at, pulse: disk_writing.consume(at, path, take, pulse.beat))

    async def remove(self, folder: str, name: str) -> None:
        """Remove one file; missing is fine."""
        await self._do(f"Removing {name}", lambda at, _: disk_files.remove(at, os.fsencode(f"{folder}/{name}")))

    async def clear_temporary(self, folder: str) -> None:
        """Remove the temporary files of a folder, with their folder. Missing is fine."""
        await self.clear(f"{folder}/{TEMPORARY}" if folder else TEMPORARY)

    async def clear(self, folder: str) -> None:
        """Remove a folder of ours with all that is in it. Missing is fine."""
        await self._do("Removing a folder", lambda at, pulse: disk_files.clear(at, os.fsencode(folder), pulse.beat))

    async def facts(self, folder: str, paths: Iterable[bytes]) -> Mapping[bytes, FileFact]:
        """Size and time of those of the files that exist."""
        return await self._do("Checking what was copied", lambda at, pulse: _facts(at, folder, paths, pulse))

    async def free_bytes(self) -> int:
        """Room that is left on the disk."""
        found = await self._do("Looking at the disk", lambda at, _: os.fstatvfs(at))
        return found.f_bavail * found.f_frsize

    async def cluster_bytes(self) -> int:
        """exFAT's cluster size."""
        found = await self._do("Looking at the disk", lambda at, _: os.fstatvfs(at))
        return found.f_frsize

    async def flush(self, progress: Callable[[int], None]) -> None:
        """Write everything out. Once it has failed it fails always."""
        await self._flusher.flush(progress)

    async def close(self) -> None:
        """Let go of the disk. Where a call hangs in a dead disk the number stays taken: when it wakes up, it must not
        meet another disk under it."""
        if not self._callers.inside:
            self._folder.close()


def _facts(at: int, folder: str, paths: Iterable[bytes], pulse: Pulse) -> Mapping[bytes, FileFact]:
    try:
        opened = Descriptor.open(folder, at=at)
    except FileNotFoundError:
        return {}
    with opened:
        return file_facts(opened.fd, paths, pulse.beat)


class _NothingThere(DiskTarget):
    """A disk without a backup folder, for reading only: the folder that it holds open is the disk's root."""

    def walk(self, folder: bytes, beat: Callable[[], None]) -> Iterator[Folder]:  # noqa: ARG002
        """Nothing."""
        return iter(())

    async def names(self, folder: str) -> tuple[str, ...]:  # noqa: ARG002
        """None."""
        return ()

    async def folders(self, folder: str) -> tuple[str, ...]:  # noqa: ARG002
        """None."""
        return ()

    async def read(self, folder: str, name: str) -> bytes | None:  # noqa: ARG002
        """Nothing."""
        return None

    async def consume(self, folder: str, name: str, take: Callable[[IO[bytes]], T]) -> T | None:  # noqa: ARG002
        """Nothing."""
        return None
