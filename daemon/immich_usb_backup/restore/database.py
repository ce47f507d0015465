"""The database's way back: a dump is judged together with the database that it shall go into, then sent there as one
transaction. Everything blocks."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from immich_usb_backup.adapters.threads import Pulse, in_thread
from immich_usb_backup.errors import DatabaseFailed, DatabaseRefused
from immich_usb_backup.policy import database_restore as policy
from immich_usb_backup.policy.database_restore import Server
from immich_usb_backup.policy.database_restore_rewrite import Rewrite, rewritten
from immich_usb_backup.policy.database_restore_scan import Scan, quoted, scan
from immich_usb_backup.policy.text import counted, printable, sentence, size
from immich_usb_backup.restore.database_psql import Psql, in_container, local
from immich_usb_backup.restore.database_stream import STALL_SECONDS, Pump, lines_of

_OURS = "n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'"
_OBJECTS = f"""
SELECT n.nspname || '.' || c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE {_OURS} AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND NOT EXISTS
    (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
UNION ALL
SELECT n.nspname || '.' || p.proname || '()' FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE {_OURS} AND NOT EXISTS
    (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
"""  # noqa: S608  # no foreign text in it
_ASK = f"""
SELECT json_build_object(
    'version', current_setting('server_version'),
    'database', current_database(),
    'user', current_user,
    'superuser', (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
    'encoding', (SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = current_database()),
    'standby', pg_is_in_recovery(),
    'objects', (SELECT coalesce(json_agg(name), '[]') FROM (SELECT name FROM ({_OBJECTS}) o ORDER BY name LIMIT 5) f),
    'object_count', (SELECT count(*) FROM ({_OBJECTS}) o),
    'available', (SELECT coalesce(json_agg(DISTINCT name), '[]') FROM pg_available_extensions),
    'installed', (SELECT coalesce(json_agg(extname), '[]') FROM pg_extension),
    'creatable', (SELECT coalesce(json_agg(DISTINCT v.name), '[]') FROM pg_available_extension_versions v
        WHERE NOT v.superuser OR (v.trusted AND has_database_privilege(current_database(), 'CREATE'))),
    'roles', (SELECT json_agg(rolname) FROM pg_roles)
)"""  # noqa: S608  # no foreign text in it


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseTarget:
    """Where a dump goes: a PostgreSQL URL, or a container of Immich's PostgreSQL image. Exactly one is given."""

    url: str = ""
    docker: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabasePlan:
    """A dump and a database that fit. ``lines`` say what will be done, ``immich`` is the version that made the dump (empty
    where unknown), ``absent`` are extensions that the server lacks; in a ``rehearsal`` they get a stand-in."""

    dump: Path
    psql: Psql
    psql_version: tuple[int, int]
    scan: Scan
    server: Server
    immich: str
    absent: tuple[str, ...]
    rehearsal: bool
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseResult:
    """What was done. ``rows`` are those of each (schema, table), as counted in the database afterwards; ``left_out`` are the
    statements that an absent extension kept out."""

    lines: tuple[str, ...]
    rows: Mapping[tuple[str, str], int] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


def check_target(dump: Path, target: DatabaseTarget, *, rehearsal: bool = False) -> DatabasePlan:
    """Read the dump to its end and ask the database; change nothing. A rehearsal goes on without extensions and users that
    the server lacks. Raises ``DumpUnusable``, ``DatabaseRefused`` with every reason, ``CommandFailed``, ``DeadlineMissed``."""
    psql = _psql(target)
    version = psql.version()
    server = _ask(psql)
    found = _read(dump, server.database)
    if problems := policy.problems(found, server, rehearsal=rehearsal):
        message = sentence(*(problem.message for problem in problems))
        raise DatabaseRefused(message, hint=sentence("Nothing was changed", *(problem.hint for problem in problems)))
    return DatabasePlan(
        dump=dump,
        psql=psql,
        psql_version=version,
        scan=found,
        server=server,
        immich=policy.immich_version(dump.name, found),
        absent=policy.absent_extensions(found, server),
        rehearsal=rehearsal,
        lines=tuple(policy.plan_lines(found, server, dump=dump.name, psql=version)),
    )


def restore_database(
    plan: DatabasePlan, say: Callable[[str], None], *, stall_seconds: float = STALL_SECONDS
) -> DatabaseResult:
    """Send the dump, and count afterwards. All or nothing: whatever is raised, the database is as it was. ``say`` gets a line
    now and then. Raises ``DatabaseFailed``, ``DumpUnusable``, ``DeadlineMissed``, ``CommandFailed``."""
    say(f"Restoring {counted(plan.scan.assets, 'asset')} into the database '{printable(plan.server.database)}'")
    left_out: list[str] = []
    sent = rewritten(lines_of(plan.dump), _rewrite(plan), left_out.append)
    Pump(plan.psql).run(sent, lambda count: say(f"{size(count)} are sent"), stall_seconds=stall_seconds)
    rows = _count(plan, stall_seconds)
    return DatabaseResult(lines=_told(plan, rows), rows=rows, left_out=tuple(left_out))


def _psql(target: DatabaseTarget) -> Psql:
    if bool(target.url) == bool(target.docker):
        raise DatabaseRefused("Name the database either by its URL or by its container")
    return local(target.url) if target.url else in_container(target.docker)


def _read(dump: Path, database: str) -> Scan:
    """Raises ``DumpUnusable``, and ``DeadlineMissed`` where the disk does not answer."""
    work = in_thread(lambda pulse: scan(_beaten(dump, pulse), prefer=database), what="Reading the dump")
    return asyncio.run(work)


def _beaten(dump: Path, pulse: Pulse) -> Iterator[bytes]:
    for line in lines_of(dump):
        pulse.beat()
        yield line


def _ask(psql: Psql) -> Server:
    told = json.loads(psql.query(_ASK))
    for key in ("available", "installed", "creatable", "roles"):
        told[key] = frozenset(told[key])
    return Server(**{**told, "objects": tuple(told["objects"])})


def _rewrite(plan: DatabasePlan) -> Rewrite:
    roles = policy.missing_roles(plan.scan, plan.server)
    return Rewrite(
        scan=plan.scan,
        database=plan.server.database,
        server=plan.server.major,
        roles=frozenset() if plan.rehearsal else roles & plan.scan.roles_made,
        bare_roles=roles if plan.rehearsal else frozenset(),
        absent=frozenset(plan.absent),
        restrict=secrets.token_hex(16) if policy.knows_restrict(plan.psql_version) else "",
    )


def _count(plan: DatabasePlan, seconds: float) -> dict[tuple[str, str], int]:
    """The rows of each table of the dump, which must be those that were sent. Raises ``DatabaseFailed``."""
    tables = sorted(plan.scan.rows)
    sql = " UNION ALL ".join(
        f"SELECT {number} AS n, count(*) FROM {quoted(schema)}.{quoted(table)}"  # noqa: S608  # quoted
        for number, (schema, table) in enumerate(tables)
    )
    answer = plan.psql.query(f"{sql} ORDER BY n", seconds=seconds)
    found = {tables[int(number)]: int(count) for number, _, count in (line.partition("|") for line in answer.split())}
    for (schema, table), rows in found.items():
        if rows != plan.scan.rows[schema, table]:
            raise DatabaseFailed(
                f"The table {printable(schema)}.{printable(table)} has {rows:,} rows after the restore, and "
                f"{plan.scan.rows[schema, table]:,} in the dump",
                hint="Do not use this database. Make a new, empty one and try again.",
            )
    return found


def _told(plan: DatabasePlan, rows: Mapping[tuple[str, str], int]) -> tuple[str, ...]:
    return (
        f"Database '{printable(plan.server.database)}': {counted(rows['public', plan.scan.table], 'asset')}, "
        f"{counted(sum(rows.values()), 'row')} in {counted(len(rows), 'table')}, as many as in the dump",
        policy.start_line(plan.immich),
    )
