"""Which of the files in Immich's ``backups`` folder are routine dumps, and in which order they were made.

Names and traps as read from Immich 1.120 to 3.1: the folder also holds dumps that are still being written, uploads
and restore points; a sort by name or by modification time picks wrong ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_EPOCH_NAME = re.compile(r"immich-db-backup-(\d{13})\.sql\.gz", re.ASCII)
_DATED_NAME = re.compile(
    r"immich-db-backup-(\d{8}T\d{6})-v(?!.*-pre-upgrade)(\d[\w.\-+]*?)-pg(\d[\w.]*)\.sql\.gz", re.ASCII
)

HEADERS = (b"-- PostgreSQL database dump", b"-- PostgreSQL database cluster dump")
FOOTERS = (b"-- PostgreSQL database dump complete", b"-- PostgreSQL database cluster dump complete")
_FIRST_OF_ONE_DATABASE = (2, 5)
"""Immich's own dumps are those of one database since this version, of the whole cluster before."""

TAIL_BYTES = 4096
"""The footer lies within this many bytes of the end, perhaps followed by a ``\\unrestrict`` line."""


@dataclass(frozen=True, slots=True, order=True)
class DumpName:
    """A routine dump. ``time`` is from the name: UTC in the old form, the server's local time in the new one."""

    time: datetime
    name: str


def parse_dump_name(name: str, *, local: datetime | None = None) -> DumpName | None:
    """The dump's name and time, or None where it is no routine dump. ``local`` gives the server's zone."""
    if match := _EPOCH_NAME.fullmatch(name):
        return DumpName(datetime.fromtimestamp(int(match[1]) / 1000, UTC), name)
    if match := _DATED_NAME.fullmatch(name):
        try:
            naive = datetime.strptime(match[1], "%Y%m%dT%H%M%S")  # noqa: DTZ007
            zoned = naive.replace(tzinfo=local.tzinfo) if local else naive.astimezone()
            return DumpName(zoned.astimezone(UTC), name)
        except (ValueError, OverflowError):  # no such day, or before the first or after the last in UTC
            return None
    return None


def fresh_dump_name(when: datetime, *, immich: str, postgres: str, cluster: bool) -> str:
    """The name for a dump of ours that was made at ``when`` (the server's local time), as Immich's own routine dumps have.

    ``immich`` and ``postgres`` are the versions that the dump tells of, empty where it does not; ``cluster``: ``pg_dumpall``
    made it. Immich's page for restores goes by the version in the name: up to 2.4 it takes the dump for a cluster's, else,
    also where it is no version, for one database's. So the name has a version that leads it the right way.
    """
    major = re.match(r"\d[\d.]*", postgres)
    version = _leading(immich, cluster=cluster)
    return f"immich-db-backup-{when:%Y%m%dT%H%M%S}-v{version}-pg{major[0] if major else 0}.sql.gz"


def _leading(immich: str, *, cluster: bool) -> str:
    known = re.match(r"(\d+)\.(\d+)\.\d+", immich, re.ASCII)
    if known is None:
        return "0.0.0" if cluster else "0"
    if cluster == ((int(known[1]), int(known[2])) < _FIRST_OF_ONE_DATABASE):
        return known[0]
    return "0.0.0" if cluster else f"{known[0]}.0"


def too_old(made: datetime, now: datetime, *, hours: int) -> bool:
    """Whether a dump is older than it should be. 0 hours: never. A name may be half a day off: it has the time of whoever
    made the dump, in a container often UTC."""
    return hours > 0 and now - made > timedelta(hours=hours)


def newest_first(names: Iterable[str]) -> tuple[DumpName, ...]:
    """The routine dumps among ``names``, newest first."""
    return tuple(sorted(filter(None, map(parse_dump_name, names)), reverse=True))


def dump_problem(head: bytes, tail: bytes) -> str | None:
    """What is wrong with a dump whose uncompressed beginning and end are these, or None."""
    if not any(header in head for header in HEADERS):
        return "it does not begin like a dump of PostgreSQL"
    if not any(footer in tail for footer in FOOTERS):
        return "its end is missing: the dump was not finished"
    return None


def superfluous(names: Iterable[str], *, keep: int, never: str) -> tuple[str, ...]:
    """The routine dumps that may go from the disk when the newest ``keep`` stay. ``never``, which has just been proven,
    stays even where others are dated in the future (a clock was wrong)."""
    others = [dump.name for dump in newest_first(names) if dump.name != never]
    return tuple(others[max(0, keep - 1) :])
