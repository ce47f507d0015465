"""Walking folders by descriptor, so that a path that changes under us leads nowhere else."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any

from immich_usb_backup.policy.mirror import FileFact, Tree

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_KINDS = (
    (stat.S_ISLNK, "symbolic link"),
    (stat.S_ISFIFO, "FIFO"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISBLK, "device"),
    (stat.S_ISCHR, "device"),
)


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


class _Walk:
    """The state of one walk."""

    def __init__(self, root: int, beat: Callable[[], None], skip: bytes | None) -> None:
        self.root = root
        self.beat = beat
        self.skip = skip
        self.files: dict[bytes, FileFact] = {}
        self.others: list[tuple[bytes, str]] = []
        self.unreadable: list[tuple[bytes, str]] = []
        self.folders: list[bytes] = [b""]

    def run(self) -> Tree:
        while self.folders:
            self._folder(self.folders.pop())
        return Tree(self.files, tuple(sorted(self.others)), tuple(sorted(self.unreadable)))

    def _folder(self, path: bytes) -> None:
        self.beat()
        try:
            with Descriptor.open(path or b".", at=self.root) as folder, closing(os.scandir(folder.fd)) as entries:
                for entry in entries:
                    self._entry(path, entry)
        except FileNotFoundError:
            return  # moved or deleted while we walked: it is met elsewhere or gone
        except OSError as error:
            if path == b"":
                raise
            self.unreadable.append((path, error.strerror or "cannot be read"))

    def _entry(self, folder: bytes, entry: os.DirEntry[Any]) -> None:
        name = os.fsencode(entry.name)
        path = folder + b"/" + name if folder else name
        if path == self.skip:
            return
        try:
            facts = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return
        except OSError as error:
            self.unreadable.append((path, error.strerror or "cannot be read"))
            return
        self._sort_in(path, facts)

    def _sort_in(self, path: bytes, facts: os.stat_result) -> None:
        if stat.S_ISREG(facts.st_mode):
            self.files[path] = FileFact(facts.st_size, facts.st_mtime_ns)
        elif stat.S_ISDIR(facts.st_mode):
            self.folders.append(path)
        else:
            kind = next((word for test, word in _KINDS if test(facts.st_mode)), "special file")
            self.others.append((path, kind))


def scan_tree(root: int, beat: Callable[[], None], *, skip: bytes | None = None) -> Tree:
    """Everything below the open folder ``root`` but ``skip``. ``beat`` is called for each folder. Raises ``OSError`` for
    the root."""
    return _Walk(root, beat, skip).run()


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
