"""Reads a dump of Immich's database as it comes, in pieces of any size: SQL and COPY data are told apart all along, because
what users write may look like either."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from contextlib import suppress

from immich_usb_backup.errors import DumpUnusable
from immich_usb_backup.policy.assets import DumpFacts
from immich_usb_backup.policy.dump_rows import AssetRows, CopyTable, Row, copy_header, has_assets, values
from immich_usb_backup.policy.dumps import FOOTERS, HEADERS, TAIL_BYTES
from immich_usb_backup.policy.text import printable

LONGEST_LINE = 16 * 2**20
"""No line of SQL and no asset is longer; a dump that has one is not Immich's, and would fill the memory."""

_END = b"\n\\.\n"
_KEPT = 64
"""So much of what is skipped stays, for an end or a header that has not come whole."""

_ONE, _CLUSTER = HEADERS
_ONE_OVER, _CLUSTER_OVER = FOOTERS
_SERVER_VERSION = b"-- Dumped from database version "
_DUMP_VERSION = b"-- Dumped by pg_dump version "
_HEADER = re.compile(rb"^(?:%b|%b)\r?\n" % HEADERS, re.MULTILINE)
_QUOTED = re.compile(rb"\bAS (\$\w*\$)(.*)", re.DOTALL)
_SCHEMAS = {b"", b"public"}
_PLAIN_HINT = (
    "Immich's own dumps are plain SQL. Make one in Immich, or with pg_dump or pg_dumpall without further options."
)
_FORMS = {
    b"PGDMP": "in pg_dump's custom format",
    b"toc.dat": "in pg_dump's tar format",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"\xfd7zXZ\x00": "compressed with xz",
    b"BZh": "compressed with bzip2",
    b"PK\x03\x04": "a ZIP archive",
    b"SQLite format 3": "a database of SQLite",
}


