"""syncfs(2), which Python 3.11 does not offer, and how much a device has written."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_SECTOR = 512
_SECTORS_WRITTEN = 6
_libc = ctypes.CDLL(None, use_errno=True)


def syncfs(fd: int) -> None:
    """Write out the file system that ``fd`` lies on. Blocks. Raises ``OSError`` when any write since the opening of
    ``fd`` was lost (Linux 5.8 and later)."""
    if _libc.syncfs(fd) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def bytes_written(device_number: int) -> int | None:
    """Bytes that a block device has written since it came, or None when it is gone.

    Source: the kernel's Documentation/block/stat.rst, "write sectors", which count 512 bytes on any device.
    """
    path = Path(f"/sys/dev/block/{os.major(device_number)}:{os.minor(device_number)}/stat")
    try:
        return int(path.read_text("ascii").split()[_SECTORS_WRITTEN]) * _SECTOR
    except (OSError, ValueError, IndexError):
        return None
