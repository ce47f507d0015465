"""What happened before, in SQLite in the state directory: a crash in the middle of writing leaves the last whole state."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from immich_usb_backup.adapters import report_json
from immich_usb_backup.adapters.threads import in_thread
from immich_usb_backup.errors import StateDamaged
from immich_usb_backup.model import KnownDisk, Outcome, PlugIn, RunReport

T = TypeVar("T")

VERSION = 1
_BUSY_SECONDS = 10.0
_PLUG_INS_KEPT = 1000
_SCHEMA = """
CREATE TABLE runs (
    run_id TEXT PRIMARY KEY,
    disk_uuid TEXT NOT NULL,
    disk_name TEXT NOT NULL,
    started TEXT NOT NULL,
    ended TEXT,
    outcome TEXT,
    announced INTEGER NOT NULL DEFAULT 0,
    report BLOB NOT NULL
) STRICT;
CREATE INDEX runs_by_time ON runs (started);
CREATE INDEX runs_by_disk ON runs (disk_uuid, started);
CREATE TABLE plug_ins (
    boot_id TEXT NOT NULL,
    disk_sequence INTEGER NOT NULL,
    device_number INTEGER NOT NULL,
    PRIMARY KEY (boot_id, disk_sequence, device_number)
) STRICT;
"""

_OF_THIS = "SELECT report FROM runs WHERE disk_uuid = u.disk_uuid AND outcome IS NOT NULL"
_DISKS = f"""
SELECT ({_OF_THIS} ORDER BY started DESC LIMIT 1),
       ({_OF_THIS} AND outcome = 'ok' ORDER BY started DESC LIMIT 1),
       ({_OF_THIS} AND json_extract(CAST(report AS TEXT), '$.report.verdict') IS NOT NULL ORDER BY started DESC LIMIT 1),
       u.first
