"""The assets of a dump, sorted by their folders, in an SQLite file of the state directory: each dump is read once."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from immich_usb_backup.adapters.atomic import sync_folder
from immich_usb_backup.adapters.immich_dump import read_dump
from immich_usb_backup.adapters.threads import in_thread
from immich_usb_backup.errors import DumpUnusable, StateDamaged
from immich_usb_backup.policy.assets import Asset, DumpFacts
from immich_usb_backup.policy.dump_paths import REGENERABLE, MediaLocations
from immich_usb_backup.policy.dump_rows import Row
from immich_usb_backup.policy.text import printable

VERSION = 1
FOLDER = "assets"
KEPT = 2
"""Books that stay: that of the newest dump, and the one before."""

_NEW = ".new"
_CACHE_KIBIBYTES = 16_384
_STEPS_BETWEEN_BEATS = 200_000
_OUTSIDE = b"\0\0"
"""How the key of an asset begins whose file lies outside the media location; its path follows. All others have their
folder, a zero byte, their name: so they are sorted by folders, and no name holds a zero byte."""

_SCHEMA = f"""
CREATE TABLE about (content TEXT NOT NULL) STRICT;
CREATE TABLE asset (key BLOB PRIMARY KEY NOT NULL, sha1 BLOB NOT NULL, trashed INTEGER NOT NULL) STRICT, WITHOUT ROWID;
PRAGMA user_version = {VERSION};
"""
_FILL = """
INSERT OR IGNORE INTO asset SELECT key(path, sha1, external, trashed) AS place, sha1, trashed FROM raw ORDER BY place, trashed
"""
_FROM = "SELECT key, sha1, trashed FROM asset WHERE key >= ? ORDER BY key"
_BETWEEN = "SELECT key, sha1, trashed FROM asset WHERE key >= ? AND key < ? ORDER BY key"
_SHA1 = "SELECT sha1 FROM asset WHERE key = ? AND sha1 <> x''"
_NAMED = "SELECT 1 FROM asset WHERE key = ?"
_CHANGED_HINT = "Plug the disk in again when Immich's backup job is over."
_HINT = "Look for room and permissions. The file may be removed: it is made again from the dump."


class SqliteAssetBook:
    """The ``AssetBook`` port. Raises ``StateDamaged`` where the file cannot be used."""

    def __init__(self, path: Path, database: sqlite3.Connection, facts: DumpFacts) -> None:
        self.facts = facts
        self._path = path
        self._database = database

    def folders(self) -> Iterator[tuple[bytes, Mapping[bytes, Asset]]]:
        """Every folder below the media location with its assets by their names. Blocks."""
        rows = self._rows(_FROM, _after(_OUTSIDE))
        for folder, inside in groupby(rows, key=lambda row: row[0].partition(b"\0")[0]):
            yield folder, _by_name(inside)

    def folder(self, path: bytes) -> Mapping[bytes, Asset]:
        """One folder's assets by name. Blocks."""
        start = path + b"\0"
        rows = self._rows(_BETWEEN, start, _after(start))
        return _by_name(row for row in rows if not row[0].startswith(_OUTSIDE))

    def outside(self) -> Iterator[Asset]:
        """The assets whose files lie outside the media location, sorted by path. Blocks."""
        for key, sha1, trashed in self._rows(_BETWEEN, _OUTSIDE, _after(_OUTSIDE)):
            yield Asset(key[len(_OUTSIDE) :], sha1, external=True, trashed=bool(trashed))

    def _rows(self, query: str, *values: bytes) -> Iterator[tuple[bytes, bytes, int]]:
        with _usable(self._path):
            yield from self._database.execute(query, values)

    async def sha1s(self, paths: Iterable[bytes]) -> Mapping[bytes, bytes]:
        """Immich's SHA-1 of those of the paths that it has one for."""
        return await in_thread(lambda pulse: dict(self._sha1s(paths, pulse.beat)), what="The list of the dump's assets")

    def _sha1s(self, paths: Iterable[bytes], beat: Callable[[], None]) -> Iterator[tuple[bytes, bytes]]:
        with _usable(self._path):
            for path in paths:
                beat()
                row = self._database.execute(_SHA1, (_inside(path),)).fetchone()
                if row is not None:
                    yield path, row[0]

    def names(self, path: bytes) -> bool:
        """Whether the dump has an asset with this path below the media location. Blocks."""
        with _usable(self._path):
            return self._database.execute(_NAMED, (_inside(path),)).fetchone() is not None

    async def close(self) -> None:
        """Let go of it."""
        await in_thread(lambda _: self.close_now(), what="The list of the dump's assets")

    def close_now(self) -> None:
        """The same for a command in the foreground. Blocks."""
        self._database.close()


