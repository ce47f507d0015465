"""What lies on each disk, in SQLite in the state directory: one file for each file system, one transaction for each run."""

from __future__ import annotations

import re
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import IO, TypeVar

from immich_usb_backup.adapters import atomic, manifest_file, manifest_proofs, manifest_record
from immich_usb_backup.adapters.manifest_tables import SCHEMA, Tables
from immich_usb_backup.adapters.threads import Pulse, in_thread
from immich_usb_backup.errors import StateDamaged
from immich_usb_backup.policy.manifest import (
    Change,
    DiskRecord,
    FolderName,
    Known,
    KnownFolder,
    ManifestHeader,
)
from immich_usb_backup.ports import Sink

T = TypeVar("T")

VERSION = 1
FOLDER = "manifests"
SERVER_ID = "server-id"
_BUSY_SECONDS = 10.0
_CACHE_KIBIBYTES = 32_768
_SAFE = re.compile(r"[0-9A-Za-z-]{1,64}")
_IDENTITY = re.compile(rb"[0-9a-f]{32}\n?")
_HINT = "Look for room and permissions. If the file itself is the reason, move it away: the disk has a copy of what is in it."
_NEWER_HINT = "Install the version that wrote it, or move the file away: the disk has a copy of what is in it."
_BUSY_HINT = "A backup to this disk is under way. Try again when it is over."
_IDENTITY_HINT = "Put it back from a backup, or remove it: each disk must then be taken over with the command adopt."


