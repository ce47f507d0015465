"""Walking folders by descriptor, so that a path that changes under us leads nowhere else."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from io import FileIO

from immich_usb_backup.policy.copy_check import FileFact

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Descriptor:
    """An open folder that closes itself: ``with Descriptor.open(…) as folder: folder.fd``."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def open(cls, path: bytes | str | os.PathLike[str], *, at: int | None = None, follow: bool = False) -> Descriptor:
        """Open a folder, relative to the folder ``at`` where given. Raises ``OSError``."""
        flags = _FOLDER_FLAGS | (0 if follow else os.O_NOFOLLOW)
        return cls(os.open(path, flags, dir_fd=at))

    def close(self) -> None:
        """Close it, once."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Descriptor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_PASS_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_folder(root: int, path: bytes) -> int:
    """A descriptor of the folder ``path`` below the open folder ``root``; no link is followed on the way, whatever is
    swapped meanwhile. Raises ``OSError``, ``NotADirectoryError`` for a link."""
    *above, last = path.split(b"/")
    at = root
    try:
        for name in above:
            passed, at = at, os.open(name, _PASS_FLAGS, dir_fd=at)
            if passed != root:
                os.close(passed)
        return os.open(last or b".", _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=at)
    finally:
        if at != root:
            os.close(at)


class NotAFile(OSError):
    """A folder, a link or something stranger has the path of a file."""


def open_file(at: int, path: bytes) -> FileIO:
    """A plain file for reading, relative to the open folder ``at``. Raises ``NotAFile``, ``OSError``."""
    try:
        fd = os.open(path, _FILE_FLAGS, dir_fd=at)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotAFile(errno.ELOOP, "it is a link") from error
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotAFile(errno.EINVAL, "it is not a plain file")
    return FileIO(fd, "rb")


class Opener:
    """Opens files below an open folder without following links. The last file's folder stays open: sorted paths are
    quick."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._path = b""
        self._folder = Descriptor(-1)

    def open(self, path: bytes) -> FileIO:
        """A plain file for reading. Raises ``NotAFile``, ``OSError``."""
        folder, _, name = path.rpartition(b"/")
        if self._folder.fd < 0 or folder != self._path:
            self._folder.close()
            self._folder = Descriptor(open_folder(self._root, folder))
            self._path = folder
        return open_file(self._folder.fd, name)

    def __enter__(self) -> Opener:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.close()


def file_facts(root: int, paths: Iterable[bytes], beat: Callable[[], None]) -> dict[bytes, FileFact]:
    """Size and time of those files below ``root`` that exist. Raises ``OSError`` for anything but absence."""
    found: dict[bytes, FileFact] = {}
    for path in paths:
        beat()
        try:
            facts = os.stat(path, dir_fd=root, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if stat.S_ISREG(facts.st_mode):
            found[path] = FileFact(facts.st_size, facts.st_mtime_ns)
    return found
