"""A folder that is restored to. Everything in it is reached by descriptors from its root on, and no link is followed."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from immich_usb_backup.adapters.disk_files import clear
from immich_usb_backup.adapters.disk_moves import NAME_ERRORS
from immich_usb_backup.adapters.syncfs import syncfs
from immich_usb_backup.adapters.tree import Descriptor, open_folder
from immich_usb_backup.errors import RestoreTargetFull, RestoreTargetUnusable
from immich_usb_backup.policy.restore import STAGING, Modes, Owner

_FULL = {errno.ENOSPC, errno.EDQUOT}
_ONE_FILE = NAME_ERRORS | {errno.ELOOP, errno.EXDEV, errno.EFBIG}
_WORDS = {
    errno.ENOTDIR: "a link or a file is in the way",
    errno.ELOOP: "a link is in the way",
    errno.EXDEV: "another disk is mounted inside the folder: restore to that one by itself",
    errno.EFBIG: "the file system there cannot hold so large a file",
    errno.EISDIR: "a folder is in the way",
}


class NotPlaced(Exception):
    """One file cannot be put where it belongs; the others may."""


class Target:
    """An open folder. To be closed."""

    def __init__(self, path: Path, *, owner: Owner, modes: Modes, make: bool) -> None:
        """``make``: the folder is made where it is missing and its parent is there. Raises ``RestoreTargetUnusable``,
        ``RestoreTargetFull``."""
        self.path = path
        self.modes = modes
        with self.writing():
            if make:
                _make(path, owner)
            self._root = Descriptor.open(path, follow=True)
        facts = os.fstat(self._root.fd)
        self._owner = _inherited(owner, facts)
        self._asked = owner != Owner()
        self._last: tuple[bytes, Descriptor] = (b"", Descriptor(-1))

    @property
    def fd(self) -> int:
        """The folder itself."""
        return self._root.fd

    def close(self) -> None:
        """Let go of it."""
        self._last[1].close()
        self._root.close()

    def look(self, path: bytes) -> os.stat_result | None:
        """What stands at a path, no link followed; None for nothing. Raises ``NotPlaced``, ``RestoreTargetUnusable``."""
        above, _, name = path.rpartition(b"/")
        with self.writing(one_file=True), suppress(FileNotFoundError):
            return os.stat(name, dir_fd=self._folder(above), follow_symlinks=False)
        return None

    def _folder(self, path: bytes) -> int:
        """The last folder stays open: sorted paths are quick. Raises ``OSError``."""
        if self._last[1].fd < 0 or self._last[0] != path:
            self._last[1].close()
            self._last = (path, Descriptor(open_folder(self.fd, path)))
        return self._last[1].fd

    def folder(self, path: bytes) -> int:
        """A descriptor of a folder, which is made with those above it. It is valid until the next call. Raises ``NotPlaced``
        where something is in the way, ``RestoreTargetFull``, ``RestoreTargetUnusable``."""
        with self.writing(one_file=True):
            try:
                return self._folder(path)
            except FileNotFoundError:
                self._make(path)
                return self._folder(path)

    def _make(self, path: bytes) -> None:
        above, _, name = path.rpartition(b"/")
        try:
            parent = Descriptor(open_folder(self.fd, above))
        except FileNotFoundError:
            self._make(above)
            parent = Descriptor(open_folder(self.fd, above))
        with parent:
            os.mkdir(name, dir_fd=parent.fd)
            with Descriptor.open(name, at=parent.fd) as made:
                self._own(made.fd)
                os.fchmod(made.fd, self.modes.folder)

    def _own(self, place: int, name: bytes | None = None) -> None:
        """Give a file away, or a link in the folder ``place``. A server's share may not allow it: then it stays, unless an owner
        was asked for."""
        try:
            if name is None:
                os.fchown(place, *self._owner)
            else:
                os.chown(name, *self._owner, dir_fd=place, follow_symlinks=False)
        except PermissionError:
            if self._asked:
                raise

    def link(self, path: bytes, link: bytes) -> None:
        """Make a symbolic link. Raises ``NotPlaced`` and so on, as ``folder`` does."""
        above, _, name = path.rpartition(b"/")
        folder = self.folder(above)
        with self.writing(one_file=True):
            os.symlink(link, name, dir_fd=folder)
            self._own(folder, name)

    def read_link(self, path: bytes) -> bytes:
        """A link's target. Raises ``NotPlaced``."""
        above, _, name = path.rpartition(b"/")
        with self.writing(one_file=True):
            return os.readlink(name, dir_fd=self._folder(above))

    def place(self, staging: int, name: bytes, path: bytes) -> None:
        """Give a file in the folder ``staging`` its path; what is there is replaced. Raises as ``folder`` does."""
        above, _, last = path.rpartition(b"/")
        folder = self.folder(above)
        with self.writing(one_file=True):
            os.rename(name, last, src_dir_fd=staging, dst_dir_fd=folder)

    def put(self, path: bytes, content: bytes) -> None:
        """Write a small file that is not there yet. Raises as ``folder`` does."""
        above, _, name = path.rpartition(b"/")
        folder = self.folder(above)
        temporary = b".%b.%b" % (STAGING.encode(), secrets.token_hex(4).encode())
        with self.writing(one_file=True):
            with open(self.create(folder, temporary), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)

    def create(self, folder: int, name: bytes, *, mode: int | None = None) -> int:
        """A new file, open for writing, with its owner and permissions. Raises ``OSError``."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, 0o600, dir_fd=folder)
        try:
            self._own(fd)
            os.fchmod(fd, self.modes.file if mode is None else mode)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def staging(self, folder: bytes) -> Descriptor:
        """An empty folder for what is not whole yet, in ``folder`` and so on its file system; what an earlier restore left in it
        goes. Raises as ``folder`` does."""
        path = folder + b"/" + STAGING.encode() if folder else STAGING.encode()
        self.unstage(folder)
        made = self.folder(path)
        return Descriptor(os.dup(made))

    def unstage(self, folder: bytes) -> None:
        """Remove it. Raises ``NotPlaced`` where a link is in the way, ``RestoreTargetUnusable``."""
        with (
            self.writing(one_file=True),
            suppress(FileNotFoundError),
            Descriptor(open_folder(self.fd, folder)) as above,
        ):
            clear(above.fd, STAGING.encode(), lambda: None)

    def flush(self, fd: int) -> None:
        """Have everything on the medium, on the file system of ``fd``. Raises ``RestoreTargetUnusable``."""
        with self.writing():
            syncfs(fd)

    @contextmanager
    def writing(self, *, one_file: bool = False) -> Iterator[None]:
        """What the place says means: it is full, it is unusable, or (``one_file``) only this file is concerned."""
        try:
            yield
        except OSError as error:
            if one_file and error.errno in _ONE_FILE:
                raise NotPlaced(_WORDS.get(error.errno or 0, error.strerror or "")) from error
            raise self._meaning(error) from error

    def _meaning(self, error: OSError) -> RestoreTargetFull | RestoreTargetUnusable:
        if error.errno in _FULL:
            return RestoreTargetFull(f"There is no room left in {self.path}")
        message = f"{self.path} cannot be restored to: {error.strerror}"
        if isinstance(error, FileNotFoundError):
            return RestoreTargetUnusable(
                message, hint=f"Is it mounted, and written as you meant? Else: mkdir -p '{self.path}'"
            )
        if isinstance(error, PermissionError):
            return RestoreTargetUnusable(message, hint="Run it with sudo.")
        return RestoreTargetUnusable(
            message, hint="Look at the disk there; then run the same command again: it goes on."
        )


def _make(path: Path, owner: Owner) -> None:
    """Closed to others, as Immich's own is where it is installed natively."""
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
        os.chown(path, owner.user, owner.group)


def _inherited(owner: Owner, folder: os.stat_result) -> Owner:
    """As asked, else as the folder is owned, where we may give files away at all."""
    if os.geteuid() != 0:
        return owner
    return Owner(
        folder.st_uid if owner.user < 0 else owner.user,
        folder.st_gid if owner.group < 0 else owner.group,
    )