class SqliteManifest:
    """The ``Manifest`` port. From the first question to the end of the run nobody else can write to the file."""

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        self._path = path
        self._database = database
        self._tables = Tables(database)
        self._lock = threading.RLock()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock, _sqlite(self._path):
            self._begin()
            yield

    def _begin(self) -> None:
        if not self._database.in_transaction:
            self._database.execute("BEGIN IMMEDIATE")  # to take the lock later could fail in the middle of the run
            self._tables.forget()

    def _do(self, work: Callable[[Pulse], T]) -> Callable[[Pulse], T]:
        def body(pulse: Pulse) -> T:
            with self._transaction():
                return work(pulse)

        return body

    async def _run(self, work: Callable[[Pulse], T]) -> T:
        return await in_thread(self._do(work), what="The manifest")

    def folder(self, path: bytes) -> KnownFolder | None:
        """A folder by the server's path. Blocks."""
        with self._transaction():
            return self._tables.folder(path)

    def stored_folder(self, path: bytes) -> KnownFolder | None:
        """A folder by the disk's path. Blocks."""
        with self._transaction():
            return self._tables.stored_folder(path)

    async def file(self, path: bytes) -> Known | None:
        """One file by the server's path."""
        return await self._run(lambda _: self._tables.file(path))

    async def totals(self) -> tuple[int, int]:
        """How many files lie on the disk (links not counted), and their bytes."""
        return await self._run(lambda _: self._tables.totals())

    async def least_proven(self, limit: int, *, before: int) -> tuple[tuple[bytes, bytes, Known], ...]:
        """The files that were last read back before ``before``, longest ago first: both paths and the line."""
        return await self._run(lambda _: manifest_proofs.least_proven(self._database, limit, before))

    async def unproven(self, *, before: int) -> tuple[int, int]:
        """How many files were last read back before ``before`` or never, and their bytes."""
        return await self._run(lambda _: manifest_proofs.unproven(self._database, before))

    async def proofs(self) -> tuple[int, int | None]:
        """How many files were ever read back, and when the one that was read back longest ago was."""
        return await self._run(lambda _: manifest_proofs.proofs(self._database))

    async def with_digests(self, digests: Iterable[bytes]) -> Mapping[bytes, bytes]:
        """The server's path of a file with each of these SHA-1s."""
        return await self._run(lambda _: manifest_proofs.with_digests(self._database, digests))

    async def apply(self, changes: Iterable[Change | FolderName]) -> None:
        """Make changes, in their order. Raises ``ValueError`` for one that cannot be: a bug."""
        await self._run(lambda pulse: self._tables.apply(changes, pulse.beat))

    async def clear(self) -> None:
        """Forget all files and folders."""
        await self._run(lambda _: self._tables.clear())

    async def record(self) -> DiskRecord:
        """What is remembered beside the files."""
        return await self._run(lambda _: self.load_record())

    async def save(self, record: DiskRecord) -> None:
        """Remember it."""
        await self._run(lambda _: self.save_record(record))

    async def held(self) -> frozenset[bytes]:
        """The paths of the deletions that were held by an earlier run."""
        return await self._run(lambda _: frozenset(path for (path,) in self._database.execute("SELECT path FROM held")))

    async def hold(self, paths: Iterable[bytes]) -> None:
        """Replace them."""

        def work(_: object) -> None:
            self._database.execute("DELETE FROM held")
            self._database.executemany("INSERT OR IGNORE INTO held VALUES (?)", ((path,) for path in paths))

        await self._run(work)

    async def commit(self) -> None:
        """Make everything since the last commit durable. Folders that were left empty go."""

        def work(_: object) -> None:
            self._tables.prune()
            self._database.execute("COMMIT")

        await self._run(work)

    async def rollback(self) -> None:
        """Forget everything since the last commit."""
        await self._run(lambda _: self._undo())

    def _undo(self) -> None:
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")
        self._tables.forget()

    def write(self, header: ManifestHeader, sink: Sink) -> None:
        """Write it in the form that lies on the disk. Blocks. Raises what ``sink`` raises."""
        with self._transaction():
            self._tables.prune()
            manifest_file.write(header, self._tables.entries(), self._tables.in_order(), sink)

    def read(self, stream: IO[bytes]) -> ManifestHeader:
        """Replace all files and folders by what a disk's manifest says. Blocks. Raises ``ManifestUnusable``."""
        with self._transaction():
            header, entries = manifest_file.read(stream)
            with self._all_or_nothing():
                self._tables.clear()
                self._tables.fill(entries)
            return header

    def peek(self, stream: IO[bytes]) -> ManifestHeader:
        """Only what a disk's manifest says of itself. Blocks. Raises ``ManifestUnusable``."""
        header, _ = manifest_file.read(stream)
        return header

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        self._tables.prune()  # what is to be pruned is forgotten with the old content
        self._database.execute("SAVEPOINT content")
        try:
            yield
        except BaseException:
            self._tables.forget()
            if self._database.in_transaction:  # else SQLite has given up all of it: no room
                self._database.execute("ROLLBACK TO content")
                self._database.execute("RELEASE content")
            raise
        self._database.execute("RELEASE content")

    async def close(self) -> None:
        """Close it; what is not committed is forgotten."""
        await in_thread(lambda _: self.shut(), what="The manifest")

    def shut(self) -> None:
        """Close it. Blocks, but not behind a thread that hangs at a dead disk: the next run must get the file."""
        waited = self._lock.acquire(timeout=_BUSY_SECONDS)
        try:
            self._database.close()
        finally:
            if waited:
                self._lock.release()

    def load_record(self) -> DiskRecord:
        """The record. Blocks."""
        with self._transaction():
            row = self._database.execute("SELECT content FROM record").fetchone()
            return DiskRecord() if row is None else manifest_record.load(row[0])

    def save_record(self, record: DiskRecord) -> None:
        """Remember it. Blocks."""
        with self._transaction():
            values = (manifest_record.dump(record),)
            self._database.execute("INSERT OR REPLACE INTO record VALUES (1, ?)", values)

    def approve(self) -> int:
        """Approve the deletions that are held, durably. Blocks. Returns how many those are."""
        with self._transaction():
            (count,) = self._database.execute("SELECT COUNT(*) FROM held").fetchone()
            if count:
                self.save_record(replace(self.load_record(), approved=True))
                self._database.execute("COMMIT")
            return int(count)

    def adopt(self) -> None:
        """Let the next run take the disk over, durably. Blocks."""
        with self._transaction():
            self.save_record(replace(self.load_record(), adopt=True))
            self._database.execute("COMMIT")


