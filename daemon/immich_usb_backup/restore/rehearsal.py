"""A rehearsal of the way back: the newest dump into a PostgreSQL that is thrown away, its assets against the backup's files.

The same code as a restore's reads the dump and sends it. Everything blocks, and nothing is left behind.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TypeVar

from immich_usb_backup.adapters.manifest_temporary import TemporaryManifest
from immich_usb_backup.adapters.placing import Placing
from immich_usb_backup.adapters.threads import Pulse, in_thread
from immich_usb_backup.errors import DumpUnusable, ManifestUnusable, SourceUnreadable, StateDamaged
from immich_usb_backup.policy.database_restore_rehearsal import AssetFiles, Rehearsal
from immich_usb_backup.restore import dumps
from immich_usb_backup.restore.database import DatabasePlan, DatabaseResult, check_target, restore_database
from immich_usb_backup.restore.placing import look
from immich_usb_backup.restore.rehearsal_cluster import cluster
from immich_usb_backup.restore.rehearsal_container import container
from immich_usb_backup.restore.rehearsal_files import hold_against
from immich_usb_backup.restore.source import Source

T = TypeVar("T")

_DEFAULT = Path("/data")
"""Where a dump does not tell the media location, any path of Immich's images and of NixOS is understood."""


def rehearse(place: Path, *, dump: str = "", image: str = "", say: Callable[[str], None]) -> Rehearsal:
    """``place`` is a mount point, or a backup folder or a copy of one; ``dump`` a name in its ``database/`` (else the newest that is
    whole); ``image`` a container's instead of this machine's PostgreSQL. Raises ``NoBackupHere``, ``BackupUnreadable``, and
    what ``check_target`` and ``restore_database`` raise."""
    began = time.monotonic()
    with ExitStack() as stack:
        source = Source(place)
        stack.callback(source.close)
        say(f"Looking for a dump in {source.folder}")
        chosen = _watched(lambda pulse: dumps.choose(source, dump, pulse.beat))
        if not chosen.name:
            raise DumpUnusable("There is no database dump in the backup that is whole: nothing can be restored from it")
        manifest, problem = _manifest(source)
        if manifest is not None:
            stack.callback(manifest.close)
        say("Making a temporary PostgreSQL")
        target = stack.enter_context(container(image) if image else cluster())
        plan = check_target(source.folder / dumps.FOLDER / chosen.name, target, rehearsal=True)
        restoring = time.monotonic()
        result = restore_database(plan, say)
        restored = time.monotonic()
        say("Looking for the files of the assets")
        placing = _placing(source, manifest, chosen)
        if placing is not None:
            stack.callback(placing.close)
        files = hold_against(plan.psql, plan.scan, source, manifest, placing, _no_beat)
        return _report(plan, result, files, chosen, problem, (began, restoring, restored))


def _watched(work: Callable[[Pulse], T]) -> T:
    """Read from the disk, with a deadline: one that is dying may never answer. Raises ``DeadlineMissed``."""
    return asyncio.run(in_thread(work, what="Reading the backup"))


def _no_beat() -> None:
    """The database's own deadline watches over it."""


def _manifest(source: Source) -> tuple[TemporaryManifest | None, str]:
    """The manifest, and why it cannot be used."""
    try:
        manifest = _watched(lambda pulse: source.manifest(pulse.beat))
    except ManifestUnusable as error:
        return None, error.message
    return manifest, "" if manifest else "there is none"


def _placing(source: Source, manifest: TemporaryManifest | None, chosen: dumps.Chosen) -> Placing | None:
    """Where a restore would put photos that Immich moved after the dump; None where that cannot be told."""
    if manifest is None:
        return None
    with suppress(DumpUnusable, SourceUnreadable, StateDamaged):
        return _watched(lambda pulse: look(source, manifest, chosen, _DEFAULT, pulse.beat))
    return None


def _report(
    plan: DatabasePlan,
    result: DatabaseResult,
    files: AssetFiles,
    chosen: dumps.Chosen,
    problem: str,
    times: tuple[float, float, float],
) -> Rehearsal:
    """``times``: when it all began, when the restore did, and when that was over."""
    began, restoring, restored = times
    return Rehearsal(
        dump=chosen.name,
        immich=plan.immich,
        dumped_from=plan.scan.server_version,
        postgres=plan.server.version,
        rows={f"{schema}.{table}": count for (schema, table), count in result.rows.items()},
        assets=plan.scan.assets,
        absent=plan.absent,
        left_out=result.left_out,
        passed_over=chosen.passed_over,
        manifest_problem=problem,
        files=files,
        restore_seconds=restored - restoring,
        seconds=time.monotonic() - began,
    )
