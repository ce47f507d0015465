"""What is done to files and folders below an open folder of a disk. Paths are relative to it; everything blocks, and
raises ``OSError`` where nothing else is said."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress

from immich_usb_backup.adapters.tree import Descriptor
from immich_usb_backup.adapters.walk import Fatal, never, walk
from immich_usb_backup.model import TEMPORARY
from immich_usb_backup.policy.manifest import Fingerprint

Beat = Callable[[], None]

TIME_UNIT_NS = 2_000_000_000
"""The coarsest unit in which anybody keeps times on exFAT."""

_STAYS = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.EBUSY}


def exists(at: int, path: bytes) -> bool:
    """Whether anything has this path."""
    try:
        os.stat(path, dir_fd=at, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def parents(path: bytes) -> Iterator[bytes]:
    """The folders above a path, from the first component on: ``a`` and ``a/b`` for ``a/b/c``."""
    position = path.find(b"/")
    while position > 0:
        yield path[:position]
        position = path.find(b"/", position + 1)


def make_folders(at: int, path: bytes, *, known: set[bytes] | None = None) -> None:
    """Make a folder and those above it. ``known`` remembers those that are there, over many calls."""
    if not path or (known is not None and path in known):
        return
    for folder in (*parents(path), path):
        with suppress(FileExistsError):
            os.mkdir(folder, dir_fd=at)
        if known is not None:
            known.add(folder)


def free_name(at: int, path: bytes) -> bytes:
    """``path``, or with a number before its ending where that is taken."""
    folder, slash, name = path.rpartition(b"/")
    stem, dot, ending = name.rpartition(b".") if b"." in name[1:] else (name, b"", b"")
    candidate, number = path, 1
    while exists(at, candidate):
        number += 1
        candidate = folder + slash + stem + b" (%d)" % number + dot + ending
    return candidate


def names(at: int, folder: str, *, folders: bool) -> tuple[str, ...]:
    """The names of the files in a folder, or of its folders, sorted; none where it does not exist."""
    try:
        with Descriptor.open(folder or ".", at=at) as opened, os.scandir(opened.fd) as entries:
            kind = os.DirEntry.is_dir if folders else os.DirEntry.is_file
            return tuple(sorted(entry.name for entry in entries if kind(entry, follow_symlinks=False)))
    except FileNotFoundError:
        return ()


def set_times(at: int, times: Mapping[bytes, int], beat: Beat) -> None:
    """Set modification times, in nanoseconds since 1970. Missing files are fine."""
    for path, time in times.items():
        beat()
        with suppress(FileNotFoundError, NotADirectoryError):
            os.utime(path, ns=(time, time), dir_fd=at, follow_symlinks=False)


def remove(at: int, path: bytes) -> None:
    """Remove one file; what is missing, or is a folder, is passed over."""
    with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
        os.unlink(path, dir_fd=at)


def remove_files(at: int, paths: Iterable[bytes], beat: Beat) -> None:
    """Remove files, and the folders that this leaves empty. What is missing, or is a folder, is passed over."""
    removed = tuple(paths)
    for path in removed:
        beat()
        remove(at, path)
    remove_emptied(at, removed, beat)


def remove_emptied(at: int, paths: Iterable[bytes], beat: Beat) -> None:
    """Remove the folders above these paths where they are empty, but never the first component."""
    above = {folder for path in paths for folder in parents(path) if b"/" in folder}
    for folder in sorted(above, key=lambda folder: (-folder.count(b"/"), folder)):
        beat()
        try:
            os.rmdir(folder, dir_fd=at)
        except OSError as error:
            if error.errno not in _STAYS:
                raise


def clear(at: int, path: bytes, beat: Beat) -> None:
    """Remove a folder with all that is in it: depth first, without recursion, each folder by its own descriptor."""
    waiting = [path]
    while waiting:
        beat()
        folders = _unlink_files(at, waiting[-1])
        if folders:
            waiting += folders
            continue
        with suppress(FileNotFoundError):
            os.rmdir(waiting.pop(), dir_fd=at)


def _unlink_files(at: int, path: bytes) -> list[bytes]:
    """Remove the files in a folder, or the file that stands in its place. Returns the folders in it."""
    try:
        folder = Descriptor.open(path, at=at)
    except FileNotFoundError:
        return []
    except NotADirectoryError:
        os.unlink(path, dir_fd=at)
        return []
    found: list[bytes] = []
    with folder, os.scandir(folder.fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                found.append(path + b"/" + os.fsencode(entry.name))
            else:
                os.unlink(entry.name, dir_fd=folder.fd)
    return found


def room_taken(at: int, folder: str, beat: Beat, *, cluster: int, fatal: Fatal = never) -> int:
    """Bytes that the files below a folder take, in whole clusters of ``cluster`` bytes; 0 where it does not exist."""
    sizes = (
        file.size for found in walk(at, os.fsencode(folder), beat=beat, fatal=fatal) for file in found.files.values()
    )
    try:
        return sum(-(-size // cluster) * cluster for size in sizes)
    except FileNotFoundError:
        return 0


def fingerprint(at: int, beat: Beat) -> Fingerprint:
    """Free clusters, and what the folder itself holds. Folders in it are not even looked at: the kernel's exFAT reads a whole
    folder to tell its facts (measured: to count the folders in it)."""
    entries: list[tuple[str, bool, int, int]] = []
    with os.scandir(at) as found:
        for entry in found:
            beat()
            if entry.name.lower() == TEMPORARY:
                continue
            if entry.is_dir(follow_symlinks=False):
                entries.append((entry.name, True, 0, 0))
            else:
                facts = entry.stat(follow_symlinks=False)
                entries.append((entry.name, False, facts.st_size, facts.st_mtime_ns // TIME_UNIT_NS))
    return Fingerprint(os.fstatvfs(at).f_bfree, tuple(sorted(entries)))
