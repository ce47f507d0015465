"""What is said of a disk that cannot be unmounted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.fakes import World, partition_of

from immich_usb_backup.adapters import udisks
from immich_usb_backup.adapters.mounts import MountPoint
from immich_usb_backup.errors import BusCallFailed


def test_a_program_that_uses_a_disk_is_named_once_though_the_mount_is_seen_twice(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partition = replace(partition_of(world.stick()), device_node="/dev/sdb1")
    point = MountPoint(partition.device_number, str(tmp_path), read_only=False)
    monkeypatch.setattr(udisks, "mount_points", lambda _: (point, point))
    monkeypatch.setattr(udisks, "holders", lambda _: ("rsync (7)", "shell (8)"))
    error = udisks._unmount_error(partition, BusCallFailed("org.freedesktop.UDisks2.Error.DeviceBusy", "busy"))
    assert error.message == "/dev/sdb1 is in use by rsync (7), shell (8)"
