"""What the tables of a manifest say of proofs: which files were read back when, and where a content lies. All calls block.

There is no index for these questions, which are asked a few times in a run: it would cost each change of a file more than
it saves here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping

from immich_usb_backup.adapters.manifest_tables import FILE_COLUMNS, known_of
from immich_usb_backup.policy.manifest import Known

_LEAST = (
    f"SELECT folder, {FILE_COLUMNS} FROM files WHERE link IS NULL AND proven < ?"  # noqa: S608  # our own constants
    " ORDER BY proven, folder, name LIMIT ?"
)
_ABOVE = "SELECT parent, name, stored FROM folders WHERE id = ?"
_HALVES = "IFNULL(SUM(size >> 32), 0), IFNULL(SUM(size & 4294967295), 0)"
_UNPROVEN = f"SELECT COUNT(*), {_HALVES} FROM files WHERE link IS NULL AND proven < ?"  # noqa: S608
_PROOFS = "SELECT COUNT(*), MIN(proven) FROM files WHERE link IS NULL AND proven > 0"
_WANTED = "CREATE TEMP TABLE IF NOT EXISTS wanted (digest BLOB PRIMARY KEY) WITHOUT ROWID"
_FOUND = (
    "SELECT digest, folder, name FROM files"
    " WHERE link IS NULL AND digest IN (SELECT digest FROM temp.wanted) ORDER BY digest, folder, name"
)


def least_proven(database: sqlite3.Connection, limit: int, before: int) -> tuple[tuple[bytes, bytes, Known], ...]:
    """The files that were last proven before ``before``, longest ago first: both paths and the line."""
    places = _Places(database)
    found = []
    for folder, *row in database.execute(_LEAST, (before, limit)):
        path, stored_path = places.of(folder)
        known = known_of(tuple(row))
        found.append((path + b"/" + known.name, stored_path + b"/" + known.stored, known))
    return tuple(found)


def unproven(database: sqlite3.Connection, before: int) -> tuple[int, int]:
    """How many files that is in all, and their bytes."""
    count, high, low = database.execute(_UNPROVEN, (before,)).fetchone()
    return count, (high << 32) + low


def proofs(database: sqlite3.Connection) -> tuple[int, int | None]:
    """How many files were ever proven, and when the one was that was proven longest ago."""
    count, oldest = database.execute(_PROOFS).fetchone()
    return count, oldest


def with_digests(database: sqlite3.Connection, digests: Iterable[bytes]) -> Mapping[bytes, bytes]:
    """The server's path of one file with each of these SHA-1s."""
    found: dict[bytes, bytes] = {}
    for digest, path in all_with_digests(database, digests):
        found.setdefault(digest, path)
    return found


def all_with_digests(database: sqlite3.Connection, digests: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """The server's paths of all files with one of these SHA-1s, each behind its SHA-1, sorted by that."""
    database.execute(_WANTED)
    database.execute("DELETE FROM temp.wanted")
    database.executemany("INSERT OR IGNORE INTO temp.wanted VALUES (?)", ((digest,) for digest in digests))
    places = _Places(database)
    for digest, folder, name in database.execute(_FOUND):
        yield digest, places.of(folder)[0] + b"/" + name
    database.execute("DELETE FROM temp.wanted")


class _Places:
    """The two paths of folders, by their rows."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._known: dict[int, tuple[bytes, bytes]] = {0: (b"", b"")}

    def of(self, folder: int) -> tuple[bytes, bytes]:
        """The server's path and the disk's."""
        way: list[tuple[int, bytes, bytes]] = []
        while folder not in self._known:
            parent, name, stored = self._database.execute(_ABOVE, (folder,)).fetchone()
            way.append((folder, name, stored))
            folder = parent
        path, stored_path = self._known[folder]
        for below, name, stored in reversed(way):
            path = path + b"/" + name if path else name
            stored_path = stored_path + b"/" + stored if stored_path else stored
            self._known[below] = (path, stored_path)
        return path, stored_path
