"""The root folder of a mounted disk: what is in it, and the way from there into the backup folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress

from immich_usb_backup.adapters import disk_marker
from immich_usb_backup.adapters.disk_files import exists
from immich_usb_backup.adapters.tree import Descriptor
from immich_usb_backup.errors import MarkerUnusable, WrongDevice
from immich_usb_backup.model import BACKUP_FOLDER, Mount
from immich_usb_backup.policy.marker import INNER_MARKER, MARKER_ENDINGS

_ENTRIES = 20_000


def open_root(mount: Mount) -> Descriptor:
    """The mount's root, proven to lie on the device. Raises ``WrongDevice``, ``OSError``."""
    root = Descriptor.open(mount.path)
    if os.fstat(root.fd).st_dev != mount.partition.device_number:
        root.close()
        raise WrongDevice(f"What is mounted at {mount.path} is not {mount.partition.device_node}")
    return root


def list_root(root: int, beat: Callable[[], None]) -> tuple[tuple[str, bool], ...]:
    """Files and folders as (name, is a folder), at most some thousands. Raises ``OSError``."""
    found: list[tuple[str, bool]] = []
    with os.scandir(root) as entries:
        for entry in entries:
            beat()
            if entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False):
                found.append((entry.name, entry.is_dir(follow_symlinks=False)))
            if len(found) >= _ENTRIES:
                break
    return tuple(found)


def read_beginning(root: int, path: str, limit: int) -> bytes | None:
    """The first ``limit`` bytes of a plain file, or None where there is none. Raises ``OSError``."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=root)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return os.read(fd, limit) if stat.S_ISREG(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)


def open_backup_folder(root: int, marker_entry: str | None) -> Descriptor:
    """Open the backup folder, made where it is missing; a marker file in its place is moved into it, and what is left of an
    enrolling that was cut off goes. Raises ``MarkerUnusable``, ``OSError``."""
    disk_marker.clear(root)
    waiting = None if marker_entry is None else _make_way(root, marker_entry)
    folder = _open_or_make(root)
    try:
        if waiting is not None:
            _move_in(root, folder.fd, waiting)
        os.fsync(root)
    except BaseException:
        folder.close()  # else the disk could not be unmounted
        raise
    return folder


def _open_or_make(root: int) -> Descriptor:
    with suppress(FileExistsError):
        os.mkdir(BACKUP_FOLDER, dir_fd=root)
    try:
        return Descriptor.open(BACKUP_FOLDER, at=root)
    except NotADirectoryError as error:
        raise MarkerUnusable(f"{BACKUP_FOLDER} on the disk is neither a folder nor a plain file") from error


def _make_way(root: int, entry: str) -> str:
    """Give the marker file an ending, under which it is a marker too: it is never lost, whenever the power fails."""
    for ending in MARKER_ENDINGS:
        name = BACKUP_FOLDER + ending
        if not exists(root, os.fsencode(name)):
            os.rename(entry, name, src_dir_fd=root, dst_dir_fd=root)
            os.fsync(root)
            return name
    raise MarkerUnusable(f"There are several marker files on the disk, {BACKUP_FOLDER} with and without endings")


def _move_in(root: int, folder: int, waiting: str) -> None:
    """Move the marker that ``_make_way`` renamed into the folder, once the folder is on the medium."""
    os.fsync(root)
    os.rename(waiting, INNER_MARKER, src_dir_fd=root, dst_dir_fd=folder)
    os.fsync(folder)
