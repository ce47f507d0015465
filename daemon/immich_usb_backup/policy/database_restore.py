"""Whether a dump may be restored into a database, with every reason against it, and what is told of it beforehand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from immich_usb_backup.policy.database_restore_scan import Scan
from immich_usb_backup.policy.text import counted, printable

_RESTRICT_SINCE = {13: 22, 14: 19, 15: 14, 16: 10, 17: 6}
_NAMED_AT_MOST = 5
_DATED_NAME = re.compile(r"immich-db-backup-\d{8}T\d{6}-v(\d[\w.\-+]*?)-pg\d[\w.]*\.sql\.gz", re.ASCII)
_VERSION = re.compile(r"(\d+)(?:\.(\d+))?")
_PACKAGES = {"vchord": "VectorChord", "vectors": "pgvecto.rs", "vector": "pgvector"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What the target says of itself. ``objects`` are the first tables, views and functions that are there already (not those
    of extensions), ``object_count`` is how many there are. ``available`` extensions can be installed, ``installed`` ones are,
    ``creatable`` ones may be made by this user."""

    version: str
    database: str
    user: str
    superuser: bool
    encoding: str
    standby: bool
    objects: tuple[str, ...]
    object_count: int
    available: frozenset[str]
    installed: frozenset[str]
    creatable: frozenset[str]
    roles: frozenset[str]

    @property
    def major(self) -> int:
        """15 of ``15.18``."""
        return version_of(self.version)[0]


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a dump may not be restored there, and what to do."""

    message: str
    hint: str


def version_of(text: str) -> tuple[int, int]:
    """Major and minor version in ``psql (PostgreSQL) 15.18 (Debian …)`` or ``15.18``; zeros where there is none."""
    found = _VERSION.search(text)
    return (int(found[1]), int(found[2] or 0)) if found else (0, 0)


def knows_restrict(psql: tuple[int, int]) -> bool:
    """Whether this ``psql`` knows the command ``\\restrict``, which dumps have since August 2025."""
    major, minor = psql
    return major > max(_RESTRICT_SINCE) or minor >= _RESTRICT_SINCE.get(major, 1 << 30)


def immich_version(dump_name: str, scan: Scan) -> str:
    """The Immich that made a dump: by its name, else by the table ``version_history``; empty where neither tells."""
    found = _DATED_NAME.fullmatch(dump_name)
    return found[1] if found else printable(scan.immich)


def absent_extensions(scan: Scan, server: Server) -> tuple[str, ...]:
    """Those that the dump makes and the server does not have."""
    return tuple(name for name in scan.extensions if name not in server.available | server.installed)


def missing_roles(scan: Scan, server: Server) -> frozenset[str]:
    """Those that the dump names and the server does not have."""
    return frozenset(scan.roles) - server.roles


def problems(scan: Scan, server: Server, *, rehearsal: bool = False) -> tuple[Problem, ...]:
    """Everything that speaks against it. In a rehearsal, absent extensions and users are no reason."""
    found = (*_not_fit(server), *_not_empty(server), *_too_old(scan, server))
    return found if rehearsal else (*found, *_extensions(scan, server), *_roles(scan, server))


def _not_fit(server: Server) -> Iterator[Problem]:
    if server.standby:
        yield Problem("The server is a standby and takes no changes", "Name the primary server.")
    if server.encoding != "UTF8":
        message = f"The database '{printable(server.database)}' has the encoding {printable(server.encoding)}, not UTF8"
        yield Problem(message, "Make it again with: createdb --template=template0 --encoding=UTF8 NAME")


def _not_empty(server: Server) -> Iterator[Problem]:
    if not server.object_count:
        return
    message = (
        f"The database '{printable(server.database)}' is not empty: {counted(server.object_count, 'table or function', 'tables and functions')} "
        f"({_named(server.objects, server.object_count)})"
    )
    hint = "A dump goes into a database in which Immich has never been started. Stop Immich, and make a new, empty one."
    yield Problem(message, hint)


def _too_old(scan: Scan, server: Server) -> Iterator[Problem]:
    wanted = version_of(scan.server_version)[0]
    if wanted > server.major:
        message = f"The dump is of PostgreSQL {printable(scan.server_version)}, and the server is older: {printable(server.version)}"
        yield Problem(message, f"Use PostgreSQL {wanted} or newer.")


def _extensions(scan: Scan, server: Server) -> Iterator[Problem]:
    absent = absent_extensions(scan, server)
    if absent:
        names = ", ".join(f"{printable(name)} ({_PACKAGES.get(name, 'of postgresql-contrib')})" for name in absent)
        hint = "Install them on the server, or use the PostgreSQL image that your Immich's docker-compose.yml names."
        yield Problem(f"The server lacks {counted(len(absent), 'extension')} that the dump needs: {names}", hint)
    able = server.installed | server.creatable
    barred = [name for name in scan.extensions if name in server.available and name not in able]
    if barred and not server.superuser:
        names = ", ".join(map(printable, barred))
        message = f"The user '{printable(server.user)}' may not create these extensions: {names}"
        first = f'CREATE EXTENSION "{printable(barred[0])}";'
        hint = f"Connect as a superuser, or have one create them in this database first ({first} and so on)."
        yield Problem(message, hint)


def _roles(scan: Scan, server: Server) -> Iterator[Problem]:
    lacking = sorted(missing_roles(scan, server) - scan.roles_made)
    if lacking:
        names = _named(lacking, len(lacking))
        message = f"The dump's tables belong to {counted(len(lacking), 'user')} that the server does not have: {names}"
        yield Problem(message, f"Create it with: createuser {printable(lacking[0])}")


def _named(names: tuple[str, ...] | list[str], count: int) -> str:
    shown = ", ".join(printable(name) for name in names[:_NAMED_AT_MOST])
    left = count - min(len(names), _NAMED_AT_MOST)
    return f"{shown} and {left:,} more" if left > 0 else shown


def plan_lines(scan: Scan, server: Server, *, dump: str, psql: tuple[int, int]) -> Iterator[str]:
    """What will be done, for people."""
    kind = "pg_dumpall" if scan.cluster else "pg_dump"
    immich = immich_version(dump, scan)
    yield (
        f"Dump {printable(dump)}: made by {kind} {printable(scan.dump_version or '?')} from PostgreSQL "
        f"{printable(scan.server_version or '?')}, {counted(len(scan.rows), 'table')}, {counted(scan.assets, 'asset')}"
    )
    yield start_line(immich)
    yield (
        f"It goes into the empty database '{printable(server.database)}' of PostgreSQL {printable(server.version)}, as user "
        f"'{printable(server.user)}', in one transaction: all or nothing"
    )
    if scan.cluster:
        made = sorted(missing_roles(scan, server) & scan.roles_made)
        yield (
            f"Of the dump of a whole server only the database '{printable(scan.database)}' is restored; users that are there "
            "stay as they are, with their passwords" + (f"; created: {_named(made, len(made))}" if made else "")
        )
    if scan.restricted and not knows_restrict(psql):
        yield (
            f"The dump has \\restrict lines, which this psql ({psql[0]}.{psql[1]}) does not know: they are left out. That the "
            "dump holds nothing but SQL was checked"
        )


def start_line(immich: str) -> str:
    """Which Immich must be started on the database."""
    if immich:
        return f"It was made by Immich {immich}: start this version on it, or a newer one"
    return "It does not tell which Immich made it: start the version that you had, or a newer one"
