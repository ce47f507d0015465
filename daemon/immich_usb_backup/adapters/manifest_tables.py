"""The tables of a manifest in SQLite, and what is asked of them. All calls block; the caller locks and opens transactions.

A folder is found by its path, a component at a time from the nearest one that is remembered. Of a million files no more
than one folder's, or one batch, are in memory.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from immich_usb_backup.adapters.manifest_file import PATH_LIMIT, Content, FolderLine
from immich_usb_backup.errors import ManifestUnusable
from immich_usb_backup.policy.manifest import Change, FolderName, Known, KnownFolder

SCHEMA = """
CREATE TABLE folders (
    id INTEGER PRIMARY KEY,
    parent INTEGER NOT NULL,
    name BLOB NOT NULL,
    stored BLOB NOT NULL,
    UNIQUE (parent, name)
);
CREATE INDEX folders_by_stored ON folders (parent, stored);
CREATE TABLE files (
    folder INTEGER NOT NULL,
    name BLOB NOT NULL,
    stored BLOB,
    size INTEGER NOT NULL,
    mtime_ns BLOB NOT NULL,
    inode INTEGER NOT NULL,
    digest BLOB,
    proven INTEGER NOT NULL,
    link BLOB,
    guessed INTEGER NOT NULL,
    PRIMARY KEY (folder, name)
) WITHOUT ROWID;
CREATE TABLE record (one INTEGER PRIMARY KEY CHECK (one = 1), content TEXT NOT NULL);
CREATE TABLE held (path BLOB PRIMARY KEY) WITHOUT ROWID;
"""

FILE_COLUMNS = "name, stored, size, mtime_ns, inode, digest, proven, link, guessed"
_FILES = f"SELECT {FILE_COLUMNS} FROM files WHERE folder = ? ORDER BY name"  # noqa: S608  # our own constants
_FILE = f"SELECT {FILE_COLUMNS} FROM files WHERE folder = ? AND name = ?"  # noqa: S608
_PUT = "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_ADD = "INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_DROP = "DELETE FROM files WHERE folder = ? AND name = ?"
_BY_NAME = "SELECT id, name, stored FROM folders WHERE parent = ? AND name = ?"
_BY_STORED = "SELECT id, name, stored FROM folders WHERE parent = ? AND stored = ? LIMIT 1"
_CHILDREN = "SELECT id, name, stored FROM folders WHERE parent = ? ORDER BY name"
_EMPTY = (
    "NOT EXISTS (SELECT 1 FROM files WHERE folder = folders.id)"
    " AND NOT EXISTS (SELECT 1 FROM folders AS below WHERE below.parent = folders.id)"
)
_AT_THE_SAME_PLACE = (
    "SELECT 1 FROM files WHERE stored IS NOT NULL AND link IS NULL GROUP BY folder, stored HAVING COUNT(*) > 1",
    "SELECT 1 FROM files AS a JOIN files AS b ON b.folder = a.folder AND b.name = a.stored"
    " WHERE a.stored IS NOT NULL AND a.link IS NULL AND b.stored IS NULL AND b.link IS NULL",
    "SELECT 1 FROM folders GROUP BY parent, stored HAVING COUNT(*) > 1",
    "SELECT 1 FROM folders JOIN files ON files.folder = folders.parent AND files.name = folders.stored"
    " WHERE files.stored IS NULL AND files.link IS NULL",
    "SELECT 1 FROM files JOIN folders ON folders.parent = files.folder AND folders.stored = files.stored"
    " WHERE files.stored IS NOT NULL AND files.link IS NULL",
)
"""What finds two things of one folder that would lie under one name on the disk."""

_NO_NAMES = (b"", b".", b"..")
_BATCH = 1000
_CACHE_BYTES = 16 * 2**20
_DIRTY_AT_MOST = 10_000
_WORD = 2**64
_new = tuple.__new__


class Place(NamedTuple):
    """A folder: its row, and its paths on the server and on the disk."""

    id: int
    path: bytes
    stored_path: bytes


_TOP = Place(0, b"", b"")


class _Finder:
    """Folders by one of their two paths; those that were asked for last are remembered."""

    def __init__(self, database: sqlite3.Connection, statement: str, key: Callable[[Place], bytes]) -> None:
        self._database = database
        self._statement = statement
        self._key = key
        self.forget()

    def forget(self) -> None:
        self._cache = {b"": _TOP}
        self._bytes = 0

    def find(self, path: bytes) -> Place | None:
        found = self._cache.get(path)
        return self._search(path) if found is None else found

    def _search(self, path: bytes) -> Place | None:
        if path.startswith(b"/"):
            return None
        missing: list[bytes] = []
        above = path
        while (place := self._cache.get(above)) is None:
            above, _, name = above.rpartition(b"/")
            missing.append(name)
        while missing:
            row = self._database.execute(self._statement, (place.id, missing.pop())).fetchone()
            if row is None:
                return None
            place = self.remember(_within(place, *row))
        return place

    def remember(self, place: Place) -> Place:
        if self._bytes > _CACHE_BYTES:
            self.forget()
        self._bytes += 200 + 2 * len(place.path)
        self._cache[self._key(place)] = place
        return place


class Tables:
    """The files and folders of one manifest."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._by_path = _Finder(database, _BY_NAME, lambda place: place.path)
        self._by_stored = _Finder(database, _BY_STORED, lambda place: place.stored_path)
        self._batch = _Batch(database)
        self._dirty: set[int] | None = set()
        """Folders that may have become empty; None: too many to remember."""

    def forget(self) -> None:
        """The tables changed otherwise: remember nothing of them."""
        self._by_path.forget()
        self._by_stored.forget()
        self._batch.discard()
        self._dirty = set()

    def folder(self, path: bytes) -> KnownFolder | None:
        """A folder by the server's path."""
        place = self._by_path.find(path)
        return None if place is None else self._known_folder(place)

    def stored_folder(self, path: bytes) -> KnownFolder | None:
        """A folder by the disk's path."""
        place = self._by_stored.find(path)
        return None if place is None else self._known_folder(place)

    def _known_folder(self, place: Place) -> KnownFolder:
        files = {row[0]: known_of(row) for row in self._database.execute(_FILES, (place.id,))}
        folders = {name: stored for _, name, stored in self._database.execute(_CHILDREN, (place.id,))}
        return KnownFolder(place.path, place.stored_path, files, folders)

    def file(self, path: bytes) -> Known | None:
        """A file by the server's path."""
        above, _, name = path.rpartition(b"/")
        place = self._by_path.find(above)
        row = None if place is None else self._database.execute(_FILE, (place.id, name)).fetchone()
        return None if row is None else known_of(row)

    def totals(self) -> tuple[int, int]:
        """Files and bytes, links not counted. Added up in two halves: a disk may claim sizes that overflow together."""
        columns = "COUNT(*), IFNULL(SUM(size >> 32), 0), IFNULL(SUM(size & 4294967295), 0)"
        statement = f"SELECT {columns} FROM files WHERE link IS NULL"  # noqa: S608
        count, high, low = self._database.execute(statement).fetchone()
        return count, (high << 32) + low

    def entries(self) -> int:
        """How many files and links there are."""
        (count,) = self._database.execute("SELECT COUNT(*) FROM files").fetchone()
        return int(count)

    def clear(self) -> None:
        """Forget all files and folders."""
        self._database.execute("DELETE FROM files")
        self._database.execute("DELETE FROM folders")
        self.forget()

    def apply(self, changes: Iterable[Change | FolderName], beat: Callable[[], None]) -> None:
        """Make changes in their order; ``beat`` is called at least once for each batch. Raises ``ValueError`` for one that
        cannot be."""
        try:
            for number, change in enumerate(changes):
                if number % _BATCH == 0:
                    beat()
                self._change(change)
            self._batch.flush()
        except BaseException:
            self._batch.discard()
            self._dirty = None  # folders may have been made for what is discarded
            raise

    def _change(self, change: Change | FolderName) -> None:
        if isinstance(change, FolderName):
            self._name_folder(change)
        elif change.known is None:
            self._drop(change.path)
        else:
            self._put(change.path, change.known)

    def _put(self, path: bytes, known: Known) -> None:
        above, _, name = path.rpartition(b"/")
        if not above or name != known.name or name in _NO_NAMES or len(path) > PATH_LIMIT:
            raise ValueError(f"no file can have the path {path!r} and the name {known.name!r}")
        place = self._by_path.find(above) or self._make(above)
        self._batch.add(_PUT, _row(place.id, known))

    def _drop(self, path: bytes) -> None:
        above, _, name = path.rpartition(b"/")
        place = self._by_path.find(above)
        if place is not None:
            self._soil(place)
            self._batch.add(_DROP, (place.id, name))

    def _name_folder(self, change: FolderName) -> None:
        if b"/" not in change.path or b"/" in change.stored or change.stored in _NO_NAMES:
            raise ValueError(f"the folder {change.path!r} cannot be stored as {change.stored!r}")
        place = self._by_path.find(change.path) or self._make(change.path)
        self._soil(place)
        if place.stored_path.rpartition(b"/")[2] != change.stored:
            self._database.execute("UPDATE folders SET stored = ? WHERE id = ?", (change.stored, place.id))
            self._by_path.forget()
            self._by_stored.forget()

    def _make(self, path: bytes) -> Place:
        """A folder, and those above it."""
        self._batch.flush()
        names = path.split(b"/")
        if any(name in _NO_NAMES for name in names):
            raise ValueError(f"no folder can have the path {path!r}")
        place, done = _TOP, b""
        for name in names:
            done = done + b"/" + name if done else name
            place = self._by_path.find(done) or self._make_in(place, name)
        return place

    def _make_in(self, place: Place, name: bytes) -> Place:
        file = self._database.execute(_FILE, (place.id, name)).fetchone()
        if file is not None and known_of(file).link is None:
            raise ValueError(f"{place.path + b'/' + name!r} is a file, nothing can lie in it")
        values = (place.id, name, name)
        row = self._database.execute("INSERT INTO folders (parent, name, stored) VALUES (?, ?, ?)", values).lastrowid
        assert row is not None
        return self._by_path.remember(_within(place, row, name, name))

    def _soil(self, place: Place) -> None:
        if self._dirty is not None:
            self._dirty.add(place.id)
            if len(self._dirty) > _DIRTY_AT_MOST:
                self._dirty = None

    def prune(self) -> None:
        """Remove the folders that have nothing in them any more."""
        folders = self._empty_ones() if self._dirty is None else self._dirty
        removed = sum(self._prune(folder) for folder in folders)
        self._dirty = set()
        if removed:
            self._by_path.forget()
            self._by_stored.forget()

    def _empty_ones(self) -> Iterator[int]:
        last = 0
        statement = f"SELECT id FROM folders WHERE id > ? AND {_EMPTY} ORDER BY id LIMIT {_BATCH}"  # noqa: S608
        while rows := self._database.execute(statement, (last,)).fetchall():
            yield from (row[0] for row in rows)
            last = rows[-1][0]

    def _prune(self, folder: int) -> bool:
        """Remove a folder if it is empty, and those above that this leaves empty. Says whether it did."""
        removed = False
        statement = f"DELETE FROM folders WHERE id = ? AND {_EMPTY} RETURNING parent"  # noqa: S608
        while row := self._database.execute(statement, (folder,)).fetchone():
            (folder,) = row
            removed = True
        return removed

    def in_order(self) -> Iterator[Content]:
        """All folders but the backup folder itself, each before those in it, sorted; their files too."""
        way = [(_TOP, self._database.execute(_CHILDREN, (0,)))]
        while way:
            above, children = way[-1]
            row = next(children, None)
            if row is None:
                way.pop()
                continue
            place = _within(above, *row)
            yield Content(place.path, place.stored_path, map(known_of, self._database.execute(_FILES, (place.id,))))
            way.append((place, self._database.execute(_CHILDREN, (place.id,))))

    def fill(self, entries: Iterable[FolderLine | Known]) -> None:
        """Fill the empty tables. Raises ``ManifestUnusable`` where two files would lie at the same place."""
        way, count = [0], 0
        for entry in entries:
            if isinstance(entry, Known):
                self._batch.add(_ADD, _row(way[-1], entry))
                continue
            count += 1
            name, stored = entry.path.rpartition(b"/")[2], entry.stored_path.rpartition(b"/")[2]
            del way[entry.depth + 1 :]
            self._database.execute("INSERT INTO folders VALUES (?, ?, ?, ?)", (count, way[-1], name, stored))
            way.append(count)
        self._batch.flush()
        for statement in _AT_THE_SAME_PLACE:
            if self._database.execute(statement + " LIMIT 1").fetchone() is not None:
                raise ManifestUnusable("The manifest on the disk cannot be used: two files lie at the same place")


