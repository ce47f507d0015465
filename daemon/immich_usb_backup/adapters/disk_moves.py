"""Renaming files below an open folder of a disk, many at once, without overwriting anything."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable

from immich_usb_backup.adapters.disk_files import exists, free_name, make_folders, remove_emptied

TAKEN = "its new name is taken"

NAME_ERRORS = {
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENOTEMPTY,
    errno.ENOENT,
    errno.EINVAL,
    errno.EILSEQ,
}
"""What is wrong with one name, and says nothing about the disk."""


def move_files(
    at: int, pairs: Iterable[tuple[bytes, bytes]], *, beside: bool, beat: Callable[[], None]
) -> tuple[tuple[bytes, str], ...]:
    """Rename files, making folders and removing those that this leaves empty. Returns the old paths that were left, with
    the reason. ``beside``: a taken name gets a number. Raises ``OSError`` where more than the name is the reason."""
    batch = _Batch(at, beside=beside, beat=beat)
    waiting = [(old, new) for old, new in dict(pairs).items() if old != new]
    while waiting:
        left = [pair for pair in waiting if not batch.move(*pair)]
        if len(left) == len(waiting):
            break
        waiting = left  # a place that another file of the batch has given up meanwhile is free now
    remove_emptied(at, batch.moved, beat)
    return tuple(batch.left.items())


class _Batch:
    """Moves one file after the other. ``left`` has the reasons of those that are where they were."""

    def __init__(self, at: int, *, beside: bool, beat: Callable[[], None]) -> None:
        self._at = at
        self._beside = beside
        self._beat = beat
        self._folders: set[bytes] = set()
        self.moved: list[bytes] = []
        self.left: dict[bytes, str] = {}

    def move(self, old: bytes, new: bytes) -> bool:
        """Move one file, or note why it was left."""
        self._beat()
        try:
            reason = "" if self._try(old, new) else TAKEN
        except OSError as error:
            if error.errno not in NAME_ERRORS:
                raise
            self._folders.clear()
            reason = error.strerror or "it cannot be moved"
        if reason:
            self.left[old] = reason
        else:
            self.left.pop(old, None)
            self.moved.append(old)
        return not reason

    def _try(self, old: bytes, new: bytes) -> bool:
        if not exists(self._at, new):
            self._rename(old, new)
        elif _differ_in_case(old, new) and self._change_case(old, new):
            pass
        elif self._beside:
            self._rename(old, free_name(self._at, new))
        else:
            return False
        return True

    def _change_case(self, old: bytes, new: bytes) -> bool:
        """Rename in two steps: for exFAT both are one name, and renaming it to itself changes nothing. Where ``new`` is
        a file of its own after all everything is as it was before."""
        between = free_name(self._at, new)
        self._rename(old, between)
        if _can_be_opened(self._at, new):
            self._rename(between, old)
            return False
        self._rename(between, new)
        return True

    def _rename(self, old: bytes, new: bytes) -> None:
        make_folders(self._at, new.rpartition(b"/")[0], known=self._folders)
        os.rename(old, new, src_dir_fd=self._at, dst_dir_fd=self._at)


def _can_be_opened(at: int, path: bytes) -> bool:
    """Whether there is a file. Unlike a look at it this asks the file system: a FUSE one's names are remembered for a
    second by the kernel, which does not know that two of them were one."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at))
    except FileNotFoundError:
        return False
    return True


def _differ_in_case(old: bytes, new: bytes) -> bool:
    """Whether these may be one name for exFAT. Broader than exFAT's own table: it is tried out before it is believed."""
    one, other = (path.decode("utf-8", "surrogateescape").upper() for path in (old, new))
    return one == other
