"""The backup folder of a fake stick: a plain folder, worked on by the real adapter's own functions where it has some."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, TypeVar

from immich_usb_backup.adapters import disk_files, disk_marker, disk_moves, disk_writing
from immich_usb_backup.adapters.copying import copy_in
from immich_usb_backup.adapters.digests import sha1s
from immich_usb_backup.adapters.tree import Descriptor
from immich_usb_backup.adapters.walk import walk
from immich_usb_backup.errors import BackupError, DiskGone, DiskReadOnly
from immich_usb_backup.model import BACKUP_FOLDER, TEMPORARY, Mount
from immich_usb_backup.policy.copy_check import FileFact
from immich_usb_backup.policy.manifest import Fingerprint, Folder
from immich_usb_backup.ports import CopyResult, Sink, Target, Written
from tests.support.fake_devices import FakeDevices, Stick
from tests.support.script import Script

T = TypeVar("T")

CLUSTER = 131_072


class FakeTargets:
    """Implements ``ports.Targets`` on the sticks' folders."""

    def __init__(self, script: Script, devices: FakeDevices) -> None:
        self._script = script
        self._devices = devices
        self.opened = 0

    async def list_root(self, mount: Mount) -> tuple[tuple[str, bool], ...]:
        """The root's files and folders."""
        await self._script.at("targets.list_root")
        return tuple((entry.name, entry.is_dir()) for entry in sorted(Path(mount.path).iterdir()))

    async def read_root_file(self, mount: Mount, path: str, limit: int) -> bytes | None:
        """A file below the root."""
        await self._script.at("targets.read_root_file")
        file = Path(mount.path, path)
        if not file.is_file():
            return None
        with file.open("rb") as opened:
            return opened.read(limit)

    async def write_marker(self, mount: Mount, content: bytes) -> None:
        """Put it into the root."""
        await self._script.at("targets.write_marker")
        if mount.read_only:
            raise DiskReadOnly(f"{mount.partition.device_node} is read-only")
        with Descriptor.open(mount.path) as root:
            disk_marker.write(root.fd, content, lambda: None)

    async def clear_marker_temporary(self, mount: Mount) -> None:
        """Remove what is not whole."""
        await self._script.at("targets.clear_marker_temporary")
        with Descriptor.open(mount.path) as root:
            disk_marker.clear(root.fd)

    async def open(self, mount: Mount, *, marker_entry: str | None) -> Target:
        """The backup folder."""
        await self._script.at("targets.open")
        if mount.read_only:
            raise DiskReadOnly(f"{mount.partition.device_node} is read-only")
        root = Path(mount.path)
        content = None
        if marker_entry is not None:
            content = (root / marker_entry).read_bytes()
            (root / marker_entry).unlink()
        folder = root / BACKUP_FOLDER
        folder.mkdir(exist_ok=True)
        if content is not None:
            (folder / "marker.toml").write_bytes(content)
        self.opened += 1
        return FakeTarget(self._script, self._devices, mount, folder, self)

    async def open_to_read(self, mount: Mount) -> Target:
        """The backup folder as it is."""
        await self._script.at("targets.open_to_read")
        return FakeTarget(self._script, self._devices, mount, Path(mount.path) / BACKUP_FOLDER, self)


