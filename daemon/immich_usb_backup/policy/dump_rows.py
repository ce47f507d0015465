"""PostgreSQL's COPY text format, as far as Immich's dumps need it: headers, fields, and the rows of its assets.

Sentences in errors are about the dump ("it …"): whoever knows its name puts that in front.
"""

from __future__ import annotations

import re
from binascii import unhexlify
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from immich_usb_backup.errors import DumpUnusable
from immich_usb_backup.policy.text import printable

NULL = b"\\N"
Row: TypeAlias = tuple[bytes, bytes, bool, bool]
"""An asset as the dump has it: its path, the SHA-1 of its content (20 bytes, or empty), external, in the trash."""

_NAME = rb'"(?:[^"]|"")+"|[^\s"(),.;]+'
_HEADER = re.compile(rb"COPY (?:(%b)\.)?(%b) (?:\((.*)\) )? ?FROM stdin;" % (_NAME, _NAME))
_NAMES = re.compile(_NAME)
_ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|x([0-9A-Fa-f]{1,2})|(.))", re.DOTALL)
_LETTERS = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_HEX = b"\\\\x"
_SHA1_BYTES = 20
_ESCAPED_HINT = "Set bytea_output = 'hex' in PostgreSQL, which is its default, and make a new dump."


@dataclass(frozen=True, slots=True)
class CopyTable:
    """What a COPY header says: the table, its schema (empty where it has none), and the columns in their order."""

    schema: bytes
    name: bytes
    columns: tuple[bytes, ...]


def copy_header(line: bytes) -> CopyTable:
    """Raises ``DumpUnusable`` for one that is not like pg_dump's: what follows could not be told from SQL."""
    match = _HEADER.fullmatch(line)
    if match is None:
        raise DumpUnusable(f"it has a COPY line that is not like pg_dump's: {printable(line)}")
    columns = tuple(_unquoted(name) for name in _NAMES.findall(match[3] or b""))
    return CopyTable(_unquoted(match[1] or b""), _unquoted(match[2]), columns)


def _unquoted(name: bytes) -> bytes:
    return name[1:-1].replace(b'""', b'"') if name.startswith(b'"') else name


def unescape(field: bytes) -> bytes:
    """The value of a field that is not NULL."""
    return _ESCAPE.sub(_meant, field) if b"\\" in field else field


def _meant(match: re.Match[bytes]) -> bytes:
    octal, hexadecimal, letter = match.groups()
    if octal is not None:
        return bytes((int(octal, 8) & 255,))
    if hexadecimal is not None:
        return bytes((int(hexadecimal, 16),))
    return _LETTERS.get(letter, letter)


def values(table: CopyTable, line: bytes) -> Mapping[bytes, bytes]:
    """One row of a small table: the values that are not NULL, by their columns. Raises ``DumpUnusable``."""
    fields = line.split(b"\t")
    if len(fields) != len(table.columns):
        raise _torn(table, line)
    return {column: unescape(field) for column, field in zip(table.columns, fields, strict=True) if field != NULL}


def _torn(table: CopyTable, line: bytes) -> DumpUnusable:
    found, expected = line.count(b"\t") + 1, len(table.columns)
    name = printable(table.name)
    return DumpUnusable(f"a row of its table {name} has {found} columns instead of {expected}, so it is damaged")


class AssetRows:
    """Reads rows of the asset table. The columns come from the header; those that a release does not have yet, or no
    longer, count as NULL."""

    NEEDED = (b"originalPath", b"checksum")

    def __init__(self, table: CopyTable) -> None:
        self._table = table
        wanted = (*self.NEEDED, b"isExternal", b"checksumAlgorithm", b"deletedAt")
        places = {name: place for place, name in enumerate(table.columns)}
        self._last = max(places[name] for name in wanted if name in places) + 1
        self._path, self._checksum, self._external, self._algorithm, self._deleted = (
            places.get(name, -1) for name in wanted
        )

    def read(self, lines: Iterable[bytes]) -> Iterator[Row]:
        """The assets. Raises ``DumpUnusable`` for a row that is damaged. A million of them go through here."""
        tabs, last = len(self._table.columns) - 1, self._last
        path, checksum, external, algorithm, deleted = (
            *(self._path, self._checksum, self._external),
            *(self._algorithm, self._deleted),
        )
        for line in lines:
            if line.count(b"\t") != tabs:
                raise _torn(self._table, line)
            fields = line.split(b"\t", last)
            fields.append(NULL)  # what stands at -1: a column that is not there
            outside = fields[external] == b"t"
            of_content = not outside and fields[algorithm] in {b"sha1", NULL}
            yield (
                unescape(fields[path]),
                sha1(fields[checksum]) if of_content else b"",
                outside,
                fields[deleted] != NULL,
            )


def sha1(field: bytes) -> bytes:
    """The value of a checksum column; empty for NULL and for what is not as long as a SHA-1. Raises ``DumpUnusable``."""
    if field[:3] == _HEX:
        try:
            digest = unhexlify(field[3:])
        except ValueError:
            raise DumpUnusable(f"it has a checksum that is damaged: {printable(field)}") from None
        return digest if len(digest) == _SHA1_BYTES else b""
    if field == NULL:
        return b""
    raise DumpUnusable("its checksums are written in PostgreSQL's old form (bytea_output = escape)", hint=_ESCAPED_HINT)


def has_assets(table: CopyTable) -> bool:
    """Whether this is Immich's table of assets, under its name of today or that of before 1.136."""
    return table.name in {b"asset", b"assets"} and set(AssetRows.NEEDED) <= set(table.columns)
