"""A dump's lines and what each is: SQL, rows of a COPY, or a command to ``psql``.

Captions may say ``COPY … FROM stdin;`` or ``\\.``, function bodies may hold any line, and ``psql`` runs programs when it
meets ``\\!``. So what a line is is known from the quotes and comments before it, never from its own looks, and a command
that ``pg_dump`` and ``pg_dumpall`` do not write is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from enum import Enum, auto

from immich_usb_backup.errors import DumpUnusable
from immich_usb_backup.policy.text import printable

LINE_LIMIT = 1 << 28
"""Bytes of a line. PostgreSQL's largest value takes up to four times as much, Immich's take kilobytes."""


class Kind(Enum):
    """``STATEMENT``: a whole statement in one line. ``TEXT``: part of a longer one, a comment, an empty line. ``COPY``: the
    head of a COPY, followed by ``ROW`` lines and one ``END``. ``COMMAND``: one to psql, with a backslash."""

    STATEMENT = auto()
    TEXT = auto()
    COPY = auto()
    ROW = auto()
    END = auto()
    COMMAND = auto()


_COPY = re.compile(rb"COPY [^;]+ FROM stdin;\n", re.DOTALL)
_END = b"\\.\n"
_COMMAND = re.compile(rb"\\(?:(?:un)?restrict [A-Za-z0-9]+|connect [^\\`]+)\n")
_ODD_ESCAPE = re.compile(rb"\\(?![bfnrtvN])")
_IN_NAME = rb"(?<![A-Za-z0-9_$\x80-\xff])"
_OPENING = re.compile(
    rb"--|/\*|\\|\"|" + _IN_NAME + rb"[eE]'|'|" + _IN_NAME + rb"\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?\$"
)
_CLOSING = {
    b'"': re.compile(rb'(")'),
    b"'": re.compile(rb"(')"),
    b"e'": re.compile(rb"\\.|''|(')", re.DOTALL),
    b"/*": re.compile(rb"\*/|/\*"),
}


class _Sql:
    """Where a line of SQL ends: inside of which quotes, and whether a statement is under way."""

    def __init__(self) -> None:
        self.quote = b""
        self.depth = 0
        self.under_way = False

    def take(self, line: bytes) -> bool:
        """Read one line; whether it is a whole statement. Raises ``DumpUnusable`` for a backslash outside of quotes."""
        began_fresh = not self.under_way and not self.quote
        position, code = 0, b""
        while position < len(line):
            if self.quote:
                code += b"" if self.quote == b"/*" else b"q"
                position = self._leave(line, position)
                continue
            found = _OPENING.search(line, position)
            code += line[position : found.start() if found else None]
            position = self._enter(line, found) if found else len(line)
        code = code.strip()
        if self.quote and self.quote != b"/*":
            self.under_way = True
        elif code:
            self.under_way = not code.endswith(b";")
        return began_fresh and code.endswith(b";") and not self.quote

    def _enter(self, line: bytes, found: re.Match[bytes]) -> int:
        token = found[0]
        if token == b"\\":
            raise DumpUnusable(
                f"The dump holds a command that no dump of PostgreSQL's has: {printable(line.strip())}",
                hint="Do not restore it: it may run programs on this machine. Take another dump.",
            )
        if token == b"--":
            return len(line)
        self.quote, self.depth = token.lower() if token[-1:] == b"'" else token, 1
        return found.end()

    def _leave(self, line: bytes, position: int) -> int:
        if self.quote.startswith(b"$"):
            end = line.find(self.quote, position)
            return len(line) if end < 0 else self._left(end + len(self.quote))
        for found in _CLOSING[self.quote].finditer(line, position):
            if self.quote == b"/*":
                self.depth += 1 if found[0] == b"/*" else -1
            if (self.quote == b"/*" and self.depth == 0) or (self.quote != b"/*" and found[1]):
                return self._left(found.end())
        return len(line)

    def _left(self, position: int) -> int:
        self.quote = b""
        return position


def classified(lines: Iterable[bytes]) -> Iterator[tuple[Kind, bytes]]:
    """Each line with what it is. Raises ``DumpUnusable`` for what ``pg_dump`` does not write."""
    sql = _Sql()
    rows = False
    for line in lines:
        if rows:
            rows = line != _END
            if rows and b"\\" in line and (odd := _ODD_ESCAPE.search(line.replace(b"\\\\", b"--"))):
                raise DumpUnusable(
                    f"The dump holds a row that pg_dump does not write: {printable(line[odd.start() :])}"
                )
            yield (Kind.ROW if rows else Kind.END), line
            continue
        if not sql.quote and not sql.under_way and _COMMAND.fullmatch(line):
            yield Kind.COMMAND, line
            continue
        whole = sql.take(line)
        rows = whole and _COPY.fullmatch(line) is not None
        yield (Kind.COPY if rows else Kind.STATEMENT if whole else Kind.TEXT), line
    if rows or sql.quote or sql.under_way:
        raise DumpUnusable("The dump ends in the middle of a statement: it was cut off")
