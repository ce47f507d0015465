"""What a dump is, known from reading it once to its end, before any database is touched."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from immich_usb_backup.errors import DumpUnusable
from immich_usb_backup.policy.database_restore_lines import Kind, classified
from immich_usb_backup.policy.text import printable

NAME = rb'(?:[a-z_][a-z0-9_$]*|"(?:[^"]|"")+")'
ASSET_TABLES = ("asset", "assets")
"""Since Immich 1.136, and before."""

END_OF_SECTION = b"-- PostgreSQL database dump complete\n"
_HEADERS = {b"-- PostgreSQL database dump": False, b"-- PostgreSQL database cluster dump": True}
_NO_DUMP = "It does not begin like a dump of PostgreSQL"
_END_OF_CLUSTER = b"-- PostgreSQL database cluster dump complete\n"
_COPY = re.compile(rb"COPY (" + NAME + rb")\.(" + NAME + rb") (?:\((.*)\) )?FROM stdin;\n")
_EXTENSION = re.compile(rb"CREATE EXTENSION (?:IF NOT EXISTS )?(" + NAME + rb")")
_ROLE = re.compile(
    rb"(?:ALTER [^']* OWNER TO|GRANT [^']* TO|ALTER DEFAULT PRIVILEGES FOR ROLE) (" + NAME + rb")(?= |;)"
)
_MADE = re.compile(rb"CREATE ROLE (" + NAME + rb")")
_CONNECT = re.compile(rb"\\connect (?:(" + NAME + rb")|-reuse-previous=on \"dbname='(.*)'\")\n")
_VERSION = re.compile(rb"-- Dumped (from database|by pg_dump) version (\S{1,40})")


@dataclass(slots=True)
class _Section:
    """One database of a dump, while it is read."""

    rows: dict[tuple[str, str], int] = field(default_factory=dict)
    extensions: dict[str, None] = field(default_factory=dict)
    roles: dict[str, None] = field(default_factory=dict)
    versions: dict[bytes, str] = field(default_factory=dict)
    history: tuple[bytes, bytes] = (b"", b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """``cluster``: made by ``pg_dumpall``, and ``section`` is the ``\\connect`` that Immich's database comes after. ``table``:
    the name of the asset table. ``rows``: how many each (schema, table) has. ``extensions`` are made in the dump, ``roles``
    are named in it, ``roles_made`` are those that a cluster dump makes. ``restricted``: it has ``\\restrict`` lines.
    ``immich``: the version that last used the database, empty where the dump does not tell."""

    cluster: bool
    section: bytes
    database: str
    server_version: str
    dump_version: str
    restricted: bool
    table: str
    rows: Mapping[tuple[str, str], int]
    extensions: tuple[str, ...]
    roles: tuple[str, ...]
    roles_made: frozenset[str]
    immich: str

    @property
    def assets(self) -> int:
        """Rows of the asset table."""
        return self.rows["public", self.table]


def unquoted(name: bytes) -> str:
    """An identifier as PostgreSQL has it."""
    text = name.decode("utf-8", "replace")
    return text[1:-1].replace('""', '"') if text.startswith('"') else text


def quoted(name: str) -> str:
    """An identifier for SQL."""
    return '"' + name.replace('"', '""') + '"'


def scan(lines: Iterable[bytes], *, prefer: str = "") -> Scan:
    """Read all of a dump. ``prefer`` is the database that is meant where a cluster dump has several of Immich's. Raises
    ``DumpUnusable`` where it is not a whole one of Immich's."""
    scanner = _Scanner()
    for kind, line in classified(lines):
        scanner.take(kind, line)
    return scanner.result(prefer)