class _Batch:
    """Changes of the files that are still to be made; all with the same statement."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._statement = ""
        self._rows: list[tuple[Any, ...]] = []

    def add(self, statement: str, row: tuple[Any, ...]) -> None:
        if statement is not self._statement or len(self._rows) >= _BATCH:
            self.flush()
            self._statement = statement
        self._rows.append(row)

    def flush(self) -> None:
        rows, self._rows = self._rows, []
        if rows:
            self._database.executemany(self._statement, rows)

    def discard(self) -> None:
        self._rows = []


def _within(above: Place, folder: int, name: bytes, stored: bytes) -> Place:
    if not above.path:
        return Place(folder, name, name if stored == name else stored)
    path = above.path + b"/" + name
    if name == stored and above.path == above.stored_path:
        return Place(folder, path, path)
    return Place(folder, path, above.stored_path + b"/" + stored)


def _row(folder: int, known: Known) -> tuple[Any, ...]:
    name, stored, size, mtime_ns, inode, digest, proven, link, guessed = known
    return (
        folder,
        name,
        None if stored == name else stored,
        size,
        mtime_ns if -_WORD // 2 <= mtime_ns < _WORD // 2 else b"%d" % mtime_ns,  # after the year 2262
        inode if inode < _WORD // 2 else inode - _WORD,
        digest or None,
        proven,
        link,
        guessed,
    )


def known_of(row: tuple[Any, ...]) -> Known:
    """This is done a million times for a plan: ``tuple.__new__`` takes half the time of ``Known(…)``."""
    name, stored, size, mtime_ns, inode, digest, proven, link, guessed = row
    if inode < 0 or mtime_ns.__class__ is bytes:
        inode, mtime_ns = inode % _WORD, int(mtime_ns)
    stored = name if stored is None else stored
    return _new(Known, (name, stored, size, mtime_ns, inode, digest or b"", proven, link, guessed == 1))
