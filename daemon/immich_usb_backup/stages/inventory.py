"""What lies on the disk: believed where the manifest can be believed, walked where not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from immich_usb_backup.errors import ManifestUnusable
from immich_usb_backup.events import Event
from immich_usb_backup.model import IN_FLIGHT, Finding, RunReport, Severity, Stage
from immich_usb_backup.policy import in_flight, inventory_findings
from immich_usb_backup.policy.manifest import MANIFEST
from immich_usb_backup.policy.reconcile import Walked, reconcile
from immich_usb_backup.stages.context import Work
from immich_usb_backup.stages.state import begin_writing

ROOTS = (b"upload", b"library", b"profile", b"extra")
"""The folders on the disk that hold originals."""

_LOOKED_BACK = 50


async def take_stock(work: Work, *, dry: bool = False) -> None:
    """Make the manifest true to the disk. Where it can be believed, nothing is read. ``dry``: nothing is written."""
    if work.believed:
        return
    run = work.run
    run.show(Stage.PLAN)
    if work.state is not None or work.record.generation:  # else nothing was ever backed up to it
        run.ports.log.say(Event.DISK_WALKED, disk=run.disk.name, reasons="; ".join(work.walk_because))
    if not dry:
        await begin_writing(work)
        await work.target.clear_temporary("")
    await _load(work)
    walked = await run.ports.background(lambda beat: _walk(work, beat), what="Walking the disk")
    work.changed = work.changed or bool(walked.changes)
    await work.manifest.apply(walked.changes)
    work.record = replace(work.record, walked=run.ports.clock.now(), fingerprint=None)
    work.altered = frozenset(walked.altered)
    await _find_doubt(work)
    work.unfinished = await _unfinished(work)
    work.unsettled = bool(work.doubtful)
    run.note(*inventory_findings.of_walk(walked))


async def _load(work: Work) -> None:
    """The disk's own manifest, where the server does not know this generation. Raises ``ManifestUnusable`` for one of a
    newer version."""
    if work.generation and work.generation == work.record.generation:
        proof = work.record.proofs.get(MANIFEST)
        work.changed = proof is None or await work.target.sha256(".", MANIFEST) != proof[1]
        return
    work.changed = True
    try:
        await work.target.consume(".", MANIFEST, work.manifest.read)
    except ManifestUnusable as error:
        if error.newer:
            raise
        work.run.note(Finding(code=error.code, severity=Severity.NOTE, message=error.message))


def _walk(work: Work, beat: Callable[[], None]) -> Walked:
    found = Walked()
    for root in ROOTS:
        found.add(reconcile(root, work.target.walk(root, beat), work.manifest.stored_folder))
    return found


async def _find_doubt(work: Work) -> None:
    """The files that a run was writing when it was cut off; all of them where its list is not whole."""
    target = work.target
    found: set[bytes] = set()
    for name in in_flight.lists(await target.names(IN_FLIGHT)):
        work.in_flight = True
        listed = in_flight.decode(await target.read(IN_FLIGHT, name) or b"")
        found |= await asyncio.to_thread(_everything, work) if listed is None else listed
    work.doubtful = frozenset(found)
    work.unresolved = set(found)


def _everything(work: Work) -> set[bytes]:
    found: set[bytes] = set()
    waiting = list(ROOTS)
    while waiting:
        folder = work.manifest.stored_folder(waiting.pop())
        if folder is None:
            continue
        found |= {folder.stored_path + b"/" + k.stored for k in folder.files.values() if k.link is None}
        waiting += [folder.stored_path + b"/" + stored for stored in folder.folders.values()]
    return found


async def _unfinished(work: Work) -> RunReport | None:
    """The run that left the disk unfinished, as the history has it."""
    if work.state is None or not work.state.writing:
        return None
    runs = await work.run.ports.history.runs(_LOOKED_BACK)
    return next((run for run in runs if run.run_id == work.state.run_id), None)