class _Scanner:
    def __init__(self) -> None:
        self._cluster: bool | None = None
        self._complete = False
        self._restricted = False
        self._made: set[str] = set()
        self._sections: dict[bytes, _Section] = {}
        self._key = b""
        self._section = _Section()
        self._table: tuple[str, str] = ("", "")
        self._columns: list[str] = []
        self._count = 0

    def take(self, kind: Kind, line: bytes) -> None:
        """One line."""
        if kind is Kind.ROW:
            self._count += 1
            if self._table == ("public", "version_history"):
                self._version_row(line)
            return
        if self._complete and kind in (Kind.STATEMENT, Kind.COPY):
            raise DumpUnusable("The dump goes on after its end: several were put into one file")
        match kind:
            case Kind.STATEMENT:
                self._statement(line)
            case Kind.COPY:
                self._copy(line)
            case Kind.END:
                self._section.rows[self._table] = self._count
            case Kind.COMMAND:
                self._command(line)
            case _:
                self._comment(line)

    def _comment(self, line: bytes) -> None:
        if self._cluster is None:
            self._begin(line)
        elif line == (_END_OF_CLUSTER if self._cluster else END_OF_SECTION):
            self._complete = True
        elif line == END_OF_SECTION:
            self._section = _Section()  # what comes between two databases belongs to neither
        elif found := _VERSION.match(line):
            self._section.versions.setdefault(found[1], found[2].decode("ascii", "replace"))

    def _begin(self, line: bytes) -> None:
        if line.startswith(b"-- PostgreSQL") and line.endswith(b"\r\n"):
            hint = "'docker exec -t' does that: make it again without -t."
            raise DumpUnusable("The dump has the line ends of a terminal, which damage it", hint=hint)
        if line.strip() and not line.startswith(b"--"):
            raise DumpUnusable(_NO_DUMP)
        self._cluster = _HEADERS.get(line.rstrip(b"\n"))
        if self._cluster is False:
            self._sections[b""] = self._section

    def _statement(self, line: bytes) -> None:
        if self._cluster is None:
            raise DumpUnusable(_NO_DUMP)
        if found := _EXTENSION.match(line):
            self._section.extensions[unquoted(found[1])] = None
        elif found := _MADE.match(line):
            self._made.add(unquoted(found[1]))
        elif (found := _ROLE.match(line)) and found[1] != b"PUBLIC":
            self._section.roles[unquoted(found[1])] = None

    def _copy(self, line: bytes) -> None:
        found = _COPY.fullmatch(line)
        if found is None or self._cluster is None:
            raise DumpUnusable("The dump has a COPY that pg_dump does not write")
        self._table, self._count = (unquoted(found[1]), unquoted(found[2])), 0
        self._columns = [unquoted(name) for name in re.findall(NAME, found[3] or b"")]

    def _version_row(self, line: bytes) -> None:
        row = dict(zip(self._columns, line.rstrip(b"\n").split(b"\t"), strict=False))
        self._section.history = max(self._section.history, (row.get("createdAt", b""), row.get("version", b"")))

    def _command(self, line: bytes) -> None:
        self._restricted = self._restricted or line.startswith(b"\\restrict")
        if line.startswith(b"\\connect"):
            if not self._cluster:
                raise DumpUnusable("The dump changes to another database, which no dump of Immich's does")
            versions = self._section.versions if line != self._key else {}
            self._key = line
            self._section = self._sections.setdefault(line, _Section())
            self._section.versions = {**versions, **self._section.versions}

    def result(self, prefer: str) -> Scan:
        """All of it."""
        if self._cluster is None:
            raise DumpUnusable(_NO_DUMP)
        if not self._complete:
            raise DumpUnusable("The dump's end is missing: it was not finished")
        found = [
            (key, table, section)
            for key, section in self._sections.items()
            for table in ASSET_TABLES
            if ("public", table) in section.rows
        ]
        if not found:
            raise DumpUnusable(
                "The dump has no table of assets: it is not one of Immich's", hint="Choose another dump."
            )
        chosen = found if len(found) == 1 else [one for one in found if _database(one[0]) == prefer]
        if len(chosen) != 1:
            names = ", ".join(printable(_database(key)) for key, _, _ in found)
            hint = "Restore into a database that is called like the one that you want."
            raise DumpUnusable(f"The dump has several databases with assets: {names}", hint=hint)
        return self._scan(*chosen[0])

    def _scan(self, key: bytes, table: str, section: _Section) -> Scan:
        return Scan(
            cluster=bool(self._cluster),
            section=key,
            database=_database(key),
            server_version=section.versions.get(b"from database", ""),
            dump_version=section.versions.get(b"by pg_dump", ""),
            restricted=self._restricted,
            table=table,
            rows=section.rows,
            extensions=tuple(section.extensions),
            roles=tuple(section.roles),
            roles_made=frozenset(self._made),
            immich=section.history[1].decode("utf-8", "replace"),
        )


def _database(key: bytes) -> str:
    if found := _CONNECT.fullmatch(key):
        return unquoted(found[1]) if found[1] else found[2].decode("utf-8", "replace")
    return ""