FROM (SELECT disk_uuid, min(started) AS first, max(started) AS newest FROM runs WHERE outcome IS NOT NULL GROUP BY disk_uuid) u
ORDER BY u.newest DESC
"""  # noqa: S608  # our own constants

_OUTCOMES = """
SELECT disk_uuid, outcome FROM (
    SELECT disk_uuid, outcome, started, row_number() OVER (PARTITION BY disk_uuid ORDER BY started DESC) AS age
    FROM runs WHERE outcome IS NOT NULL
) WHERE age <= ? ORDER BY started
"""


class SqliteHistory:
    """The ``History`` port. A connection for each call: none is held while nothing happens."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def prepare(self) -> str | None:
        """Make or check the file. Returns where a damaged one was moved to, or None. Raises ``StateDamaged`` where a
        newer version wrote it."""
        return await in_thread(lambda _: self._prepare(), what="Opening the history")

    def _prepare(self) -> str | None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._check()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise StateDamaged(f"{self._path} cannot be used: {error}") from error
            aside = self._path.with_name(self._path.name + ".damaged")
            self._path.replace(aside)
            self._check()
            return str(aside)
        return None

    def _check(self) -> None:
        with self._database() as database:
            (found,) = database.execute("PRAGMA user_version").fetchone()
            if found > VERSION:
                raise StateDamaged(f"{self._path} was written by a newer version of immich-usb-backup (format {found})")
            if found == 0:
                database.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
            elif database.execute("PRAGMA quick_check").fetchone() != ("ok",):
                raise sqlite3.DatabaseError("quick_check failed")

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(self._path, timeout=_BUSY_SECONDS)
        try:
            database.execute("PRAGMA synchronous = FULL")
            with database:
                yield database
        finally:
            database.close()

    async def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def body(_: object) -> T:
            try:
                with self._database() as database:
                    return work(database)
            except sqlite3.Error as error:
                raise StateDamaged(f"The history {self._path} cannot be used: {error}") from error

        return await in_thread(body, what="The history")

    async def begin(self, report: RunReport, plug_in: PlugIn) -> None:
        """A run starts: in one transaction its record, and that this plug-in has had its run."""

        def work(database: sqlite3.Connection) -> None:
            _mark(database, plug_in)
            _insert(database, report)

        await self._do(work)

    async def finish(self, report: RunReport) -> None:
        """A run is over."""
        values = (report.ended.isoformat(), report.outcome, report_json.dump(report), report.run_id)
        statement = "UPDATE runs SET ended = ?, outcome = ?, report = ? WHERE run_id = ?"
        await self._do(lambda database: database.execute(statement, values))

    async def announced(self, run_id: str) -> None:
        """The outcome has been handed to the notifiers."""
        statement = "UPDATE runs SET announced = 1 WHERE run_id = ?"
        await self._do(lambda database: database.execute(statement, (run_id,)))

    async def unannounced(self) -> tuple[RunReport, ...]:
        """Runs that are over and have not been handed on, the oldest first."""
        return await self._reports("outcome IS NOT NULL AND NOT announced ORDER BY started")

    async def cut_off(self) -> tuple[RunReport, ...]:
        """Runs that began and never ended."""
        return await self._reports("outcome IS NULL ORDER BY started")

    async def runs(self, limit: int, *, uuid: str = "", failed: bool = False) -> tuple[RunReport, ...]:
        """The newest finished runs first."""
        condition = "outcome IS NOT NULL AND (? = '' OR disk_uuid = ?) AND (NOT ? OR outcome != ?)"
        values = (uuid, uuid, failed, Outcome.OK.value, limit)
        return await self._reports(f"{condition} ORDER BY started DESC LIMIT ?", *values)

    async def report(self, run_id: str) -> RunReport | None:
        """One run that is over."""
        found = await self._reports("outcome IS NOT NULL AND run_id = ?", run_id)
        return found[0] if found else None

    async def disks(self) -> tuple[KnownDisk, ...]:
        """Every disk that a run was made on, the one with the newest run first."""
        return await self._do(lambda database: tuple(_known(*row) for row in database.execute(_DISKS)))

    async def outcomes(self, newest: int) -> Mapping[str, tuple[Outcome, ...]]:
        """How the newest runs of each disk ended, the oldest first."""
        found: dict[str, tuple[Outcome, ...]] = {}
        for uuid, outcome in await self._do(lambda database: database.execute(_OUTCOMES, (newest,)).fetchall()):
            found[uuid] = (*found.get(uuid, ()), Outcome(outcome))
        return found

    async def forget(self, uuid: str) -> None:
        """Remove all runs of a disk that are over."""
        statement = "DELETE FROM runs WHERE disk_uuid = ? AND outcome IS NOT NULL"
        await self._do(lambda database: database.execute(statement, (uuid,)))

    def readable(self) -> bool | None:
        """Whether this user may read it; None where there is none yet."""
        try:
            self._path.stat()
        except FileNotFoundError:
            return None
        except OSError:
            return False
        return os.access(self._path, os.R_OK)

    async def _reports(self, condition: str, *values: Any) -> tuple[RunReport, ...]:
        statement = f"SELECT report FROM runs WHERE {condition}"  # noqa: S608  # our own constants
        return await self._do(
            lambda database: tuple(report_json.load(row[0]) for row in database.execute(statement, values))
        )

    async def handled(self, plug_in: PlugIn) -> bool:
        """Whether this plug-in has had its run."""
        statement = "SELECT 1 FROM plug_ins WHERE boot_id = ? AND disk_sequence = ? AND device_number = ?"
        row = await self._do(lambda database: database.execute(statement, _key(plug_in)).fetchone())
        return row is not None

    async def disk_name(self, uuid: str) -> str | None:
        """The name under which a file system was last backed up to."""
        statement = "SELECT disk_name FROM runs WHERE disk_uuid = ? ORDER BY started DESC LIMIT 1"
        row = await self._do(lambda database: database.execute(statement, (uuid,)).fetchone())
        return None if row is None else str(row[0])


def _known(last: bytes, good: bytes | None, judged: bytes | None, first: str) -> KnownDisk:
    newest = report_json.load(last)
    return KnownDisk(
        disk=newest.disk,
        last=newest,
        first=datetime.fromisoformat(first),
        good=report_json.load(good).ended if good else None,
        verdict=report_json.load(judged).verdict if judged else None,
    )


def _key(plug_in: PlugIn) -> tuple[str, int, int]:
    return plug_in.boot_id, plug_in.disk_sequence, plug_in.device_number


def _mark(database: sqlite3.Connection, plug_in: PlugIn) -> None:
    database.execute("INSERT OR IGNORE INTO plug_ins VALUES (?, ?, ?)", _key(plug_in))
    keep = "SELECT rowid FROM plug_ins ORDER BY rowid DESC LIMIT ?"
    database.execute(f"DELETE FROM plug_ins WHERE rowid NOT IN ({keep})", (_PLUG_INS_KEPT,))  # noqa: S608


def _insert(database: sqlite3.Connection, report: RunReport) -> None:
    disk = report.disk
    row = (report.run_id, disk.uuid, disk.name, report.started.isoformat(), report_json.dump(report))
    database.execute("INSERT INTO runs (run_id, disk_uuid, disk_name, started, report) VALUES (?, ?, ?, ?, ?)", row)
