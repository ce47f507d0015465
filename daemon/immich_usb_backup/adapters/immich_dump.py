"""Reads a database dump of Immich's from beginning to end, gzip or plain, without keeping it in memory. Blocks."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from immich_usb_backup.errors import DumpUnusable, SourceUnreadable
from immich_usb_backup.policy.assets import DumpFacts
from immich_usb_backup.policy.dump_rows import Row
from immich_usb_backup.policy.dump_scan import DumpScan
from immich_usb_backup.policy.text import printable

_CHUNK = 1 << 20
_GZIP = b"\x1f\x8b"


def read_dump(path: Path, take: Callable[[list[Row]], None], *, beat: Callable[[], None]) -> tuple[DumpFacts, str]:
    """Read a dump to its end; ``take`` gets its assets in portions, ``beat`` is called between them. Returns what the dump
    says of itself (with counts of 0), and the file's SHA-256. Raises ``DumpUnusable``, ``SourceUnreadable``."""
    scan = DumpScan()
    with _about(path), closing(_Hashed(_opened(path))) as raw:
        for text in _plain(raw):
            beat()
            take(scan.feed(text))
        return scan.finish(), raw.digest.hexdigest()


@contextmanager
def _about(path: Path) -> Iterator[None]:
    """Errors that name the dump."""
    try:
        yield
    except DumpUnusable as error:
        raise DumpUnusable(f"{printable(os.fsencode(path.name))}: {error.message}", hint=error.hint) from error
    except OSError as error:
        raise SourceUnreadable(f"{path} cannot be read: {error.strerror or error}") from error


def _opened(path: Path) -> io.FileIO:
    """Raises ``OSError`` and ``DumpUnusable``. A FIFO must not be waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISREG(kind):
        return io.FileIO(descriptor)
    os.close(descriptor)
    raise DumpUnusable("it is a folder, not a file with plain SQL" if stat.S_ISDIR(kind) else "it is not a file")


class _Hashed(io.RawIOBase):
    """A file whose hash is known once it has been read."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        """For whoever asks."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read on."""
        count = self._file.readinto(buffer)
        self.digest.update(buffer[:count])
        return count

    def close(self) -> None:
        """Close the file, too."""
        self._file.close()
        super().close()


def _plain(raw: _Hashed) -> Iterator[bytes]:
    """The dump's text in pieces."""
    packed = io.BufferedReader(raw, _CHUNK)
    if packed.peek(len(_GZIP))[: len(_GZIP)] != _GZIP:
        yield from iter(lambda: packed.read(_CHUNK), b"")
        return
    stream = gzip.GzipFile(fileobj=packed)
    try:
        yield from iter(lambda: stream.read(_CHUNK), b"")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DumpUnusable(f"it is damaged or was cut off: {error}") from error
