"""Copying files onto a disk under other names. Each is whole before it has its name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

from immich_usb_backup.adapters.disk_files import make_folders
from immich_usb_backup.adapters.disk_moves import NAME_ERRORS
from immich_usb_backup.adapters.tree import Descriptor, Opener
from immich_usb_backup.model import TEMPORARY

_CHUNK = 1 << 20
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC

GONE = "it went away meanwhile"
CHANGED = "it changed meanwhile"


class NotCopied(Exception):
    """One file could not be copied, and the disk is not the reason."""


def copy_in(
    source: Path,
    disk: int,
    files: Mapping[bytes, bytes],
    *,
    number: int,
    beat: Callable[[], None],
    count: Callable[[int], None],
) -> tuple[tuple[bytes, str], ...]:
    """Copy files from paths below ``source`` to paths below the open backup folder ``disk``. Returns those that could not
    be: path and reason. ``number`` names the temporary file, no other copying under way has the same; ``count`` gets
    bytes as they are copied. Raises ``OSError`` where the disk is the reason."""
    try:
        folder = Descriptor.open(source, follow=True)
    except OSError as error:
        return tuple((path, f"{source} cannot be opened: {error.strerror}") for path in files)
    with folder:
        return _Copying(disk=disk, number=number, beat=beat, count=count).run(folder.fd, files)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Copying:
    """Copies one file after the other."""

    disk: int
    number: int
    beat: Callable[[], None]
    count: Callable[[int], None]
    folders: set[bytes] = field(default_factory=set)
    buffer: bytearray = field(default_factory=lambda: bytearray(_CHUNK))

    def run(self, source: int, files: Mapping[bytes, bytes]) -> tuple[tuple[bytes, str], ...]:
        """Copy them all, whatever becomes of the single one."""
        failed: list[tuple[bytes, str]] = []
        make_folders(self.disk, os.fsencode(TEMPORARY))
        with Opener(source) as opener:
            for path, goal in files.items():
                self.beat()
                try:
                    self._copy(opener, path, goal)
                except NotCopied as error:
                    failed.append((path, str(error)))
        return tuple(failed)

    def _copy(self, opener: Opener, path: bytes, goal: bytes) -> None:
        temporary = os.fsencode(f"{TEMPORARY}/{self.number}")
        with _opened(opener, path) as original:
            try:
                self._write(original, temporary)
                self._put_in_place(temporary, goal)
            except BaseException:
                with suppress(OSError):  # the next run clears it
                    os.unlink(temporary, dir_fd=self.disk)
                raise

    def _write(self, original: FileIO, temporary: bytes) -> None:
        before = os.fstat(original.fileno())
        with open(os.open(temporary, _FLAGS, 0o644, dir_fd=self.disk), "wb", buffering=0) as copy:
            size = self._transfer(original, copy, before.st_size)
            after = os.fstat(original.fileno())
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or size != after.st_size:
                raise NotCopied(CHANGED)
            os.utime(copy.fileno(), ns=(after.st_mtime_ns, after.st_mtime_ns))

    def _transfer(self, original: FileIO, copy: FileIO, expected: int) -> int:
        """Copy to the end, or until there is more than expected: what grows as fast as it is read would never end."""
        view, total = memoryview(self.buffer), 0
        while total <= expected and (size := _read(original, self.buffer)):
            written = 0
            while written < size:
                self.beat()
                written += copy.write(view[written:size])
            total += size
            self.count(size)
        return total

    def _put_in_place(self, temporary: bytes, goal: bytes) -> None:
        try:
            make_folders(self.disk, goal.rpartition(b"/")[0], known=self.folders)
            os.rename(temporary, goal, src_dir_fd=self.disk, dst_dir_fd=self.disk)
        except OSError as error:
            if error.errno in NAME_ERRORS:
                raise NotCopied(f"it cannot have its place on the disk: {error.strerror}") from error
            raise


@contextmanager
def _opened(opener: Opener, path: bytes) -> Iterator[FileIO]:
    """A plain file of the source. Raises ``NotCopied``."""
    try:
        file = opener.open(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotCopied(GONE) from error
    except OSError as error:
        raise NotCopied(error.strerror or "it cannot be read") from error
    with file:
        yield file


def _read(original: FileIO, buffer: bytearray) -> int:
    try:
        return original.readinto(buffer)
    except OSError as error:
        raise NotCopied(error.strerror or "it cannot be read") from error
