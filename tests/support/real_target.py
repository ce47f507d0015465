"""The project's own ``DiskTarget`` on a loop disk of the harness."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from immich_usb_backup.adapters.target import DiskTarget, DiskTargets
from immich_usb_backup.model import Mount
from tests.support import host
from tests.support.fakes import Stick, partition_of
from tests.support.real_disks import seen_disk

TARGETS = DiskTargets(lambda _: lambda: True)


def mount_of(disk: host.Disk, root: Path) -> Mount:
    """What UDisks2 would say of a disk that is mounted there."""
    partition = partition_of(Stick(seen=seen_disk(disk), root=root))
    return Mount(partition=partition, path=str(root), read_only=False, ours=True)


@asynccontextmanager
async def opened(mount: Mount, marker_entry: str | None = None) -> AsyncIterator[DiskTarget]:
    """The backup folder, open."""
    target = await TARGETS.open(mount, marker_entry=marker_entry)
    try:
        yield target
    finally:
        await target.close()