def _after(prefix: bytes) -> bytes:
    """The first key behind all that begin with ``prefix``, which ends in a zero byte."""
    return prefix[:-1] + b"\1"


def _inside(path: bytes) -> bytes:
    folder, _, name = path.rpartition(b"/")
    return folder + b"\0" + name


def _by_name(rows: Iterable[tuple[bytes, bytes, int]]) -> dict[bytes, Asset]:
    found = {}
    for key, sha1, trashed in rows:
        folder, _, name = key.partition(b"\0")
        found[name] = Asset(folder + b"/" + name if folder else name, sha1, trashed=bool(trashed))
    return found


class SqliteAssetBooks:
    """The ``AssetBooks`` port: ``assets/`` in the state directory, where the last books are kept."""

    def __init__(self, state: Path) -> None:
        self._folder = state / FOLDER

    async def open(self, dump: Path, *, sha256: str, media_location: Path) -> SqliteAssetBook:
        """The assets of a dump. Raises ``DumpUnusable``, ``SourceUnreadable``, ``StateDamaged``."""
        server = os.fsencode(media_location)
        return await in_thread(lambda pulse: self._open(dump, sha256, server, pulse.beat), what=f"Reading {dump}")

    def open_now(self, dump: Path, *, sha256: str, media_location: Path, beat: Callable[[], None]) -> SqliteAssetBook:
        """The same for a command in the foreground. Blocks."""
        return self._open(dump, sha256, os.fsencode(media_location), beat)

    def _open(self, dump: Path, sha256: str, server: bytes, beat: Callable[[], None]) -> SqliteAssetBook:
        path = self._folder / f"{int(sha256, 16):064x}.db"
        with _usable(path):
            self._folder.mkdir(parents=True, exist_ok=True)
            book = _kept(path, sha256, server)
            if book is None:
                with _in_its_place(path) as new:
                    _Writer(new, beat).write(dump, sha256, server)
                book = _kept(path, sha256, server)
            if book is None:
                raise sqlite3.DatabaseError("it is damaged just after it was written")
            self._keep(path)
            return book

    def _keep(self, path: Path) -> None:
        """Let go of the books of older dumps, and of what was cut off."""
        os.utime(path)
        found = list(self._folder.iterdir())
        books = sorted((file for file in found if file.suffix == path.suffix), key=lambda book: book.stat().st_mtime_ns)
        for file in set(found) - set(books[-KEPT:]):
            file.unlink()


def _kept(path: Path, sha256: str, server: bytes) -> SqliteAssetBook | None:
    """The book at ``path``; None where there is none that fits, or a damaged one."""
    if not path.exists():
        return None
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False)
    try:
        about = _about(database)
        if about is not None and about[1:] == (sha256, server):
            return SqliteAssetBook(path, database, about[0])
    except (sqlite3.DatabaseError, ValueError, KeyError, TypeError):
        pass  # damaged, and made again
    database.close()
    return None


