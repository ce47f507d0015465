"""Looking for the marker without leaving a trace: read-only, or through the mount that somebody else made."""

from __future__ import annotations

from dataclasses import dataclass, replace

from immich_usb_backup.errors import ManifestUnusable, UnmountBusy
from immich_usb_backup.model import BACKUP_FOLDER, Finding, Marker, Mount, Partition
from immich_usb_backup.policy import disk_state
from immich_usb_backup.policy.disk_state import DiskState
from immich_usb_backup.policy.marker import (
    INNER_MARKER,
    MARKER_BYTES,
    MarkerText,
    decode,
    find_marker,
    is_enrolled_marker,
    marker_files,
)
from immich_usb_backup.ports import Ports, Targets
from immich_usb_backup.protect import protected
from immich_usb_backup.release import release

_FILES_READ = 8
"""Marker files that are read: exFAT has room for three names, a stranger's file system for any number."""


@dataclass(frozen=True, slots=True)
class Looked:
    """The marker, or None, and the partition as it then was. ``state`` is what the disk says of itself; ``automounted``:
    somebody else had mounted it, and it still is; ``findings``: what a run on it has to say."""

    marker: Marker | None
    partition: Partition
    state: DiskState | None = None
    automounted: bool = False
    findings: tuple[Finding, ...] = ()


async def look_for_marker(partition: Partition, *, grace_seconds: float, ports: Ports) -> Looked:
    """Find the marker. A disk that we mounted for this is unmounted again; one that was mounted stays so.

    Raises ``MountFailed``, ``DiskGone``, ``DiskFailing``, ``UnmountBusy``.
    """
    partition = await ports.disks.wait_for_automounter(partition, seconds=grace_seconds)
    mounts: list[Mount] = []

    async def mount() -> None:
        mounts.append(await ports.disks.mount(partition, read_only=True))

    try:
        await protected(mount())  # UDisks2 mounts whether or not somebody still waits for its answer
        marker = await read_marker(mounts[0], ports.targets)
        state = await _read_state(mounts[0], ports.targets) if marker else None
    finally:
        if any(mount.ours for mount in mounts):
            await protected(release(partition, ports=ports))
    return Looked(marker, partition, state, automounted=not mounts[0].ours)


async def _read_state(mount: Mount, targets: Targets) -> DiskState | None:
    content = await targets.read_root_file(mount, f"{BACKUP_FOLDER}/{disk_state.STATE}", disk_state.STATE_BYTES)
    try:
        return disk_state.decode(content) if content is not None else None
    except ManifestUnusable:
        return None  # of a newer version: the run says so when it opens the disk


async def read_marker(mount: Mount, targets: Targets) -> Marker | None:
    """The marker in the root of a mounted disk, with the name that it gives the disk: of several the name beside the
    secret counts, then that in the folder. Raises like ``Targets``."""
    entries = await targets.list_root(mount)
    marker = find_marker(entries)
    if marker is None:
        return None
    inner = [f"{BACKUP_FOLDER}/{INNER_MARKER}"] if marker.is_folder else []
    said = [await _read_text(mount, path, targets) for path in (*inner, *marker_files(entries)[:_FILES_READ])]
    return _with_words(marker, said)


async def _read_text(mount: Mount, path: str, targets: Targets) -> MarkerText:
    text = decode(await targets.read_root_file(mount, path, MARKER_BYTES) or b"")
    return text if is_enrolled_marker(path) else replace(text, secret="")


def _with_words(marker: Marker, said: list[MarkerText]) -> Marker:
    enrolled = [text for text in said if text.secret]
    name = next((text.name for text in (*enrolled, *said) if text.name), None)
    return replace(marker, name=name, secret=enrolled[0].secret if enrolled else "")


async def mount_for_writing(partition: Partition, ports: Ports) -> Mount:
    """Mount it as ours. An automounter's mount belongs to a desktop user: it is taken over, or used where it is busy
    and we may write to it. Raises ``UnmountBusy``, ``MountFailed``, ``WrongDevice``, ``DiskGone``."""
    mount = await ports.disks.mount(partition, read_only=False)
    if mount.ours:
        return mount
    try:
        await ports.disks.unmount(partition)
    except UnmountBusy as error:
        if ports.disks.writable(mount):
            return mount
        raise UnmountBusy(
            f"A desktop has mounted the disk, and it cannot be taken over: {error.message}",
            hint="Close what uses the disk, then unplug it and plug it in again.",
        ) from error
    return await ports.disks.mount(partition, read_only=False)
