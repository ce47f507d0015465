"""Small state files: written whole or not at all, and on the disk when the call returns. All calls block."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

TEMPORARY = ".new-"
"""How the name of a file begins that is being written."""


def write(folder: Path, name: str, content: bytes, *, mode: int, temporary: str = "") -> None:
    """Replace ``folder/name``. Raises ``OSError``; then the old file is as it was. ``temporary`` is what it is called while
    it is being written, where its own name behind ``TEMPORARY`` would not do."""
    _replace(folder, folder / (temporary or f"{TEMPORARY}{name}"), name, content, mode)


def _replace(folder: Path, temporary: Path, name: str, content: bytes, mode: int) -> None:
    temporary.unlink(missing_ok=True)
    try:
        _write_new(temporary, content, mode)
        os.replace(temporary, folder / name)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(folder)


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """``O_EXCL``: nobody can have us write through a link."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)  # whatever the umask is
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk. Raises ``OSError``."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: Path, *, limit: int) -> bytes:
    """The content of a regular file. Raises ``OSError``, and ``ValueError`` for anything else or one over ``limit`` bytes."""
    with suppress(OSError):
        if not stat.S_ISREG(path.lstat().st_mode):  # opening a device may do something; a socket cannot be opened
            raise ValueError("it is not a regular file")
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO would block for ever
    with os.fdopen(os.open(path, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is not a regular file")
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"it is larger than {limit} bytes")
    return content
