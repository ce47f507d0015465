"""Mounting and unmounting through UDisks2 (measured with 2.9.4), as a system user whom polkit lets.

A udev event comes before the UDisks2 object, ``MountPoints`` lags behind the kernel, and ``AlreadyMounted`` is a race
that an automounter may win at any time: see the facts in ``docs/reference/udisks2.md``.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from immich_usb_backup.adapters.bus import Bus, Signal, variant
from immich_usb_backup.adapters.mounts import MountPoint, mount_points
from immich_usb_backup.adapters.processes import holders
from immich_usb_backup.errors import (
    INSTALL_AGAIN,
    BackupError,
    BusCallFailed,
    DeadlineMissed,
    DiskGone,
    DiskNotReady,
    MountFailed,
    UnmountBusy,
    WrongDevice,
)
from immich_usb_backup.model import Mount, Partition, PartitionSeen

_NAME = "org.freedesktop.UDisks2"
_ROOT = "/org/freedesktop/UDisks2"
_BLOCK, _DRIVE, _FILESYSTEM = f"{_NAME}.Block", f"{_NAME}.Drive", f"{_NAME}.Filesystem"
_MANAGER = "org.freedesktop.DBus.ObjectManager"
_PROPERTIES = "org.freedesktop.DBus.Properties"

MOUNT_OPTIONS = ("nosuid", "nodev", "noexec", "noatime")

# The ladder of deadlines: a slow hard disk spins up in 10 to 20 s, an unmount writes the last metadata.
FIND_SECONDS = 40.0
MOUNT_SECONDS = 90.0
UNMOUNT_SECONDS = 300.0
POWER_OFF_SECONDS = 60.0
VANISH_SECONDS = 10.0
_LOOK_AGAIN_SECONDS = 2.0

_GONE = {
    "org.freedesktop.DBus.Error.UnknownObject",
    "org.freedesktop.DBus.Error.UnknownMethod",
    "org.freedesktop.DBus.Error.UnknownInterface",
}

_Objects = Mapping[str, Mapping[str, Mapping[str, Any]]]


class UDisks:
    """The ``Disks`` port on the real UDisks2."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._changed = asyncio.Event()

    async def start(self) -> None:
        """Listen for changes, before anything is asked. Raises ``BusLost``, ``BusCallFailed``."""
        await self._bus.subscribe(self._on_signal, interface=_MANAGER, sender=_NAME, path_namespace=_ROOT)
        blocks = f"{_ROOT}/block_devices"
        await self._bus.subscribe(
            self._on_signal, interface=_PROPERTIES, member="PropertiesChanged", sender=_NAME, path_namespace=blocks
        )

    def _on_signal(self, _: Signal) -> None:
        self._changed.set()

    async def find(self, seen: PartitionSeen) -> Partition:
        """The partition once UDisks2 offers its file system. Raises ``DiskNotReady``."""
        number = seen.plug_in.device_number
        found = await self._wait_for(number, lambda partition: partition is not None, FIND_SECONDS)
        if found is None:
            raise DiskNotReady(f"UDisks2 did not offer the file system on {seen.device_node} in {FIND_SECONDS:.0f} s")
        return found

    async def wait_for_automounter(self, partition: Partition, *, seconds: float) -> Partition:
        """The partition as soon as somebody has mounted it, or as it is after ``seconds``. Raises ``DiskGone``."""
        number = partition.device_number
        mounted = await self._wait_for(number, lambda found: found is None or bool(mount_points(number)), seconds)
        now = mounted or await self._look(number)
        if now is None:
            raise DiskGone(f"{partition.device_node} is gone")
        return now

    async def _wait_for(
        self, number: int, satisfied: Callable[[Partition | None], bool], seconds: float
    ) -> Partition | None:
        """Look at each change until it is as wanted; what was seen last at the deadline."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while True:
            self._changed.clear()
            found = await self._look(number)
            left = deadline - loop.time()
            if satisfied(found) or left <= 0:
                return found
            await _wait_event(self._changed, min(left, _LOOK_AGAIN_SECONDS))

    async def look(self, seen: PartitionSeen) -> Partition | None:
        """The partition as UDisks2 has it now, or None."""
        return await self._look(seen.plug_in.device_number)

    async def _look(self, number: int) -> Partition | None:
        (objects,) = await self._bus.call(_NAME, _ROOT, _MANAGER, "GetManagedObjects")
        return _find_partition(objects, number)

    async def mount(self, partition: Partition, *, read_only: bool) -> Mount:
        """Mount it, or use the mount that is there. The path is what ``Mount`` returned, proven by its device number."""
        if there := mount_points(partition.device_number):
            return self._existing(partition, there[-1])
        options = ",".join((*MOUNT_OPTIONS, "ro" if read_only else "rw"))
        try:
            (path,) = await self._act(partition, _FILESYSTEM, "Mount", MOUNT_SECONDS, {"options": options})
        except DeadlineMissed:
            with suppress(BackupError):  # it may be mounted yet, and nobody would know
                await self.unmount(partition)
            raise
        except BusCallFailed as error:
            if error.name.endswith(".AlreadyMounted") and (there := mount_points(partition.device_number)):
                return self._existing(partition, there[-1])
            raise _mount_error(partition, error) from error
        return await self._proven(partition, Mount(partition=partition, path=path, read_only=read_only, ours=True))

    def _existing(self, partition: Partition, point: MountPoint) -> Mount:
        _check_device(partition, point.path)
        return Mount(partition=partition, path=point.path, read_only=point.read_only, ours=False)

    async def _proven(self, partition: Partition, mount: Mount) -> Mount:
        try:
            _check_device(partition, mount.path)
        except BackupError:
            await self.unmount(partition)
            raise
        return mount

    async def unmount(self, partition: Partition) -> None:
        """Unmount it everywhere, and return only when the kernel's table says so. Raises ``UnmountBusy``."""
        for _ in range(max(1, len(mount_points(partition.device_number)))):
            try:
                await self._act(partition, _FILESYSTEM, "Unmount", UNMOUNT_SECONDS, {})
            except BusCallFailed as error:
                if error.name.endswith(".NotMounted"):
                    break
                raise _unmount_error(partition, error) from error
        await self._wait_unmounted(partition)

    async def _wait_unmounted(self, partition: Partition) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + VANISH_SECONDS
        while mount_points(partition.device_number):
            if loop.time() > deadline:
                raise UnmountBusy(f"{partition.device_node} is still mounted, though UDisks2 says it is not")
            self._changed.clear()
            await _wait_event(self._changed, 0.1)

    async def is_mounted(self, uuid: str) -> bool:
        """Whether anybody has this file system mounted."""
        (objects,) = await self._bus.call(_NAME, _ROOT, _MANAGER, "GetManagedObjects")
        blocks = [interfaces.get(_BLOCK, {}) for interfaces in objects.values()]
        return any(mount_points(int(block["DeviceNumber"])) for block in blocks if block.get("IdUUID") == uuid)

    async def left_mounted(self, uuid: str) -> Partition | None:
        """The partition with this file system, where a run of this user left it mounted."""
        (objects,) = await self._bus.call(_NAME, _ROOT, _MANAGER, "GetManagedObjects")
        for path, interfaces in objects.items():
            block = interfaces.get(_BLOCK, {})
            if block.get("IdUUID") == uuid and _FILESYSTEM in interfaces:
                partition = _partition(path, interfaces, objects)
                if any(_is_mine(point) for point in mount_points(partition.device_number)):
                    return partition
        return None

    def writable(self, mount: Mount) -> bool:
        """Whether this user may write to the mount."""
        return not mount.read_only and os.access(mount.path, os.W_OK | os.X_OK)

    async def power_off(self, partition: Partition) -> None:
        """Switch the drive off. Raises ``BusCallFailed`` where it has none or it is in use."""
        if partition.drive_path is None:
            raise BusCallFailed("no-drive", f"{partition.device_node} belongs to no drive that could be switched off")
        await self._bus.call(
            _NAME, partition.drive_path, _DRIVE, "PowerOff", "a{sv}", [_options({})], timeout=POWER_OFF_SECONDS
        )

    async def _act(
        self, partition: Partition, interface: str, member: str, seconds: float, options: Mapping[str, Any]
    ) -> tuple[Any, ...]:
        body = [_options(options)]
        return await self._bus.call(_NAME, partition.block_path, interface, member, "a{sv}", body, timeout=seconds)


