"""Letting go of a disk: unmount, patiently."""

from __future__ import annotations

import asyncio

from immich_usb_backup.errors import UnmountBusy
from immich_usb_backup.model import Partition
from immich_usb_backup.ports import Ports

BUSY_SECONDS = 60.0
"""A virus scanner, an indexer or a file manager is done with a new disk after some seconds."""

_PAUSE_SECONDS = 1.0


async def release(partition: Partition, *, ports: Ports, busy_seconds: float = BUSY_SECONDS) -> None:
    """Unmount; busy is tried again until the deadline. Raises ``UnmountBusy``, ``DiskGone``."""
    deadline = ports.clock.monotonic() + busy_seconds
    while True:
        try:
            await ports.disks.unmount(partition)
        except UnmountBusy:
            if ports.clock.monotonic() >= deadline:
                raise
            await asyncio.sleep(_PAUSE_SECONDS)
        else:
            return
