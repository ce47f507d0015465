"""The marker file of an enrolled disk, written into the root: the old one stands until the new one is whole. Blocks."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress

from immich_usb_backup.adapters.disk_files import exists
from immich_usb_backup.adapters.disk_writing import read_small
from immich_usb_backup.adapters.syncfs import syncfs
from immich_usb_backup.errors import DiskFailing, MarkerUnusable
from immich_usb_backup.policy.marker import ENROLLED_MARKER, MARKER_BYTES

TEMPORARY = ENROLLED_MARKER + ".partial"
"""What it is called before it is whole: no marker. In the root, because a new disk has no folder of ours yet."""

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write(root: int, content: bytes, beat: Callable[[], None]) -> None:
    """Write it: temporary name, fsync, read back from the medium, rename, and everything written out. Raises
    ``MarkerUnusable``, ``DiskFailing``, ``OSError``; before the rename, nothing is left of it."""
    _check_place(root)
    clear(root)
    try:
        _write_new(root, content)
        beat()
        if read_small(root, TEMPORARY, beat) != content:
            raise DiskFailing("The marker reads back from the disk differently than it was written")
        os.rename(TEMPORARY, ENROLLED_MARKER, src_dir_fd=root, dst_dir_fd=root)
    except (OSError, DiskFailing):
        with suppress(OSError):
            clear(root)
        raise
    os.fsync(root)
    beat()
    syncfs(root)


def clear(root: int) -> None:
    """Remove what is left of one that was not finished. Missing is fine, and so is a folder. Raises ``OSError``."""
    if exists(root, os.fsencode(TEMPORARY)):  # on a read-only disk, removing what is missing is an error
        with suppress(FileNotFoundError, IsADirectoryError, PermissionError):
            os.unlink(TEMPORARY, dir_fd=root)


def _write_new(root: int, content: bytes) -> None:
    """``O_EXCL``: nobody can have us write through a link."""
    with os.fdopen(os.open(TEMPORARY, _NEW, 0o644, dir_fd=root), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _check_place(root: int) -> None:
    """What is replaced must be a marker file: small, and a file."""
    try:
        found = os.stat(ENROLLED_MARKER, dir_fd=root, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(found.st_mode) or found.st_size > MARKER_BYTES:
        hint = "Look at the disk on a computer, and rename it."
        raise MarkerUnusable(f"{ENROLLED_MARKER} in the root of the disk is no marker file: left as it was", hint=hint)
