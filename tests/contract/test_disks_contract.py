"""What the core may rely on when it asks for disks: the same for the fake and for the real UDisks2."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from immich_usb_backup.adapters import udisks
from immich_usb_backup.adapters.mounts import MOUNTINFO, mount_points
from immich_usb_backup.adapters.udisks import UDisks
from immich_usb_backup.errors import BackupError, DiskGone, DiskNotReady, MountFailed, UnmountBusy
from immich_usb_backup.model import PartitionSeen
from immich_usb_backup.ports import Disks
from tests.support import host
from tests.support.fakes import World
from tests.support.real_disks import connected, seen_disk

NOT_HERE = host.unavailable()


class Rig(Protocol):
    """A disk that is plugged in, and hands to do things with it."""

    disks: Disks
    seen: PartitionSeen

    def mounted(self) -> bool:
        """Whether it is mounted, by whomever."""

    def hold(self) -> Any:
        """``with``: this very process has a file on it open."""

    async def pull(self) -> None:
        """Pull it."""


class FakeRig:
    def __init__(self, folder: Path) -> None:
        world = World(folder)
        self.disks: Disks = world.disks
        self._world = world
        self._stick = world.stick()
        self.seen = self._stick.seen
        world.devices.plug(self._stick)

    def mounted(self) -> bool:
        return bool(self._stick.mounted_by)

    @contextmanager
    def hold(self) -> Iterator[None]:
        self._stick.holders.append(f"pytest ({os.getpid()})")
        yield
        self._stick.holders.clear()

    async def pull(self) -> None:
        self._world.devices.pull(self._stick)


class RealRig:
    def __init__(self, disks: UDisks, disk: host.Disk) -> None:
        self.disks: Disks = disks
        self._disk = disk
        self.seen = seen_disk(disk)
        self._number = disk.device_number

    def mounted(self) -> bool:
        return bool(mount_points(self._number))

    @contextmanager
    def hold(self) -> Iterator[None]:
        descriptor = os.open(mount_points(self._number)[-1].path, os.O_RDONLY)
        try:
            yield
        finally:
            os.close(descriptor)

    async def pull(self) -> None:
        await asyncio.to_thread(self._disk.detach, pull=True)


@pytest.fixture(scope="module")
def real_bus() -> Iterator[host.Bus]:
    with host.system_bus(private=True) as bus, host.udev(), host.udisks(bus):
        yield bus


REAL = pytest.param("udisks", marks=[pytest.mark.host, pytest.mark.skipif(NOT_HERE is not None, reason=str(NOT_HERE))])


@pytest.fixture(params=["fake", REAL])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        if request.param == "fake":
            yield FakeRig(tmp_path)
            return
        bus: host.Bus = request.getfixturevalue("real_bus")
        disk = await stack.enter_async_context(host.in_thread(host.exfat_disk(16, populate=host.make_marker)))
        disks = UDisks(await stack.enter_async_context(connected(bus)))
        await disks.start()
        yield RealRig(disks, disk)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only for what never comes: everything else is there at once."""
    monkeypatch.setattr(udisks, "FIND_SECONDS", 5.0)


async def test_find_gives_the_partition_that_udev_saw(rig: Rig) -> None:
    found = await rig.disks.find(rig.seen)
    assert found.device_number == rig.seen.plug_in.device_number
    assert (found.file_system, found.uuid) == ("exfat", rig.seen.uuid)
    assert found.device_node == rig.seen.device_node
    assert not found.read_only


async def test_find_ends_when_the_disk_is_not_there(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udisks, "FIND_SECONDS", 0.2)
    await rig.pull()
    with pytest.raises(DiskNotReady):
        await rig.disks.find(rig.seen)


@pytest.mark.parametrize("read_only", [True, False])
async def test_mount_and_unmount(rig: Rig, read_only: bool) -> None:
    partition = await rig.disks.find(rig.seen)
    mount = await rig.disks.mount(partition, read_only=read_only)
    assert (mount.ours, mount.read_only) == (True, read_only)
    assert rig.mounted()
    assert Path(mount.path, "immich-server-backups").is_dir()
    await rig.disks.unmount(partition)
    assert not rig.mounted()