class DumpScan:
    """Feed it all pieces, then ask ``finish``. Both raise ``DumpUnusable`` for what is not a whole dump of Immich's."""

    def __init__(self) -> None:
        self._text = b""
        self._opened = self._carriage = False
        self._cluster = self._inside = self._over = False
        self._quote = b""
        self._table: CopyTable | None = None
        self._take: Callable[[list[bytes]], Iterable[Row]] | None = None
        self._database = ""
        self._assets: tuple[CopyTable, str] | None = None
        self._closed = False
        self._location = b""
        self._versions: list[tuple[bytes, bytes]] = []
        self._server_version = self._dump_version = ""
        self._restricted = False

    def feed(self, data: bytes) -> list[Row]:
        """The next piece; returns the assets that have become whole with it."""
        self._text += data
        if not self._opened and len(self._text) < TAIL_BYTES and not _HEADER.search(self._text):
            return []
        return self._read()

    def finish(self) -> DumpFacts:
        """The end has come. What the dump says of itself, with counts of 0: whoever keeps the rows knows them."""
        if self._table is None:  # else what is left is a torn row
            self._text += b"\n"
            self._read()
        if self._table is not None:
            raise DumpUnusable(f"it was cut off: it ends within the table {printable(self._table.name)}")
        if not self._over:
            raise DumpUnusable("its end is missing: the dump was not finished")
        if self._assets is None:
            raise DumpUnusable("it does not hold Immich's table of assets: it is a dump of something else")
        return DumpFacts(
            cluster=self._cluster,
            server_version=self._server_version,
            dump_version=self._dump_version,
            restricted=self._restricted,
            table=self._assets[0].name.decode(),
            media_location=self._location,
            immich=printable(max(self._versions, default=(b"", b""))[1]).removeprefix("v"),
            assets=0,
            external=0,
            trashed=0,
            unhashed=0,
        )

    def _read(self) -> list[Row]:
        if not self._opened:
            self._open()
        if self._carriage:  # a lone CR at the end waits for its line feed
            self._text = self._text.replace(b"\r\n", b"\n")
        rows: list[Row] = []
        while self._data(rows) if self._table is not None else self._sql():
            pass
        if len(self._text) > LONGEST_LINE:
            raise DumpUnusable(
                "it has a line that is longer than any in Immich's dumps: it is damaged or something else"
            )
        return rows

    def _open(self) -> None:
        head = self._text[:TAIL_BYTES]
        if not head.strip():
            raise DumpUnusable("it is empty")
        form = next((words for magic, words in _FORMS.items() if head.startswith(magic)), None)
        if form is not None:
            raise DumpUnusable(f"it is {form}, not plain SQL", hint=_PLAIN_HINT)
        header = _HEADER.search(head)
        if header is None:
            raise DumpUnusable("it does not begin like a dump of PostgreSQL")
        self._opened = True
        self._carriage = header[0].endswith(b"\r\n")  # through a terminal: docker exec -t

    # COPY data ----------------------------------------------------------------------------------------------

    def _data(self, rows: list[Row]) -> bool:
        """The text begins with the line feed before the next row, or anywhere in a row of a table that nobody reads."""
        end = self._text.find(_END)
        cut = end if end >= 0 else self._text.rfind(b"\n")
        if self._take is None:
            cut = end if end >= 0 else max(0, len(self._text) - _KEPT)
            self._skip(end if end >= 0 else len(self._text))
        elif cut > 0:
            rows.extend(self._take(self._text[1:cut].split(b"\n")))
        if end >= 0:
            self._table = self._take = None
            cut += len(_END)
        self._text = self._text[cut:]
        return end >= 0

    def _skip(self, until: int) -> None:
        if self._text.find(b"\n" + _ONE, 0, until) >= 0 or self._text.find(b"\n" + _CLUSTER, 0, until) >= 0:
            raise _two_dumps()

    def _begin(self, table: CopyTable) -> None:
        self._table, self._take = table, None
        if table.schema not in _SCHEMAS:
            return
        if has_assets(table):
            if self._assets is not None:
                raise DumpUnusable(f"it holds Immich's assets twice{self._databases()}")
            self._assets = (table, self._database)
            self._take = AssetRows(table).read
        elif not self._closed and table.name in {b"system_metadata", b"version_history"}:
            self._take = self._take_metadata if table.name == b"system_metadata" else self._take_versions

    def _databases(self) -> str:
        first = self._assets[1] if self._assets else ""
        return f": in the databases {first} and {self._database}" if first != self._database else ""

    def _take_metadata(self, lines: list[bytes]) -> tuple[Row, ...]:
        assert self._table is not None
        for line in lines:
            row = values(self._table, line)
            if row.get(b"key") == b"MediaLocation":
                self._location = _location(row.get(b"value", b""))
        return ()

    def _take_versions(self, lines: list[bytes]) -> tuple[Row, ...]:
        assert self._table is not None
        for line in lines:
            row = values(self._table, line)
            self._versions.append((row.get(b"createdAt", b""), row.get(b"version", b"")))
        return ()

    # SQL ----------------------------------------------------------------------------------------------------

    def _sql(self) -> bool:
        """Lines, up to a COPY header, whose line feed stays."""
        at = 0
        while (end := self._text.find(b"\n", at)) >= 0:
            self._line(self._text[at:end])
            if self._table is not None:
                self._text = self._text[end:]
                return True
            at = end + 1
        self._text = self._text[at:]
        return False

    def _line(self, line: bytes) -> None:
        if self._quote:
            if self._quote in line:
                self._quote = b""
        elif line.startswith(b"--"):
            self._comment(line)
        elif line.startswith(b"\\"):
            self._command(line)
        elif line.startswith(b"COPY "):
            self._begin(copy_header(line))
        elif line.startswith(b"INSERT INTO "):
            raise DumpUnusable("it was made with pg_dump --inserts, which is not supported", hint=_PLAIN_HINT)
        elif (quoted := _QUOTED.search(line)) and quoted[1] not in quoted[2]:  # the body of a function
            self._quote = quoted[1]

    def _comment(self, line: bytes) -> None:
        if line in HEADERS:
            self._header(cluster=line == _CLUSTER)
        elif line == (_CLUSTER_OVER if self._cluster else _ONE_OVER):
            self._over = True
        elif line == _ONE_OVER:
            self._inside = False
        elif line.startswith(_SERVER_VERSION) and self._assets is None:
            self._server_version = _version(line.removeprefix(_SERVER_VERSION))
        elif line.startswith(_DUMP_VERSION) and self._assets is None:
            self._dump_version = _version(line.removeprefix(_DUMP_VERSION))

    def _header(self, *, cluster: bool) -> None:
        """A cluster dump has one of its own, and holds one for each database."""
        if self._over or self._inside or (cluster and self._cluster):
            raise _two_dumps()
        self._cluster |= cluster
        self._inside = not cluster

    def _command(self, line: bytes) -> None:
        """What belongs to the database before is not this one's."""
        if line.startswith(b"\\restrict"):
            self._restricted = True
        elif line.startswith(b"\\connect "):
            self._database = printable(line.removeprefix(b"\\connect "))
            self._closed = self._assets is not None
            if not self._closed:
                self._location, self._versions = b"", []


def _version(text: bytes) -> str:
    """Without the name of the distribution that may follow."""
    return printable(text.partition(b" ")[0])


def _two_dumps() -> DumpUnusable:
    return DumpUnusable(
        "it holds two dumps, one behind the other", hint="Take them apart, or make a new dump in Immich."
    )


def _location(value: bytes) -> bytes:
    """From ``{"location": "/data"}``; empty for anything else."""
    with suppress(ValueError, RecursionError):
        parsed = json.loads(value)
        location = parsed.get("location") if isinstance(parsed, dict) else None
        return location.encode("utf-8", "surrogatepass") if isinstance(location, str) else b""
    return b""
