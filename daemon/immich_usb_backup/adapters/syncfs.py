"""syncfs(2), which Python 3.11 does not offer, and how much a device has written."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

SYS = Path("/sys/dev/block")

_SECTOR = 512
_SECTORS_WRITTEN = 6
_FAILURES = ("ioerr_cnt", "iotmo_cnt")
_libc = ctypes.CDLL(None, use_errno=True)


def syncfs(fd: int) -> None:
    """Write out the file system that ``fd`` lies on. Blocks. Raises ``OSError`` when any write since the opening of
    ``fd`` was lost (Linux 5.8 and later)."""
    if _libc.syncfs(fd) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def _place(device_number: int) -> Path:
    return SYS / f"{os.major(device_number)}:{os.minor(device_number)}"


def bytes_written(device_number: int) -> int | None:
    """Bytes that a block device has written since it came, or None when it is gone.

    Source: the kernel's Documentation/block/stat.rst, "write sectors", which count 512 bytes on any device.
    """
    try:
        return int((_place(device_number) / "stat").read_text("ascii").split()[_SECTORS_WRITTEN]) * _SECTOR
    except (OSError, ValueError, IndexError):
        return None


def commands_failed(device_number: int) -> tuple[str, ...] | None:
    """How many commands a disk has answered with an error, and how many it has not answered in time, since it came; None
    where nobody counts them: only the kernel's SCSI layer does, to which USB disks belong."""
    place = _place(device_number).resolve()
    for device in (place / "device", place.parent / "device"):  # of a disk, or of a partition's disk
        try:
            return tuple((device / name).read_text("ascii").strip() for name in _FAILURES)
        except OSError:
            continue
    return None
