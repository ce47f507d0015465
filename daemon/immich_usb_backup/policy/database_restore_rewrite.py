"""A dump's lines as they are sent to ``psql``: one database of it, in one transaction, without what can only do harm."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from immich_usb_backup.policy.database_restore_lines import Kind, classified
from immich_usb_backup.policy.database_restore_scan import END_OF_SECTION, NAME, Scan, quoted, unquoted
from immich_usb_backup.policy.database_restore_stand_ins import extension_of_index, stand_in
from immich_usb_backup.policy.text import harmless

_SEARCH_PATH = b"SELECT pg_catalog.set_config('search_path', '', false);\n"
_OUR_SEARCH_PATH = b"SELECT pg_catalog.set_config('search_path', 'public, pg_catalog', true);\n"
_TRANSACTION_TIMEOUT_SINCE = 17
_CONNECTION_CHECK_SINCE = 14
_CONNECTION_CHECK = (
    b"DO $$ BEGIN SET client_connection_check_interval = '10s'; EXCEPTION WHEN OTHERS THEN NULL; END $$;\n"
)
"""So that a statement of an hour ends with whoever asked for it. Some systems cannot do that."""

_NOT_SENT = re.compile(
    rb"DROP EXTENSION |COMMENT ON EXTENSION |DROP SCHEMA |(?:BEGIN|COMMIT|ROLLBACK);\n|(?:CREATE|DROP) DATABASE "
)
_CREATE_SCHEMA = re.compile(rb"CREATE SCHEMA (" + NAME + rb";\n)")
_EXTENSION = re.compile(rb"CREATE EXTENSION (?:IF NOT EXISTS )?(" + NAME + rb")(?: WITH SCHEMA (" + NAME + rb"))?")
_ON_DATABASE = re.compile(rb"((?:ALTER|COMMENT ON|GRANT [^;]* ON|REVOKE [^;]* ON) DATABASE )" + NAME)
_ROLE = re.compile(rb"(?:CREATE|ALTER) ROLE (" + NAME + rb")[ ;]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    """``database``: the target's name. ``server``: its major version. ``roles``: those of a cluster dump that are made as it
    says; ``bare_roles``: those that are made without rights. ``absent``: extensions that are not installed, for which stand-ins
    are made. ``restrict``: a key for psql's ``\\restrict``, empty where psql does not know it."""

    scan: Scan
    database: str
    server: int
    roles: frozenset[str] = frozenset()
    bare_roles: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()
    restrict: str = ""


def rewritten(lines: Iterable[bytes], rewrite: Rewrite, left_out: Callable[[str], None]) -> Iterator[bytes]:
    """What psql gets. ``COMMIT`` comes last, after the whole dump was read and judged: an input that ends before it leaves
    the database as it was. ``left_out`` is told of what an absent extension keeps out. Raises ``DumpUnusable``."""
    if rewrite.restrict:
        yield f"\\restrict {rewrite.restrict}\n".encode()
    yield b"BEGIN;\n"
    yield from (f"CREATE ROLE {quoted(role)};\n".encode() for role in sorted(rewrite.bare_roles))
    if rewrite.server >= _CONNECTION_CHECK_SINCE:
        yield _CONNECTION_CHECK
    for inside, kind, line in _wanted(lines, rewrite.scan):
        if kind is not Kind.STATEMENT:
            if inside:
                yield line
        elif inside:
            yield from _statement(line, rewrite, left_out)
        elif _is_made(line, rewrite.roles):
            yield line
    yield b"COMMIT;\n"


def _wanted(lines: Iterable[bytes], scan: Scan) -> Iterator[tuple[bool, Kind, bytes]]:
    """The lines of Immich's database (True), and those before all databases of a cluster dump (False). No commands."""
    inside, before = not scan.cluster, scan.cluster
    for kind, line in classified(lines):
        if kind is Kind.COMMAND:
            if line.startswith(b"\\connect"):
                inside, before = line == scan.section, False
            continue
        if kind is Kind.TEXT and line == END_OF_SECTION:
            inside = False
        if inside or before:
            yield inside, kind, line


def _is_made(line: bytes, roles: frozenset[str]) -> bool:
    found = _ROLE.match(line)
    return found is not None and unquoted(found[1]) in roles


def _statement(line: bytes, rewrite: Rewrite, left_out: Callable[[str], None]) -> Iterator[bytes]:
    """One statement of the wanted database, as it is sent; nothing where it is not."""
    if line == _SEARCH_PATH:
        yield _OUR_SEARCH_PATH
    elif _NOT_SENT.match(line) or (
        line == b"SET transaction_timeout = 0;\n" and rewrite.server < _TRANSACTION_TIMEOUT_SINCE
    ):
        return
    elif found := _CREATE_SCHEMA.fullmatch(line):
        yield b"CREATE SCHEMA IF NOT EXISTS " + found[1]
    elif found := _ON_DATABASE.match(line):
        yield found[1] + quoted(rewrite.database).encode() + line[found.end() :]
    elif (found := _EXTENSION.match(line)) and (name := unquoted(found[1])) in rewrite.absent:
        yield stand_in(name, unquoted(found[2] or b"public")).encode()
    elif rewrite.absent and extension_of_index(line, rewrite.absent):
        left_out(harmless(line.decode("utf-8", "replace").strip()))
    else:
        yield line
