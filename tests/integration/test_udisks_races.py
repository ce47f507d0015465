"""What UDisks2 answers when somebody was faster, or is wrong: a stand-in with its signatures on a private bus."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from immich_usb_backup.adapters import udisks
from immich_usb_backup.adapters.mounts import MountPoint
from immich_usb_backup.adapters.udisks import MOUNT_OPTIONS, UDisks
from immich_usb_backup.errors import BusCallFailed, DiskGone, MountFailed, WrongDevice
from immich_usb_backup.model import Partition
from tests.support import host
from tests.support.fakes import Stick, partition_of, seen_stick
from tests.support.real_disks import connected
from tests.support.serving import ServedMethod, serve

ERROR = "org.freedesktop.UDisks2.Error"
FILESYSTEM = "org.freedesktop.UDisks2.Filesystem"

pytestmark = pytest.mark.skipif(host.find_program("dbus-daemon") is None, reason="there is no dbus-daemon")


@dataclass
class StandIn:
    """UDisks2's Filesystem interface. ``answer``: the path that Mount returns, or the error that it raises."""

    answer: str | BusCallFailed = ""
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def methods(self) -> dict[str, ServedMethod]:
        """As UDisks2 2.9.4 has them on the bus."""
        return {
            "Mount": ServedMethod("a{sv}", "s", self._mount),
            "Unmount": ServedMethod("a{sv}", "", self._unmount),
        }

    async def _mount(self, options: dict[str, Any]) -> Sequence[Any]:
        self.calls.append(("Mount", options))
        if isinstance(self.answer, BusCallFailed):
            raise self.answer
        return [self.answer]

    async def _unmount(self, options: dict[str, Any]) -> Sequence[Any]:
        self.calls.append(("Unmount", options))
        return []

    def names(self) -> list[str]:
        """What was called."""
        return [name for name, _ in self.calls]


@dataclass
class Rig:
    """Our adapter, and what it talks to. The "disk" is the folder's file system."""

    disks: UDisks
    stand_in: StandIn
    partition: Partition
    folder: Path


@pytest_asyncio.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with asyncio.timeout(30), AsyncExitStack() as stack:
        bus = await stack.enter_async_context(host.in_thread(host.system_bus(private=True)))
        server = await stack.enter_async_context(connected(bus))
        client = await stack.enter_async_context(connected(bus))
        seen = partition_of(Stick(seen=seen_stick(), root=tmp_path))
        partition = replace(seen, device_number=tmp_path.stat().st_dev)
        stand_in = StandIn(str(tmp_path))
        serve(server, partition.block_path, FILESYSTEM, stand_in.methods())
        await server.request_name(host.UDISKS_NAME)
        yield Rig(UDisks(client), stand_in, partition, tmp_path)


def mounted_after(monkeypatch: pytest.MonkeyPatch, rig: Rig, call: str, *points: MountPoint) -> None:
    """The kernel's table: empty until this call has come in."""

    def table(number: int) -> tuple[MountPoint, ...]:
        assert number == rig.partition.device_number
        return points if call in rig.stand_in.names() else ()

    monkeypatch.setattr(udisks, "mount_points", table)


def point(rig: Rig, *, read_only: bool = False) -> MountPoint:
    """Where somebody else mounted it."""
    return MountPoint(rig.partition.device_number, str(rig.folder), read_only)


ALREADY = BusCallFailed(f"{ERROR}.AlreadyMounted", "Device /dev/sdb1 is already mounted at `/media/ann/Blue'.")


@pytest.mark.parametrize("read_only", [False, True])
async def test_an_automounter_that_was_faster_wins_and_the_mount_is_its(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, read_only: bool
) -> None:
    rig.stand_in.answer = ALREADY
    mounted_after(monkeypatch, rig, "Mount", point(rig, read_only=read_only))
    mount = await rig.disks.mount(rig.partition, read_only=True)
    assert (mount.ours, mount.path, mount.read_only) == (False, str(rig.folder), read_only)
    assert rig.stand_in.names() == ["Mount"]


async def test_already_mounted_that_nobody_sees_is_no_mount(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.stand_in.answer = ALREADY
    mounted_after(monkeypatch, rig, "Never")
    with pytest.raises(MountFailed, match="could not be mounted: Device /dev/sdb1 is already mounted"):
        await rig.disks.mount(rig.partition, read_only=True)


async def test_an_automounters_path_with_another_device_on_it_is_refused_and_left_alone(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.stand_in.answer = ALREADY
    wrong = replace(point(rig), path="/proc")
    mounted_after(monkeypatch, rig, "Mount", wrong)
    with pytest.raises(WrongDevice, match="/proc"):
        await rig.disks.mount(rig.partition, read_only=False)
    assert rig.stand_in.names() == ["Mount"]


async def test_a_path_on_another_device_is_refused_and_unmounted(rig: Rig) -> None:
    """As when the stick was pulled and udisksd's empty folder of the root disk is what is left."""
    elsewhere = replace(rig.partition, device_number=os.makedev(240, 99))
    with pytest.raises(WrongDevice, match=elsewhere.device_node):
        await rig.disks.mount(elsewhere, read_only=False)
    assert rig.stand_in.names() == ["Mount", "Unmount"]


async def test_a_path_that_is_not_there_is_a_disk_that_is_gone(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted_after(monkeypatch, rig, "Never")
    rig.stand_in.answer = str(rig.folder / "gone")
    with pytest.raises(DiskGone, match="gone vanished"):
        await rig.disks.mount(rig.partition, read_only=False)
    assert rig.stand_in.names() == ["Mount", "Unmount"]


@pytest.mark.parametrize("read_only", [False, True])
async def test_what_udisks_is_asked_for(rig: Rig, monkeypatch: pytest.MonkeyPatch, read_only: bool) -> None:
    mounted_after(monkeypatch, rig, "Never")
    mount = await rig.disks.mount(rig.partition, read_only=read_only)
    assert (mount.ours, mount.path, mount.read_only) == (True, str(rig.folder), read_only)
    ((name, options),) = rig.stand_in.calls
    assert (name, options["auth.no_user_interaction"]) == ("Mount", True)
    assert set(options["options"].split(",")) == {*MOUNT_OPTIONS, "ro" if read_only else "rw"}
    assert {"nosuid", "nodev", "noexec"} <= set(MOUNT_OPTIONS)
    assert set(options) == {"options", "auth.no_user_interaction"}
