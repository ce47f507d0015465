"""The SHA-1 of many files, without following links."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterable

from immich_usb_backup.adapters.tree import NotAFile, Opener
from immich_usb_backup.adapters.walk import Fatal, never

_CHUNK = 1 << 20


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
    with Opener(root) as opener:
        for path in paths:
            beat()
            try:
                found[path] = _sha1(opener, path, buffer, beat, count, from_medium=from_medium)
            except OSError as error:
                if fatal(error):
                    raise
                missing = isinstance(error, FileNotFoundError | NotADirectoryError | NotAFile)
                found[path] = None if missing else error.strerror or "it cannot be read"
    return found


def _sha1(
    opener: Opener,
    path: bytes,
    buffer: bytearray,
    beat: Callable[[], None],
    count: Callable[[int], None],
    *,
    from_medium: bool,
) -> bytes:
    digest = hashlib.sha1(usedforsecurity=False)
    with opener.open(path) as file:
        if from_medium:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        view, left = memoryview(buffer), os.fstat(file.fileno()).st_size
        while size := file.readinto(buffer):
            beat()
            digest.update(view[:size])
            count(size)
            left -= size
            if left < 0:  # what grows as fast as it is read would never end
                raise OSError(errno.EAGAIN, "it changed meanwhile")
    return digest.digest()
