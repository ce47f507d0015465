"""What the kernel has mounted where: /proc/self/mountinfo, which never lags as UDisks2's properties do."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from immich_usb_backup.policy.hidden_paths import HOMES

MOUNTINFO = Path("/proc/self/mountinfo")
_OCTAL = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class MountPoint:
    """One line of mountinfo. ``path`` is as the kernel has it, undecodable bytes by surrogateescape."""

    device_number: int
    path: str
    read_only: bool


def mount_points(device_number: int, *, table: bytes | None = None) -> tuple[MountPoint, ...]:
    """Where a device is mounted, in mount order. Reading procfs does not block."""
    content = MOUNTINFO.read_bytes() if table is None else table
    lines = map(_parse, content.splitlines())
    return tuple(point for point in lines if point is not None and point.device_number == device_number)


def _parse(line: bytes) -> MountPoint | None:
    fields = line.split(b" ")
    if len(fields) < 7 or b":" not in fields[2]:
        return None
    major, _, minor = fields[2].partition(b":")
    path = os.fsdecode(_OCTAL.sub(lambda match: bytes([int(match[1], 8)]), fields[4]))
    super_options = fields[-1].split(b",")
    read_only = b"ro" in fields[5].split(b",") or b"ro" in super_options
    return MountPoint(os.makedev(int(major), int(minor)), path, read_only)


def is_mount_point(folder: int) -> bool:
    """Whether the open folder is the root of a mount, be it a bind mount of the same file system. One that only opens a hidden
    folder to this service is none. Raises ``OSError``."""
    parent = os.open("..", os.O_PATH | os.O_CLOEXEC, dir_fd=folder)
    try:
        mount = _mount_id(folder)
        if mount != _mount_id(parent):
            return not opens_a_home(mount, MOUNTINFO.read_bytes())
        return os.path.samestat(os.fstat(folder), os.fstat(parent))
    finally:
        os.close(parent)


def opens_a_home(mount: bytes, table: bytes) -> bool:
    """Whether a mount, by its id, is a folder (and no whole file system) in one of the empty ones that the unit puts in the place
    of homes: there each configured folder is a mount, whether or not it is one for the machine."""
    rows = {fields[0]: fields for fields in (line.split(b" ") for line in table.splitlines()) if len(fields) > 9}
    own = rows.get(mount)
    wall = rows.get(own[1]) if own is not None else None
    if own is None or wall is None:
        return False
    is_empty_home = os.fsdecode(wall[4]) in HOMES and wall[wall.index(b"-") + 1] == b"tmpfs"
    return is_empty_home and own[3] != b"/"


def _mount_id(fd: int) -> bytes:
    """Which mount a descriptor was opened through."""
    info = Path(f"/proc/self/fdinfo/{fd}").read_bytes()
    return next(line.split()[1] for line in info.splitlines() if line.startswith(b"mnt_id:"))