async def test_a_mount_that_is_there_is_given_as_not_ours_and_as_it_is(rig: Rig) -> None:
    partition = await rig.disks.find(rig.seen)
    first = await rig.disks.mount(partition, read_only=True)
    second = await rig.disks.mount(partition, read_only=False)
    assert (second.ours, second.path, second.read_only) == (False, first.path, True)


async def test_unmounting_what_is_not_mounted_is_fine(rig: Rig) -> None:
    partition = await rig.disks.find(rig.seen)
    await rig.disks.unmount(partition)
    await rig.disks.mount(partition, read_only=True)
    await rig.disks.unmount(partition)
    await rig.disks.unmount(partition)
    assert not rig.mounted()


async def test_a_busy_disk_stays_mounted_and_its_user_is_named(rig: Rig) -> None:
    partition = await rig.disks.find(rig.seen)
    await rig.disks.mount(partition, read_only=True)
    with rig.hold(), pytest.raises(UnmountBusy, match=rf"\({os.getpid()}\)"):
        await rig.disks.unmount(partition)
    assert rig.mounted()
    await rig.disks.unmount(partition)
    assert not rig.mounted()


async def test_a_disk_that_is_gone_is_told_as_gone(rig: Rig) -> None:
    partition = await rig.disks.find(rig.seen)
    await rig.pull()
    with pytest.raises((DiskGone, MountFailed)):
        await rig.disks.mount(partition, read_only=True)
    with pytest.raises(BackupError):
        await rig.disks.wait_for_automounter(partition, seconds=5)
    assert not rig.mounted()


async def test_a_disk_that_is_pulled_under_its_mount_cannot_be_unmounted_any_more(rig: Rig) -> None:
    partition = await rig.disks.find(rig.seen)
    await rig.disks.mount(partition, read_only=False)
    await rig.pull()
    with pytest.raises(DiskGone):
        await rig.disks.unmount(partition)


async def test_the_automounter_is_waited_for_until_the_deadline_only(rig: Rig) -> None:
    partition = await rig.disks.find(rig.seen)
    assert (await rig.disks.wait_for_automounter(partition, seconds=0)).uuid == rig.seen.uuid
    await rig.disks.mount(partition, read_only=True)
    assert (await rig.disks.wait_for_automounter(partition, seconds=3600)).uuid == rig.seen.uuid


async def test_what_a_cut_off_run_left_mounted_is_found_again(rig: Rig) -> None:
    assert await rig.disks.left_mounted(rig.seen.uuid) is None
    partition = await rig.disks.find(rig.seen)
    await rig.disks.mount(partition, read_only=False)
    left = await rig.disks.left_mounted(rig.seen.uuid)
    assert left is not None
    assert left.device_number == partition.device_number
    assert await rig.disks.left_mounted("0000-0000") is None
    await rig.disks.unmount(left)
    assert await rig.disks.left_mounted(rig.seen.uuid) is None


# Only the kernel can say this -----------------------------------------------------------------------------


@pytest.mark.parametrize("rig", [REAL], indirect=True)
@pytest.mark.parametrize("read_only", [True, False])
async def test_the_kernel_has_it_mounted_as_it_must_be(rig: Rig, read_only: bool) -> None:
    partition = await rig.disks.find(rig.seen)
    mount = await rig.disks.mount(partition, read_only=read_only)
    assert Path(mount.path).stat().st_dev == rig.seen.plug_in.device_number
    (line,) = [row.split() for row in MOUNTINFO.read_text().splitlines() if row.split()[4] == mount.path]
    assert {"nosuid", "nodev", "ro" if read_only else "rw"} <= set(line[5].split(","))  # FUSE drops noexec and noatime


@pytest.mark.parametrize("rig", [REAL], indirect=True)
async def test_a_loop_disk_has_no_drive_to_switch_off(rig: Rig) -> None:
    partition = await rig.disks.find(rig.seen)
    with pytest.raises(BackupError, match="no drive"):
        await rig.disks.power_off(partition)
