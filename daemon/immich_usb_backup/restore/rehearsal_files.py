"""The restored assets held against the backup's files, in the temporary database itself: no list of a million in memory."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator

from immich_usb_backup.adapters.manifest_temporary import TemporaryManifest
from immich_usb_backup.adapters.placing import Placing
from immich_usb_backup.errors import DatabaseFailed
from immich_usb_backup.policy.database_restore_rehearsal import NAMED_AT_MOST, AssetFiles
from immich_usb_backup.policy.database_restore_scan import Scan, quoted
from immich_usb_backup.policy.dump_paths import REGENERABLE, MediaLocations
from immich_usb_backup.policy.restore import ORIGINALS, Item
from immich_usb_backup.restore.database_psql import Psql
from immich_usb_backup.restore.database_stream import STALL_SECONDS, Pump
from immich_usb_backup.restore.listing import Part, contents
from immich_usb_backup.restore.source import Source

_DEFAULT = b"/usr/src/app/upload"
"""Where nothing is told, it is Immich's image's."""

_TABLES = """\
BEGIN;
CREATE SCHEMA immich_usb_backup_rehearsal;
SET search_path = immich_usb_backup_rehearsal;
CREATE TABLE files (path bytea NOT NULL, size bigint NOT NULL);
CREATE TABLE assets (path bytea NOT NULL, kind text NOT NULL);
"""
_RESULT = f"""
SET search_path = immich_usb_backup_rehearsal;
WITH judged AS (SELECT a.path, CASE WHEN a.kind <> 'expected' THEN a.kind WHEN max(f.size) IS NULL THEN 'missing'
        WHEN max(f.size) = 0 THEN 'empty' ELSE 'present' END AS verdict
    FROM (SELECT row_number() OVER () AS n, * FROM assets) a LEFT JOIN files f USING (path) GROUP BY a.n, a.path, a.kind),
counted AS (SELECT verdict, count(*) AS number FROM judged GROUP BY verdict),
named AS (SELECT DISTINCT path FROM judged WHERE verdict IN ('missing', 'empty') ORDER BY path LIMIT {NAMED_AT_MOST})
SELECT json_build_object('counts', (SELECT coalesce(json_object_agg(verdict, number), '{{}}') FROM counted),
    'named', (SELECT coalesce(json_agg(convert_from(path, 'UTF8') ORDER BY path), '[]') FROM named))
"""  # noqa: S608  # no foreign text in it


def hold_against(
    psql: Psql,
    scan: Scan,
    source: Source,
    manifest: TemporaryManifest | None,
    placing: Placing | None,
    beat: Callable[[], None],
) -> AssetFiles:
    """``placing`` is where a restore would put what Immich moved after the dump. Raises ``BackupUnreadable``,
    ``DatabaseFailed``, ``DatabaseRefused``, ``DeadlineMissed``, ``StateDamaged``."""
    Pump(psql).run(
        _sent(psql, scan, _files(source, manifest, placing, beat)), lambda _: None, stall_seconds=STALL_SECONDS
    )
    found = json.loads(psql.query(_RESULT, seconds=STALL_SECONDS))
    counts = {kind: int(found["counts"].get(kind, 0)) for kind in AssetFiles.__slots__}
    counts["expected"] = counts["present"] + counts["empty"] + counts["missing"]
    del counts["missing_paths"]
    return AssetFiles(missing_paths=tuple(found["named"]), **counts)


def _sent(psql: Psql, scan: Scan, files: Iterator[tuple[bytes, int]]) -> Iterator[bytes]:
    yield _TABLES.encode()
    yield b"COPY files (path, size) FROM stdin;\n"
    for path, size in files:
        yield b"\\\\x%s\t%d\n" % (path.hex().encode(), size)
    yield b"\\.\nCOPY assets (path, kind) FROM stdin;\n"
    yield from _assets(psql, scan)
    yield b"\\.\nCOMMIT;\nANALYZE files, assets;\n"


def _files(
    source: Source, manifest: TemporaryManifest | None, placing: Placing | None, beat: Callable[[], None]
) -> Iterator[tuple[bytes, int]]:
    """Each file under its path on the server, and where else a restore would put it, with its size."""
    for folder in ORIGINALS:
        name = folder.encode()
        for item in contents(source, manifest, Part(name, name), beat):
            if isinstance(item, Item) and item.link is None:
                yield item.shown, item.size
                if placing is not None:
                    yield from ((goal, item.size) for goal in placing.goals(item.shown))


def _assets(psql: Psql, scan: Scan) -> Iterator[bytes]:
    """Each asset with its path from the backup folder on, and what is demanded of it."""
    locations = MediaLocations(told=_media_location(psql, scan), server=_DEFAULT)
    for line in _rows(psql, scan):
        path, _, flags = line.partition(b"|")
        below = locations.below(bytes.fromhex(path.decode()))
        external, trashed = flags.split(b"|")
        if external == b"t" or below is None:
            kind, below = b"external", below or b""
        elif below.startswith(REGENERABLE):
            kind = b"regenerable"
        else:
            kind = b"trashed" if trashed == b"t" else b"expected"
        yield b"\\\\x%s\t%s\n" % (below.hex().encode(), kind)


def _media_location(psql: Psql, scan: Scan) -> bytes:
    if ("public", "system_metadata") not in scan.rows:
        return b""
    sql = "SELECT value->>'location' FROM public.system_metadata WHERE key = 'MediaLocation'"
    return psql.query(sql).strip().encode()


def _rows(psql: Psql, scan: Scan) -> Iterator[bytes]:
    """The path in hex, and two flags, of one asset after the other. Raises ``DatabaseFailed``."""
    flags = "coalesce(to_jsonb(a)->>'isExternal', 'false')::boolean, to_jsonb(a)->>'deletedAt' IS NOT NULL"
    sql = f"""SELECT encode(convert_to("originalPath", 'UTF8'), 'hex'), {flags} FROM public.{quoted(scan.table)} a"""  # noqa: S608
    options = ("--set=FETCH_COUNT=10000", "--field-separator=|", f"--command={sql}")
    command = psql.arguments(*options)
    with subprocess.Popen(
        command, env=psql.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        try:
            yield from (line.rstrip(b"\n") for line in process.stdout)
        except GeneratorExit:  # nobody wants the rest
            process.kill()
            raise
    if process.returncode != 0:
        raise DatabaseFailed("The restored assets cannot be read", hint="Run it again.")
