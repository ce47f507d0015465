"""The list of the originals that Immich knows of, from the dump that lies on the disk."""

from __future__ import annotations

from dataclasses import replace

from immich_usb_backup.errors import DeadlineMissed, DumpUnusable, SourceUnreadable, StateDamaged
from immich_usb_backup.model import Severity
from immich_usb_backup.policy.outcome import finding_of
from immich_usb_backup.policy.text import sentence
from immich_usb_backup.stages.context import Work
from immich_usb_backup.stages.database import FOLDER

_MEANS = "The files are backed up all the same, but nobody can tell whether all photos of this dump are among them"


async def open_assets(work: Work) -> None:
    """Open it, as ``work.assets``, from the server's copy of the dump. Without it the files still go, and the run says so."""
    run = work.run
    dump = run.dump
    proof = work.record.proofs.get(f"{FOLDER}/{dump}")
    if dump is None or proof is None:
        return
    path = run.dump_path or run.config.dumps / dump
    try:
        work.assets = await run.ports.asset_books.open(path, sha256=proof[1], media_location=run.config.media_location)
    except (DumpUnusable, SourceUnreadable, StateDamaged, DeadlineMissed) as error:
        finding = finding_of(error)
        run.note(replace(finding, severity=Severity.PARTIAL, message=sentence(error.message, _MEANS)))