def _about(database: sqlite3.Connection) -> tuple[DumpFacts, str, bytes] | None:
    """What a book holds: the facts, the dump's SHA-256, the server's media location."""
    if database.execute("PRAGMA user_version").fetchone() != (VERSION,):
        return None
    if database.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
        return None
    content: dict[str, Any] = json.loads(database.execute("SELECT content FROM about").fetchone()[0])
    facts = content["facts"] | {"media_location": os.fsencode(content["facts"]["media_location"])}
    return DumpFacts(**facts), content["sha256"], os.fsencode(content["server"])


class _Writer:
    """Makes a book from a dump, in bounded memory: what is sorted lies in SQLite's temporary files."""

    def __init__(self, path: Path, beat: Callable[[], None]) -> None:
        self._path = path
        self._beat = beat
        self._counts = dict.fromkeys(("assets", "external", "trashed", "unhashed"), 0)

    def write(self, dump: Path, sha256: str, server: bytes) -> None:
        """Raises ``DumpUnusable``, ``SourceUnreadable``, ``sqlite3.Error``."""
        with closing(sqlite3.connect(self._path, isolation_level=None)) as database:
            for pragma in ("journal_mode = OFF", "synchronous = OFF", "temp_store = FILE"):
                database.execute(f"PRAGMA {pragma}")
            for schema in ("main", "temp"):
                database.execute(f"PRAGMA {schema}.cache_size = -{_CACHE_KIBIBYTES}")
            database.executescript(_SCHEMA)
            database.set_progress_handler(self._beat, _STEPS_BETWEEN_BEATS)
            database.execute("BEGIN")
            facts = self._read(dump, sha256, database)
            self._sort(MediaLocations(told=facts.media_location, server=server), database)
            content = asdict(self._counted(facts)) | {"media_location": os.fsdecode(facts.media_location)}
            about = json.dumps({"facts": content, "sha256": sha256, "server": os.fsdecode(server)})
            database.execute("INSERT INTO about VALUES (?)", (about,))
            database.execute("COMMIT")

    def _counted(self, facts: DumpFacts) -> DumpFacts:
        counts = self._counts
        return replace(
            facts,
            assets=counts["assets"],
            external=counts["external"],
            trashed=counts["trashed"],
            unhashed=counts["unhashed"],
        )

    def _read(self, dump: Path, sha256: str, database: sqlite3.Connection) -> DumpFacts:
        database.execute("CREATE TEMP TABLE raw (path BLOB, sha1 BLOB, external INTEGER, trashed INTEGER)")

        def take(rows: list[Row]) -> None:
            database.executemany("INSERT INTO raw VALUES (?, ?, ?, ?)", rows)

        facts, found = read_dump(dump, take, beat=self._beat)
        if found != sha256:
            name = printable(os.fsencode(dump.name))
            raise DumpUnusable(
                f"{name}: it is not the dump that was copied to the disk: it has changed", hint=_CHANGED_HINT
            )
        return facts

    def _sort(self, locations: MediaLocations, database: sqlite3.Connection) -> None:
        """Where an asset is there twice, the one that is not in the trash stays."""
        counts = self._counts

        def key(path: bytes, sha1: bytes, external: int, trashed: int) -> bytes | None:
            below = locations.below(path)
            if below is not None and below.startswith(REGENERABLE):
                return None  # and NOT NULL keeps it out
            outside = bool(external) or below is None
            counts["assets"] += 1
            counts["external"] += outside
            counts["trashed"] += trashed
            counts["unhashed"] += not sha1
            if below is None:
                return _OUTSIDE + path
            return _OUTSIDE + below if external else _inside(below)

        database.create_function("key", 4, key)
        database.execute(_FILL)


@contextmanager
def _in_its_place(path: Path) -> Iterator[Path]:
    """A file to write, which is then at ``path``, whole and on the server's disk; or nothing is."""
    new = path.with_name(path.name + _NEW)
    new.unlink(missing_ok=True)
    try:
        yield new
        with new.open("rb") as file:
            os.fsync(file.fileno())
        new.replace(path)
        sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    """Failures of the file as ``StateDamaged``."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StateDamaged(f"{path} cannot be used: {error}", hint=_HINT) from error
