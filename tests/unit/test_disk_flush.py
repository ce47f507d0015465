"""The flush: what it asks of the kernel, and when the disk counts as one that may have lost something."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.fakes import World, partition_of

from immich_usb_backup.adapters import disk_flush, syncfs
from immich_usb_backup.adapters.disk_flush import Flusher
from immich_usb_backup.adapters.threads import Callers
from immich_usb_backup.errors import DiskGone, FlushFailed
from immich_usb_backup.model import Mount

DISK = os.makedev(8, 0)
PARTITION = os.makedev(8, 1)


async def _still_there() -> None:
    """Not pulled."""


@pytest.fixture
def scsi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The counters of a disk with one partition, as the kernel lays them out."""
    device = tmp_path / "devices/usb/host0"
    (device / "block/sda/sda1").mkdir(parents=True)
    (device / "block/sda/device").symlink_to(device)
    by_number = tmp_path / "dev/block"
    by_number.mkdir(parents=True)
    (by_number / "8:0").symlink_to(device / "block/sda")
    (by_number / "8:1").symlink_to(device / "block/sda/sda1")
    for place in ("block/sda", "block/sda/sda1"):
        (device / place / "stat").write_text("0 0 0 0 0 0 0 0 0 0 0\n")
    (device / "ioerr_cnt").write_text("0x1\n")
    (device / "iotmo_cnt").write_text("0x0\n")
    monkeypatch.setattr(syncfs, "SYS", by_number)
    return device


@pytest.mark.parametrize("number", [DISK, PARTITION])
def test_failures_are_those_of_the_disk_that_the_file_system_lies_on(scsi: Path, number: int) -> None:
    assert syncfs.commands_failed(number) == ("0x1", "0x0")


def test_where_nobody_counts_failures_they_are_not_known(scsi: Path) -> None:
    assert syncfs.commands_failed(os.makedev(7, 0)) is None
    (scsi / "iotmo_cnt").unlink()  # an older kernel
    assert syncfs.commands_failed(PARTITION) is None


@pytest.mark.parametrize("counter", ["", "ioerr_cnt", "iotmo_cnt", "none"])
async def test_folders_are_written_twice_only_where_something_may_be_lost(
    world: World, tmp_path: Path, scsi: Path, monkeypatch: pytest.MonkeyPatch, counter: str
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(disk_flush, "syncfs", lambda _: asked.append("syncfs"))
    monkeypatch.setattr(os, "fsync", lambda _: asked.append("fsync"))
    if counter == "none":
        (scsi / "ioerr_cnt").unlink()
    partition = replace(partition_of(world.stick()), device_number=PARTITION)
    mount = Mount(partition=partition, path=str(tmp_path), ours=True, read_only=False)
    flusher = Flusher(0, mount, lambda: True, callers=Callers(), check=_still_there)
    if counter not in {"", "none"}:
        (scsi / counter).write_text("0x2\n")
    await flusher.flush(lambda _: None)
    assert asked == (["syncfs", "fsync"] if counter == "" else ["fsync", "syncfs", "fsync"])


@pytest.mark.parametrize("present", [True, False])
async def test_an_error_that_the_kernel_keeps_to_itself_is_no_success(
    world: World, tmp_path: Path, scsi: Path, monkeypatch: pytest.MonkeyPatch, present: bool
) -> None:
    monkeypatch.setattr(disk_flush, "syncfs", lambda _: (scsi / "ioerr_cnt").write_text("0x2\n"))
    monkeypatch.setattr(os, "fsync", lambda _: None)
    partition = replace(partition_of(world.stick()), device_number=PARTITION)
    mount = Mount(partition=partition, path=str(tmp_path), ours=True, read_only=False)
    flusher = Flusher(0, mount, lambda: present, callers=Callers(), check=_still_there)
    for _ in range(2):
        with pytest.raises(FlushFailed if present else DiskGone):
            await flusher.flush(lambda _: None)
