"""The server's own files: read, never written. The daemon has no right to write them either."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from immich_usb_backup.adapters.archive import write_archive
from immich_usb_backup.adapters.digests import sha1s
from immich_usb_backup.adapters.mounts import is_mount_point
from immich_usb_backup.adapters.threads import Meter, Pulse, in_thread
from immich_usb_backup.adapters.tree import Descriptor, file_facts
from immich_usb_backup.adapters.walk import walk
from immich_usb_backup.errors import SourceUnreadable
from immich_usb_backup.policy.copy_check import FileFact
from immich_usb_backup.policy.dumps import TAIL_BYTES, dump_problem
from immich_usb_backup.policy.manifest import Folder
from immich_usb_backup.ports import ArchiveResult, Sink

_CHUNK = 1 << 20


class ServerFiles:
    """The ``Source`` port on the real file system."""

    def walk(self, folder: Path, beat: Callable[[], None]) -> Iterator[Folder]:
        """All folders from ``folder`` on, each before those in it. Blocks. Raises ``SourceUnreadable``."""
        with _opened_folder(folder) as opened:
            yield from walk(opened.fd, beat=beat)

    async def is_mount_point(self, folder: Path) -> bool:
        """Whether a file system is mounted there, a bind mount too. Raises ``SourceUnreadable``."""
        return await in_thread(lambda _: _is_mount_point(folder), what=f"Looking at {folder}")

    async def sha1s(
        self, folder: Path, paths: Iterable[bytes], progress: Callable[[int], None]
    ) -> Mapping[bytes, bytes | str | None]:
        """SHA-1 of files below a folder; None for what is no plain file (any more). Raises ``SourceUnreadable``."""
        with Meter(progress) as meter:
            return await in_thread(lambda pulse: _sha1s(folder, paths, pulse, meter), what=f"Reading {folder}")

    async def names(self, folder: Path) -> tuple[str, ...]:
        """The names in a folder. Raises ``SourceUnreadable``."""
        return await in_thread(lambda _: _names(folder), what=f"Reading {folder}")

    async def dump_problem(self, path: Path) -> str | None:
        """Read a gzip dump to its end; what is wrong with it, or None. Raises ``SourceUnreadable``."""
        return await in_thread(lambda pulse: _dump_problem(path, pulse), what=f"Reading {path}")

    async def sha256(self, path: Path) -> str:
        """A file's hash. Raises ``SourceUnreadable``."""
        return await in_thread(lambda pulse: _sha256(path, pulse), what=f"Reading {path}")

    async def facts(self, folder: Path, paths: Iterable[bytes]) -> Mapping[bytes, FileFact]:
        """Size and time of those of the files that (still) exist. Raises ``SourceUnreadable``."""
        return await in_thread(lambda pulse: _facts(folder, paths, pulse), what=f"Reading {folder}")

    def copy_into(self, path: Path, sink: Sink) -> None:
        """Copy a file's content. Blocks. Raises ``SourceUnreadable``."""
        with _open(path) as file:
            while chunk := _read(file, path):
                sink.write(chunk)

    async def archive_sha256(self, paths: Iterable[Path]) -> tuple[str, ArchiveResult]:
        """The hash that the archive would have."""
        return await in_thread(lambda pulse: _archive_sha256(paths, pulse), what="Reading the configuration files")

    def archive_into(self, paths: Iterable[Path], sink: Sink) -> ArchiveResult:
        """Zip files and folders. Blocks."""
        return write_archive(paths, sink)


class _Reader:
    """An open file, so that ``with`` closes it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __enter__(self) -> int:
        return self.fd

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def _open(path: Path) -> _Reader:
    try:
        return _Reader(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError as error:
        raise _unreadable(path, error) from error


def _read(fd: int, path: Path) -> bytes:
    try:
        return os.read(fd, _CHUNK)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> SourceUnreadable:
    return SourceUnreadable(f"{path} cannot be read: {error.strerror}")


@contextmanager
def _opened_folder(folder: Path) -> Iterator[Descriptor]:
    """The folder, which may be a link to one. Raises ``SourceUnreadable`` for this and what is raised inside."""
    try:
        with Descriptor.open(folder, follow=True) as opened:
            yield opened
    except OSError as error:
        raise _unreadable(folder, error) from error


def _is_mount_point(folder: Path) -> bool:
    with _opened_folder(folder) as opened:
        return is_mount_point(opened.fd)


def _sha1s(folder: Path, paths: Iterable[bytes], pulse: Pulse, meter: Meter) -> Mapping[bytes, bytes | str | None]:
    with _opened_folder(folder) as opened:
        return sha1s(opened.fd, paths, beat=pulse.beat, count=meter.add)


def _names(folder: Path) -> tuple[str, ...]:
    try:
        return tuple(sorted(os.listdir(folder)))
    except OSError as error:
        raise _unreadable(folder, error) from error


def _facts(folder: Path, paths: Iterable[bytes], pulse: Pulse) -> Mapping[bytes, FileFact]:
    with _opened_folder(folder) as opened:
        return file_facts(opened.fd, paths, pulse.beat)


def _sha256(path: Path, pulse: Pulse) -> str:
    digest = hashlib.sha256()
    with _open(path) as file:
        while chunk := _read(file, path):
            pulse.beat()
            digest.update(chunk)
    return digest.hexdigest()


class _HashSink:
    """Hashes what an archive would hold."""

    def __init__(self, pulse: Pulse) -> None:
        self._pulse = pulse
        self.digest = hashlib.sha256()

    def write(self, data: bytes, /) -> int:
        """Take all of ``data``."""
        self._pulse.beat()
        self.digest.update(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is buffered here."""


def _archive_sha256(paths: Iterable[Path], pulse: Pulse) -> tuple[str, ArchiveResult]:
    sink = _HashSink(pulse)
    result = write_archive(paths, sink)
    return sink.digest.hexdigest(), result


def _dump_problem(path: Path, pulse: Pulse) -> str | None:
    try:
        with path.open("rb") as file:
            return gzip_problem(file, pulse.beat)
    except OSError as error:
        raise _unreadable(path, error) from error


def gzip_problem(file: IO[bytes], beat: Callable[[], None]) -> str | None:
    """Read a gzip dump to its end; what is wrong with it, or None. Raises ``OSError``."""
    head, tail, whole = b"", b"", 0
    try:
        with gzip.open(file) as stream:
            while chunk := stream.read(_CHUNK):
                beat()
                head = head or chunk[:TAIL_BYTES]
                tail = (tail + chunk)[-TAIL_BYTES:]
                whole += len(chunk)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        return f"it is damaged or was cut off: {error}"
    return dump_problem(head, tail) if whole else "it is empty"
