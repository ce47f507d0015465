"""A disk's manifest for the time of one command, in a SQLite file without a name that goes with the process."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import IO, TypeVar

from immich_usb_backup.adapters import manifest_file
from immich_usb_backup.adapters.manifest_proofs import all_with_digests
from immich_usb_backup.adapters.manifest_tables import SCHEMA, Tables
from immich_usb_backup.errors import StateDamaged
from immich_usb_backup.policy.manifest import KnownFolder, ManifestHeader

T = TypeVar("T")

_CACHE_KIBIBYTES = 16_384
_HINT = "It needs about 120 bytes for each file in a folder for temporary files: make room there, or name another one by TMPDIR."


class TemporaryManifest:
    """All of a manifest, checked as a whole before any of it is used. ``header`` says whose it is. To be closed."""

    def __init__(self, stream: IO[bytes], beat: Callable[[], None]) -> None:
        """Reads ``stream`` to its end. Raises ``ManifestUnusable``, ``StateDamaged``, and what ``stream`` raises."""
        with _named():
            self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
            self._tables = Tables(self._database)
            try:
                self.header = self._read(stream, beat)
            except BaseException:
                self._database.close()
                raise

    def _read(self, stream: IO[bytes], beat: Callable[[], None]) -> ManifestHeader:
        self._database.execute(f"PRAGMA cache_size = -{_CACHE_KIBIBYTES}")
        self._database.executescript(f"BEGIN; {SCHEMA}")
        header, entries = manifest_file.read(stream)
        self._tables.fill(_beating(entries, beat))
        return header

    def folder(self, path: bytes) -> KnownFolder | None:
        """A folder by the server's path, ``b""`` for the backup folder itself. Raises ``StateDamaged``."""
        with _named():
            return self._tables.folder(path)

    def has(self, path: bytes) -> bool:
        """Whether there is a file or link with this path on the server. Raises ``StateDamaged``."""
        with _named():
            return self._tables.file(path) is not None

    def with_digests(self, digests: Iterable[bytes], beat: Callable[[], None]) -> Iterator[tuple[bytes, bytes]]:
        """The server's paths of all files with one of these SHA-1s, each behind its SHA-1. Raises ``StateDamaged``."""
        with _named():
            yield from _beating(all_with_digests(self._database, digests), beat)

    def close(self) -> None:
        """Forget it."""
        self._database.close()


def _beating(entries: Iterable[T], beat: Callable[[], None]) -> Iterator[T]:
    for entry in entries:
        beat()
        yield entry


@contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StateDamaged(f"The temporary copy of the manifest cannot be kept: {error}", hint=_HINT) from error
