"""What the error numbers of a disk mean."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from immich_usb_backup.errors import BackupError, DiskFailing, DiskFull, DiskGone, DiskReadOnly, MarkerUnusable
from immich_usb_backup.model import BACKUP_FOLDER, Mount

_DEAD = {errno.ENODEV, errno.ENXIO, errno.ESHUTDOWN, errno.ENOTCONN, errno.ECONNABORTED}


def tells_of_death(error: OSError) -> bool:
    """Whether no call to this disk will ever succeed again."""
    return error.errno in _DEAD


@contextmanager
def translated(mount: Mount, present: Callable[[], bool]) -> Iterator[None]:
    """Raise what an ``OSError`` from inside means for the disk; one that means nothing in particular as it is."""
    try:
        yield
    except OSError as error:
        meaning = _meaning(error, mount, present=present())
        if meaning is None:
            raise
        raise meaning from error


def _meaning(error: OSError, mount: Mount, *, present: bool) -> BackupError | None:
    node = mount.partition.device_node
    if not present or tells_of_death(error):
        return DiskGone(f"{node} was unplugged")
    if error.errno == errno.ENOSPC:
        return DiskFull(f"{node} is full")
    if error.errno == errno.EROFS:
        return DiskReadOnly(f"{node} cannot be written to: it is read-only")
    if error.errno in {errno.ENOTDIR, errno.EISDIR}:
        return MarkerUnusable(
            f"In {BACKUP_FOLDER} on {node} a file stands where a folder must be, or the other way round"
        )
    if error.errno == errno.EIO:
        return DiskFailing(f"{node} answers with errors: {error.strerror}")
    return None
