"""What a restore puts elsewhere than it lies on the disk, and what the dump names in vain, for the time of one command."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from immich_usb_backup.errors import StateDamaged
from immich_usb_backup.policy.placing import Move
from immich_usb_backup.policy.restore import Item

_SCHEMA = """
CREATE TABLE moves (
    goal BLOB PRIMARY KEY, source BLOB NOT NULL, origin BLOB NOT NULL, keep INTEGER NOT NULL, photo INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX moves_by_source ON moves (source);
CREATE TABLE absent (path BLOB NOT NULL);
"""
_HINT = "Make room for temporary files, or name another folder for them by TMPDIR."


class Placing:
    """In a SQLite file without a name that goes with the process. To be closed. Raises ``StateDamaged``."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.executescript(f"BEGIN; {_SCHEMA}")

    def close(self) -> None:
        """Forget it."""
        self._database.close()

    def put(self, found: Move) -> None:
        """Keep one; the first for a goal counts."""
        with _named():
            row = (found.goal, found.source, found.origin, found.keep, found.photo)
            self._database.execute("INSERT OR IGNORE INTO moves VALUES (?, ?, ?, ?, ?)", row)

    def is_taken(self, source: bytes) -> bool:
        """Whether a file goes somewhere else already."""
        return bool(self._rows("SELECT 1 FROM moves WHERE source = ? LIMIT 1", source))

    def miss(self, path: bytes) -> None:
        """The database names it, and it is nowhere."""
        self._rows("INSERT INTO absent VALUES (?)", path)

    def photos(self) -> int:
        """How many photos go elsewhere than they lie."""
        return int(self._rows("SELECT count(*) FROM moves WHERE photo")[0][0])

    def absent(self) -> Iterator[bytes]:
        """The paths of those that are nowhere, as the database names them."""
        with _named():
            yield from (path for (path,) in self._database.execute("SELECT path FROM absent"))

    def origins(self, part: bytes) -> tuple[bytes, ...]:
        """The other parts of the backup from which something goes into this one."""
        query = "SELECT DISTINCT origin FROM moves WHERE goal >= ? AND goal < ? AND origin <> ? ORDER BY origin"
        return tuple(origin for (origin,) in self._rows(query, part + b"/", part + b"0", part))

    def placed(self, item: Item, part: bytes, *, own: bool) -> Iterator[Item]:
        """Where a file goes in a part of the backup. ``own``: it lies in this one."""
        rows = self._rows("SELECT goal, keep, photo FROM moves WHERE source = ? ORDER BY goal", item.shown)
        if own and all(keep for _, keep, _ in rows):
            yield item
        for goal, _, photo in rows:
            if goal.startswith(part + b"/"):
                yield item._replace(goal=goal, shown=goal, moved=bool(photo))

    def goals(self, source: bytes) -> tuple[bytes, ...]:
        """Where else a file goes."""
        return tuple(goal for (goal,) in self._rows("SELECT goal FROM moves WHERE source = ? ORDER BY goal", source))

    def _rows(self, query: str, *values: bytes) -> list[tuple[Any, ...]]:
        with _named():
            return self._database.execute(query, values).fetchall()


@contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StateDamaged(f"What the dump says of the photos cannot be kept: {error}", hint=_HINT) from error
