"""Fixtures' helpers for the real UDisks2: a connection of the project's own, and what udev says of a loop disk."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

from immich_usb_backup.adapters.bus import Bus
from immich_usb_backup.model import PartitionSeen, PlugIn
from tests.support import host
from tests.support.fakes import seen_stick


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """One variable for a while."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@asynccontextmanager
async def connected(bus: host.Bus) -> AsyncIterator[Bus]:
    """Our own connection to a bus of the harness."""
    with environment(bus.variable, bus.address):
        connection = await Bus.system()
    try:
        yield connection
    finally:
        await connection.close()


def seen_disk(disk: host.Disk) -> PartitionSeen:
    """As udev sees the loop disk."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    plug_in = PlugIn(boot_id=boot_id, disk_sequence=disk.diskseq, device_number=disk.device_number)
    uuid = disk.properties()["ID_FS_UUID"]
    return replace(seen_stick(), device_node=str(disk.device), plug_in=plug_in, transport="loop", uuid=uuid)