async def _wait_event(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


def _options(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: variant(value) for key, value in {"auth.no_user_interaction": True, **options}.items()}


def _is_mine(point: MountPoint) -> bool:
    """exFAT shows every file as owned by whoever mounted it."""
    try:
        return os.stat(point.path).st_uid == os.geteuid()
    except OSError:
        return False


def _check_device(partition: Partition, path: str) -> None:
    """Nothing may ever be written to what merely looks like the disk. Raises ``WrongDevice``, ``DiskGone``."""
    try:
        found = os.stat(path).st_dev
    except OSError as error:
        raise DiskGone(f"{path} vanished: {error.strerror}") from error
    if found != partition.device_number:
        raise WrongDevice(f"What is mounted at {path} is not {partition.device_node}")


def _find_partition(objects: _Objects, number: int) -> Partition | None:
    for path, interfaces in objects.items():
        block = interfaces.get(_BLOCK)
        if block and block.get("DeviceNumber") == number and _FILESYSTEM in interfaces:
            return _partition(path, interfaces, objects)
    return None


def _partition(path: str, interfaces: Mapping[str, Mapping[str, Any]], objects: _Objects) -> Partition:
    block, filesystem = interfaces[_BLOCK], interfaces[_FILESYSTEM]
    drive_path = str(block.get("Drive", "/"))
    drive = objects.get(drive_path, {}).get(_DRIVE, {})
    return Partition(
        block_path=path,
        drive_path=drive_path if drive else None,
        device_node=_bytestring(block.get("Device", b"")),
        device_number=int(block.get("DeviceNumber", 0)),
        file_system=str(block.get("IdType", "")),
        uuid=str(block.get("IdUUID", "")),
        label=str(block.get("IdLabel", "")),
        connection_bus=str(drive.get("ConnectionBus", "")),
        size=int(block.get("Size", 0)),
        read_only=bool(block.get("ReadOnly", False)),
        mount_points=tuple(_bytestring(point) for point in filesystem.get("MountPoints", ())),
    )


def _bytestring(value: Any) -> str:
    """D-Bus ``ay`` with a NUL at its end, as UDisks2 sends file names."""
    return os.fsdecode(bytes(value).rstrip(b"\0"))


def _mount_error(partition: Partition, error: BusCallFailed) -> BackupError:
    if error.name in _GONE:
        return DiskGone(f"{partition.device_node} vanished before it was mounted")
    if "NotAuthorized" in error.name:
        return MountFailed(
            f"UDisks2 does not let this user mount {partition.device_node}",
            hint=f"Is the polkit rule installed? Put it back: {INSTALL_AGAIN}. Then plug the disk in again.",
        )
    return MountFailed(f"{partition.device_node} could not be mounted: {error.message}")


def _unmount_error(partition: Partition, error: BusCallFailed) -> BackupError:
    if error.name in _GONE:
        return DiskGone(f"{partition.device_node} vanished before it was unmounted")
    if error.name.endswith(".DeviceBusy"):
        return UnmountBusy(f"{partition.device_node} is in use{_users(partition)}")
    if error.name.endswith(".NoReply"):
        return DeadlineMissed(f"UDisks2 did not answer when asked to unmount {partition.device_node}")
    return UnmountBusy(f"{partition.device_node} could not be unmounted: {error.message}")


def _users(partition: Partition) -> str:
    points = mount_points(partition.device_number)
    # within the service's walls one mount is listed twice
    seen = dict.fromkeys(name for point in points for name in holders(point.path))
    if seen:
        return f" by {', '.join(seen)}"
    where = points[-1].path if points else partition.device_node
    return f" by a program that this service may not see (as root: fuser -vm {where})"
