"""The SHA-1 of many files, without following links."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from io import FileIO

from immich_usb_backup.adapters.tree import NotAFile, Opener
from immich_usb_backup.adapters.walk import Fatal, never

_CHUNK = 1 << 20
_AHEAD = 1 << 20


def sha1s(
    root: int,
    paths: Iterable[bytes],
    *,
    beat: Callable[[], None],
    count: Callable[[int], None],
    from_medium: bool = False,
    fatal: Fatal = never,
) -> dict[bytes, bytes | str | None]:
    """The SHA-1 of each file below the open folder ``root``; None where no plain file has the path, a text where it
    cannot be read. ``count`` gets bytes as they are read. ``from_medium`` passes the page cache by, as far as it is
    written out. Raises ``OSError`` where one is ``fatal``."""
    found: dict[bytes, bytes | str | None] = {}
    buffer = bytearray(_CHUNK)
    with Opener(root) as opener, _OneAhead(opener, paths, from_medium=from_medium) as files:
        for path, file in files:
            beat()
            try:
                found[path] = _sha1(file, buffer, beat, count)
            except OSError as error:
                if fatal(error):
                    raise
                missing = isinstance(error, FileNotFoundError | NotADirectoryError | NotAFile)
                found[path] = None if missing else error.strerror or "it cannot be read"
    return found


class _OneAhead:
    """Opens files, always one more than is asked for: while one is hashed, the kernel reads the beginning of the next. In
    place of a file that cannot be opened comes the error."""

    def __init__(self, opener: Opener, paths: Iterable[bytes], *, from_medium: bool) -> None:
        self._opener = opener
        self._paths = iter(paths)
        self._from_medium = from_medium
        self._open: list[FileIO] = []

    def __iter__(self) -> Iterator[tuple[bytes, FileIO | OSError]]:
        found = map(self._opened, self._paths)
        waiting = next(found, None)
        while waiting is not None:
            following = next(found, None)
            yield waiting
            self._close(waiting[1])
            waiting = following

    def _opened(self, path: bytes) -> tuple[bytes, FileIO | OSError]:
        try:
            file = self._opener.open(path)
        except OSError as error:
            return path, error
        self._open.append(file)
        if self._from_medium:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        os.posix_fadvise(file.fileno(), 0, _AHEAD, os.POSIX_FADV_WILLNEED)
        return path, file

    def _close(self, file: FileIO | OSError) -> None:
        if isinstance(file, FileIO):
            self._open.remove(file)
            file.close()

    def __enter__(self) -> _OneAhead:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._open:
            with suppress(OSError):
                file.close()


def _sha1(file: FileIO | OSError, buffer: bytearray, beat: Callable[[], None], count: Callable[[int], None]) -> bytes:
    if isinstance(file, OSError):
        raise file
    digest = hashlib.sha1(usedforsecurity=False)
    view, left = memoryview(buffer), os.fstat(file.fileno()).st_size
    while size := file.readinto(buffer):
        beat()
        digest.update(view[:size])
        count(size)
        left -= size
        if left < 0:  # what grows as fast as it is read would never end
            raise OSError(errno.EAGAIN, "it changed meanwhile")
    return digest.digest()