class FakeTarget:
    """Implements ``ports.Target`` on a folder. Every step asks whether the stick is still there."""

    def __init__(self, script: Script, devices: FakeDevices, mount: Mount, folder: Path, owner: FakeTargets) -> None:
        self._script = script
        self._devices = devices
        self._number = mount.partition.device_number
        self._folder = folder
        self._owner = owner
        self._lost: BackupError | None = None
        self.working_folder = str(folder)

    async def _at(self, step: str) -> None:
        await self._script.at(f"target.{step}")
        self._check()

    def _check(self) -> None:
        self._stick()

    def _stick(self) -> Stick:
        for plug_in, stick in self._devices.plugged.items():
            if plug_in.device_number == self._number:
                return stick
        raise DiskGone("the disk was unplugged")

    def _beat(self, step: str) -> Callable[[], None]:
        """What the real one calls for each file: `target.move one` is a step too, for `fail` and `do_at`."""

        def beat() -> None:
            self._script.at_once(f"target.{step} one")
            self._check()

        return beat

    @contextmanager
    def _opened(self) -> Iterator[int]:
        with Descriptor.open(self._folder) as folder:
            yield folder.fd

    async def check(self) -> None:
        """Raise ``DiskGone``."""
        await self._at("check")

    async def make_folder(self, path: str) -> None:
        """Make it."""
        await self._at("make_folder")
        (self._folder / path).mkdir(parents=True, exist_ok=True)

    async def names(self, folder: str) -> tuple[str, ...]:
        """The names in it."""
        await self._at("names")
        path = self._folder / folder
        return tuple(sorted(entry.name for entry in path.iterdir() if entry.is_file())) if path.is_dir() else ()

    def walk(self, folder: bytes, beat: Callable[[], None]) -> Iterator[Folder]:
        """All folders below one."""
        self._script.at_once("target.walk")
        if not (self._folder / os.fsdecode(folder)).exists():
            return
        step = self._beat("walk")
        with self._opened() as at:
            for found in walk(at, folder, beat=beat, skip=os.fsencode(TEMPORARY)):
                step()
                yield found

    async def fingerprint(self) -> Fingerprint:
        """As it is, but for the free clusters, which the machine's other programs would change."""
        await self._at("fingerprint")
        with self._opened() as at:
            found = disk_files.fingerprint(at, self._beat("fingerprint"))
        return replace(found, free_clusters=self._free() // CLUSTER)

    async def sha1s(
        self, paths: Iterable[bytes], progress: Callable[[int], None]
    ) -> Mapping[bytes, bytes | str | None]:
        """Their hashes."""
        await self._at("sha1s")
        with self._opened() as at:
            return sha1s(at, paths, beat=self._beat("sha1s"), count=progress)

    async def copy_in(
        self, source: Path, files: Mapping[bytes, bytes], progress: Callable[[int], None]
    ) -> tuple[tuple[bytes, str], ...]:
        """Copy them."""
        await self._at("copy_in")
        with self._opened() as at:
            return copy_in(source, at, files, number=1, beat=self._beat("copy_in"), count=progress)

    async def move(self, pairs: Iterable[tuple[bytes, bytes]], *, beside: bool) -> tuple[tuple[bytes, str], ...]:
        """Rename them."""
        await self._at("move")
        with self._opened() as at:
            return disk_moves.move_files(at, pairs, beside=beside, beat=self._beat("move"))

    async def set_times(self, times: Mapping[bytes, int]) -> None:
        """Give them these times."""
        await self._at("set_times")
        with self._opened() as at:
            disk_files.set_times(at, times, self._beat("set_times"))

    async def remove_files(self, paths: Iterable[bytes]) -> None:
        """Remove them."""
        await self._at("remove_files")
        with self._opened() as at:
            disk_files.remove_files(at, paths, self._beat("remove_files"))

    async def folders(self, folder: str) -> tuple[str, ...]:
        """The folders in it."""
        await self._at("folders")
        with self._opened() as at:
            return disk_files.names(at, folder, folders=True)

    async def room_taken(self, folder: str) -> int:
        """In whole clusters."""
        await self._at("room_taken")
        with self._opened() as at:
            return disk_files.room_taken(at, folder, self._beat("room_taken"), cluster=CLUSTER)

    async def consume(self, folder: str, name: str, take: Callable[[IO[bytes]], T]) -> T | None:
        """Have it read."""
        await self._at("consume")
        with self._opened() as at:
            return disk_writing.consume(at, f"{folder}/{name}", take, self._beat("consume"))

    async def write(self, folder: str, name: str, produce: Callable[[Sink], None]) -> Written:
        """Write it whole or not at all."""
        await self._at(f"write {folder}")
        content = Memory()
        produce(content)
        (self._folder / folder).mkdir(exist_ok=True)
        (self._folder / folder / name).write_bytes(content.data)
        return Written(len(content.data), hashlib.sha256(content.data).hexdigest())

    async def sha256(self, folder: str, name: str) -> str | None:
        """A file's hash."""
        await self._at("sha256")
        file = self._folder / folder / name
        return hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else None

    async def read(self, folder: str, name: str) -> bytes | None:
        """A file's content."""
        await self._at("read")
        file = self._folder / folder / name
        return file.read_bytes() if file.exists() else None

    async def clear(self, folder: str) -> None:
        """Remove a folder."""
        await self._at("clear")
        shutil.rmtree(self._folder / folder, ignore_errors=True)

    async def remove(self, folder: str, name: str) -> None:
        """Remove it."""
        await self._at("remove")
        (self._folder / folder / name).unlink(missing_ok=True)

    async def clear_temporary(self, folder: str) -> None:
        """Remove what is not whole."""
        await self._at("clear_temporary")
        shutil.rmtree(self._folder / folder / TEMPORARY, ignore_errors=True)

    async def facts(self, folder: str, paths: Iterable[bytes]) -> Mapping[bytes, FileFact]:
        """Those that are there."""
        await self._at("facts")
        there = files_below(self._folder / folder)
        return {path: there[path] for path in paths if path in there}

    async def free_bytes(self) -> int:
        """What the files on the stick leave of it."""
        await self._at("free_bytes")
        return self._free()

    def _free(self) -> int:
        sizes = (path.lstat().st_size for path in self._folder.parent.rglob("*") if path.is_file())
        return self._stick().capacity - sum(-(-size // CLUSTER) * CLUSTER for size in sizes)

    async def cluster_bytes(self) -> int:
        """As exFAT has it."""
        await self._at("cluster_bytes")
        return CLUSTER

    async def flush(self, progress: Callable[[int], None]) -> None:
        """Nothing is buffered. Once it has failed it fails always."""
        if self._lost is not None:
            raise self._lost
        try:
            await self._at("flush")
        except BackupError as error:
            self._lost = error
            raise
        progress(1)

    async def close(self) -> None:
        """Let go."""
        self._owner.opened -= 1


class Memory:
    """Implements ``ports.Sink``."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes, /) -> int:
        """Keep it."""
        self.data += data
        return len(data)

    def flush(self) -> None:
        """Nothing to do."""


def files_below(folder: Path) -> dict[bytes, FileFact]:
    """Size and time of every file, but those in a temporary folder."""
    found: dict[bytes, FileFact] = {}
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        if path.is_file() and TEMPORARY not in relative.parts:
            found[os.fsencode(relative)] = FileFact(path.stat().st_size, path.stat().st_mtime_ns)
    return found


class FakeCopier:
    """Implements ``ports.Copier``."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.copied: list[bytes] = []
        self.refuses: set[bytes] = set()
        self.full_after: int | None = None

    async def copy(
        self, source: Path, target: Target, folder: str, paths: Iterable[bytes], progress: Callable[[int], None]
    ) -> CopyResult:
        """Copy the files with their times."""
        await self._script.at(f"copier.copy {folder}")
        for path in sorted(set(paths) - self.refuses):
            if self.full_after is not None and len(self.copied) >= self.full_after:
                return CopyResult(finished=False, full=True, complaints=(), exit_code=11)
            self._script.at_once("copier.file")
            goal = Path(target.working_folder, folder, os.fsdecode(path))
            goal.parent.mkdir(parents=True, exist_ok=True)
            if not (source / os.fsdecode(path)).exists():
                continue  # it vanished, as rsync has it with exit code 24
            shutil.copy2(source / os.fsdecode(path), goal)
            self.copied.append(path)
        progress(1)
        return CopyResult(finished=True, full=False, complaints=(), exit_code=0)
