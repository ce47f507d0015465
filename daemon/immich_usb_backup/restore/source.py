"""The backup that a restore reads: a mounted disk's, or a copy of its folder. It is only read, and nothing in it is trusted."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from immich_usb_backup.adapters.disk_errors import tells_of_death
from immich_usb_backup.adapters.disk_files import names
from immich_usb_backup.adapters.manifest_temporary import TemporaryManifest
from immich_usb_backup.adapters.tree import Descriptor, NotAFile, open_file
from immich_usb_backup.errors import BackupUnreadable, ManifestUnusable, NoBackupHere
from immich_usb_backup.model import BACKUP_FOLDER, IN_FLIGHT
from immich_usb_backup.policy.disk_state import STATE, STATE_BYTES, DiskState, decode
from immich_usb_backup.policy.in_flight import decode as decode_in_flight
from immich_usb_backup.policy.in_flight import lists
from immich_usb_backup.policy.manifest import MANIFEST
from immich_usb_backup.policy.restore import ORIGINALS

_CONTENT = {"database", "config", "extra", MANIFEST, STATE, *ORIGINALS}
_IN_FLIGHT_BYTES = 64 * 1024 * 1024
_ERRORS_IN_A_ROW = 10
_NOT_MOUNTED = "Mount it first, for reading: sudo mount -o ro DEVICE /mnt"


class Source:
    """An open backup. ``folder`` is where it lies; ``state`` what it says of itself. To be closed."""

    def __init__(self, path: Path) -> None:
        """``path`` is a mount point or the backup folder itself. Raises ``NoBackupHere``, ``BackupUnreadable``."""
        self._errors = 0
        try:
            self.folder, self._opened = _open(path)
        except OSError as error:
            raise NoBackupHere(f"{path} cannot be read: {error.strerror}") from error
        self._device = os.fstat(self.fd).st_dev
        self._had_device = _is_here(self._device)

    @property
    def fd(self) -> int:
        """The backup folder."""
        return self._opened.fd

    def close(self) -> None:
        """Let the disk be unmounted."""
        self._opened.close()

    def names(self, folder: str, *, folders: bool) -> tuple[str, ...]:
        """The files in a folder, or its folders; none where it is not there. Raises ``BackupUnreadable``."""
        try:
            return names(self.fd, folder, folders=folders)
        except NotADirectoryError:
            return ()
        except OSError as error:
            self.failed(error)
            raise BackupUnreadable(f"{self.folder / folder} cannot be read: {error.strerror}") from error

    def state(self) -> DiskState | None:
        """Whose backup it is, None where it does not say so in a way that we understand."""
        with suppress(OSError, ManifestUnusable), open_file(self.fd, os.fsencode(STATE)) as file:
            return decode(file.read(STATE_BYTES))
        return None

    def manifest(self, beat: Callable[[], None]) -> TemporaryManifest | None:
        """What lies on the disk and how the server called it; None where there is no list. Raises ``ManifestUnusable`` for
        one that is damaged or newer than this program, ``BackupUnreadable``, ``StateDamaged``."""
        try:
            with open_file(self.fd, os.fsencode(MANIFEST)) as file:
                return TemporaryManifest(file, beat)
        except (FileNotFoundError, NotAFile):
            return None
        except OSError as error:
            self.failed(error)
            raise ManifestUnusable(f"The manifest on the disk cannot be read: {error.strerror}") from error

    def in_doubt(self) -> frozenset[bytes] | None:
        """The disk's paths of files that were being written when a backup was cut off; None: all of them."""
        found: frozenset[bytes] = frozenset()
        for name in lists(self.names(IN_FLIGHT, folders=False)):
            try:
                with open_file(self.fd, os.fsencode(f"{IN_FLIGHT}/{name}")) as file:
                    paths = decode_in_flight(file.read(_IN_FLIGHT_BYTES))
            except OSError:
                paths = None
            if paths is None:
                return None
            found |= paths
        return found

    def failed(self, error: OSError) -> None:
        """Something could not be read. Raises ``BackupUnreadable`` where that concerns more than the one file."""
        self._errors += error.errno == errno.EIO
        if tells_of_death(error) or (self._had_device and not _is_here(self._device)):
            raise BackupUnreadable("The disk with the backup was unplugged, or does not answer any more") from error
        if self._errors >= _ERRORS_IN_A_ROW:
            message = f"The disk with the backup answers with errors only ({self._errors} in a row): {error.strerror}"
            raise BackupUnreadable(message) from error

    def worked(self) -> None:
        """A file was read to its end."""
        self._errors = 0


def _is_here(device: int) -> bool:
    return os.path.exists(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")


def _open(path: Path) -> tuple[Path, Descriptor]:
    """The backup folder at a mount point, or that is this path. Raises ``NoBackupHere``, ``OSError``."""
    if stat.S_ISBLK(path.stat().st_mode):
        raise NoBackupHere(f"{path} is a device, not a folder", hint=_NOT_MOUNTED)
    with Descriptor.open(path, follow=True) as root:
        inner = [name for name in names(root.fd, "", folders=True) if name.lower() == BACKUP_FOLDER]
        if inner:
            return path / inner[0], Descriptor.open(inner[0], at=root.fd)
        if not _CONTENT.intersection(os.listdir(root.fd)):
            raise NoBackupHere(f"{path} is no backup: neither {BACKUP_FOLDER} nor what is in it lies there")
    return path, Descriptor.open(path, follow=True)
