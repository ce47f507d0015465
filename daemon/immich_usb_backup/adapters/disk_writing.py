"""Small files of ours on a disk: written whole and proven, read as the medium has them. Everything blocks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from io import BufferedReader, FileIO
from typing import IO, Any, TypeVar

from immich_usb_backup.adapters.disk_files import make_folders
from immich_usb_backup.adapters.tree import Descriptor, NotAFile, open_file
from immich_usb_backup.errors import DiskFailing
from immich_usb_backup.model import TEMPORARY
from immich_usb_backup.ports import Sink, Written

T = TypeVar("T")
Beat = Callable[[], None]

_CHUNK = 1 << 20
_READ_AT_MOST = 64 * _CHUNK


class HashingWriter:
    """A binary file for writing that hashes and counts what passes, and beats the pulse."""

    def __init__(self, file: IO[bytes], beat: Beat) -> None:
        self._file = file
        self._beat = beat
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        """Write all of ``data``."""
        self._beat()
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


class _BeatingFile(FileIO):
    """A file that beats the pulse whenever it is read."""

    def __init__(self, fd: int, beat: Beat) -> None:
        super().__init__(fd, "rb")
        self._beat = beat

    def readinto(self, buffer: Any, /) -> int:
        """Read some bytes."""
        self._beat()
        return super().readinto(buffer)


def write_whole(at: int, path: str, produce: Callable[[Sink], None], beat: Beat) -> Written:
    """Write a file: temporary name, fsync, read back past the page cache, rename, fsync of the folder. Raises
    ``DiskFailing`` when what comes back is not what was written; the old file then still stands. Raises ``OSError``."""
    folder, _, name = path.rpartition("/")
    make_folders(at, os.fsencode(folder))
    make_folders(at, os.fsencode(TEMPORARY))
    temporary = f"{TEMPORARY}/{name}"
    written = _write_temporary(at, temporary, produce, beat)
    if sha256(at, temporary, beat) != written.sha256:
        raise DiskFailing(f"{name} reads back from the disk differently than it was written")
    os.rename(temporary, path, src_dir_fd=at, dst_dir_fd=at)
    with Descriptor.open(folder or ".", at=at) as opened:
        os.fsync(opened.fd)
    return written


def _write_temporary(at: int, path: str, produce: Callable[[Sink], None], beat: Beat) -> Written:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, 0o644, dir_fd=at), "wb") as file:
        writer = HashingWriter(file, beat)
        produce(writer)
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return writer.written


def consume(at: int, path: str, take: Callable[[IO[bytes]], T], beat: Beat) -> T | None:
    """Have ``take`` read a file as the medium has it; None where no plain file has the path. Raises ``OSError``, and what
    ``take`` raises."""
    file = _open(at, path, beat)
    if file is None:
        return None
    with file:
        return take(file)


def sha256(at: int, path: str, beat: Beat) -> str | None:
    """The hash (hex) of a file as the medium has it, or None where no plain file has the path. Raises ``OSError``."""
    file = _open(at, path, beat)
    if file is None:
        return None
    with file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_small(at: int, path: str, beat: Beat) -> bytes | None:
    """A small file as the medium has it, or None where no plain file has the path. Raises ``OSError``."""
    return consume(at, path, lambda file: file.read(_READ_AT_MOST), beat)


def _open(at: int, path: str, beat: Beat) -> BufferedReader | None:
    try:
        with open_file(at, os.fsencode(path)) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            return BufferedReader(_BeatingFile(os.dup(file.fileno()), beat), _CHUNK)
    except (FileNotFoundError, NotAFile):
        return None