class SqliteManifests:
    """The ``Manifests`` port: ``manifests/`` and ``server-id`` in the state directory."""

    def __init__(self, state: Path, *, on_damaged: Callable[[str], None] | None = None) -> None:
        """``on_damaged`` is told where a damaged manifest was moved to; in a thread."""
        self._state = state
        self._on_damaged = on_damaged or (lambda _: None)
        self._lock = threading.Lock()

    async def open(self, uuid: str) -> SqliteManifest:
        """Open or make the manifest of a disk. Raises ``StateDamaged``."""
        return await in_thread(lambda _: self._open(uuid), what="Opening the manifest")

    def _open(self, uuid: str) -> SqliteManifest:
        path = self._state / FOLDER / f"{_file_name(uuid)}.db"
        with self._lock, _state(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                return SqliteManifest(path, _connected(path))
            except sqlite3.OperationalError:
                raise  # locked, or no room: that says nothing about the content
            except sqlite3.DatabaseError:
                self._on_damaged(_moved_aside(path))
                return SqliteManifest(path, _connected(path))

    async def approve(self, uuid: str) -> int:
        """Approve the deletions that are held, durably. Returns how many those are; 0: nothing was held. Raises
        ``StateDamaged``, also while a run has the manifest open."""
        return await in_thread(lambda _: self._amend(uuid, SqliteManifest.approve), what="The manifest")

    async def adopt(self, uuid: str) -> None:
        """Let the next run take the disk over from another server, durably. Raises ``StateDamaged``, also while a run has
        the manifest open."""
        await in_thread(lambda _: self._amend(uuid, SqliteManifest.adopt), what="The manifest")

    async def forget(self, uuid: str) -> None:
        """Remove the manifest of a disk, which must not be open; none is fine. Raises ``StateDamaged``."""
        await in_thread(lambda _: self._forget(uuid), what="The manifest")

    def _forget(self, uuid: str) -> None:
        path = self._state / FOLDER / f"{_file_name(uuid)}.db"
        with self._lock, _state(path):
            path.unlink(missing_ok=True)  # first: without its journal it could be half a transaction
            path.with_name(path.name + "-journal").unlink(missing_ok=True)

    def _amend(self, uuid: str, change: Callable[[SqliteManifest], T]) -> T:
        manifest = self._open(uuid)
        try:
            return change(manifest)
        finally:
            manifest.shut()

    async def server_id(self) -> str:
        """This server's random identity, made at the first call and kept. Raises ``StateDamaged``."""
        return await in_thread(lambda _: self._server_id(), what="The server's identity")

    def _server_id(self) -> str:
        path = self._state / SERVER_ID
        with self._lock, _state(path):
            try:
                content = atomic.read(path, limit=100)
            except FileNotFoundError:
                self._state.mkdir(parents=True, exist_ok=True)
                content = secrets.token_hex(16).encode() + b"\n"
                atomic.write(self._state, SERVER_ID, content, mode=0o644)
            if not _IDENTITY.fullmatch(content):
                raise StateDamaged(f"{path} is damaged: it does not hold this server's identity", hint=_IDENTITY_HINT)
            return content.decode().strip()


def _file_name(uuid: str) -> str:
    """Two file systems never have the same; ``_`` is in none that is kept as it is."""
    return uuid if _SAFE.fullmatch(uuid) else "_" + sha256(uuid.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _connected(path: Path) -> sqlite3.Connection:
    """Raises ``sqlite3.DatabaseError`` (and not its ``OperationalError``) for a damaged one."""
    database = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA synchronous = EXTRA")  # the folder is synced too when the journal is gone
        database.execute(f"PRAGMA cache_size = -{_CACHE_KIBIBYTES}")
        _check(path, database)
    except BaseException:
        database.close()
        raise
    return database


def _check(path: Path, database: sqlite3.Connection) -> None:
    (found,) = database.execute("PRAGMA user_version").fetchone()
    if found > VERSION:
        message = f"{path} was written by a newer version of immich-usb-backup (format {found})"
        raise StateDamaged(message, hint=_NEWER_HINT)
    if found == 0:
        database.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
    elif database.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
        raise sqlite3.DatabaseError("quick_check failed")


def _moved_aside(path: Path) -> str:
    """A journal that is left belongs to the damaged one: it must not be played into the new one."""
    aside = path.with_name(path.name + ".damaged")
    path.replace(aside)
    path.with_name(path.name + "-journal").unlink(missing_ok=True)
    return str(aside)


@contextmanager
def _sqlite(path: Path) -> Iterator[None]:
    """Failures of the database as ``StateDamaged``."""
    try:
        yield
    except sqlite3.Error as error:
        busy = getattr(error, "sqlite_errorname", "") == "SQLITE_BUSY"
        raise StateDamaged(f"{path} cannot be used: {error}", hint=_BUSY_HINT if busy else _HINT) from error


@contextmanager
def _state(path: Path) -> Iterator[None]:
    """Failures of the state directory as ``StateDamaged``, too."""
    try:
        with _sqlite(path):
            yield
    except (OSError, ValueError) as error:
        raise StateDamaged(f"{path} cannot be used: {error}", hint=_HINT) from error
