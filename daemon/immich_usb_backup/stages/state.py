"""Opening and closing a disk's books: whose backup it is, whether the last run was over, and that this one is."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import datetime

from immich_usb_backup.errors import ForeignBackup, ManifestUnusable
from immich_usb_backup.model import IN_FLIGHT
from immich_usb_backup.policy import disk_state
from immich_usb_backup.policy.deletions import approval_files
from immich_usb_backup.policy.disk_state import STATE, DiskState
from immich_usb_backup.policy.manifest import MANIFEST, ManifestHeader
from immich_usb_backup.policy.text import moment, printable
from immich_usb_backup.policy.trust import reasons_to_walk
from immich_usb_backup.ports import Manifest, Sink, Target
from immich_usb_backup.stages.context import RunContext, Work

ROOT = "."
"""The backup folder itself, as ``Target`` names it."""


async def open_disk(run: RunContext, target: Target, manifest: Manifest, *, unclean: bool = False) -> Work:
    """Read what the disk says of itself, before anything is written to it. Raises ``ForeignBackup``, and
    ``ManifestUnusable`` where a newer version wrote it."""
    ports = run.ports
    server_id = await ports.manifests.server_id()
    content = await target.read(ROOT, STATE)
    state = disk_state.decode(content) if content is not None else None
    record = await manifest.record()
    owner = await _owner(target, manifest, state)
    if owner is not None and owner.server_id != server_id and not record.adopt:
        raise _foreign(run, owner)
    fingerprint = await target.fingerprint()
    why = reasons_to_walk(
        state=state,
        record=record,
        fingerprint=fingerprint,
        mode=run.mode,
        now=ports.clock.now(),
        walk_after_days=run.config.disks.walk_after_days,
        unclean=unclean,
    )
    return Work(
        run=run,
        target=target,
        manifest=manifest,
        server_id=server_id,
        state=state,
        generation=state.generation if state else "",
        record=record,
        walk_because=why,
        unsettled=bool(why),
        approval_files=approval_files(name for name, is_folder, _, _ in fingerprint.entries if not is_folder),
    )


@dataclass(frozen=True, slots=True)
class _Owner:
    """Whose backup a disk carries, and since when."""

    server_id: str
    name: str
    since: datetime


async def _owner(target: Target, manifest: Manifest, state: DiskState | None) -> _Owner | None:
    """By the state file, and where that is lost by the manifest. None for a disk that nobody has written to."""
    if state is not None:
        return _Owner(state.server_id, state.server_name, state.since)
    try:
        header = await target.consume(ROOT, MANIFEST, manifest.peek)
    except ManifestUnusable as error:
        if error.newer:
            raise
        return None  # damaged: the run says so when it needs it
    return None if header is None else _Owner(header.server_id, header.server_name, header.written)


def _foreign(run: RunContext, owner: _Owner) -> ForeignBackup:
    name = printable(owner.name) or "another server"
    return ForeignBackup(
        f"This disk carries the backup of another server, '{name}', last written {moment(owner.since)}: "
        "nothing was written to it",
        hint=f"If this server is to use it from now on, run: sudo immich-usb-backup adopt {run.disk.uuid}",
    )


async def begin_writing(work: Work) -> None:
    """Have the disk say that a run is under way. Called before the first write; again it does nothing."""
    if work.writing:
        return
    work.writing = True
    await _write_state(work, writing=True)


async def _write_state(work: Work, *, writing: bool) -> DiskState:
    run = work.run
    state = DiskState(
        server_id=work.server_id,
        server_name=run.ports.server,
        generation=work.generation,
        run_id=run.run_id,
        since=run.ports.clock.now(),
        writing=writing,
    )
    content = disk_state.encode(state)
    await work.target.write(ROOT, STATE, lambda sink: _put(sink, content))
    return state


def _put(sink: Sink, content: bytes) -> None:
    sink.write(content)


async def write_manifest(work: Work) -> None:
    """Bring the disk's copy of the manifest up to date, under a new generation, where anything has changed."""
    if not work.changed and work.generation and work.generation == work.record.generation:
        return
    await begin_writing(work)
    run = work.run
    header = ManifestHeader(
        generation=secrets.token_hex(8),
        server_id=work.server_id,
        server_name=run.ports.server,
        run_id=run.run_id,
        written=run.ports.clock.now(),
    )
    written = await work.target.write(ROOT, MANIFEST, lambda sink: work.manifest.write(header, sink))
    work.generation = header.generation
    proofs = {**work.record.proofs, MANIFEST: (written.size, written.sha256)}
    work.record = replace(work.record, generation=header.generation, proofs=proofs)
    work.changed = False


async def close_disk(work: Work) -> None:
    """Say on the disk that the run is over. Everything has been flushed before, and the caller flushes once more."""
    if work.state is None or work.state.writing or work.in_flight:
        await begin_writing(work)
    if not work.writing:
        return
    if work.in_flight and not work.unresolved:
        await work.target.clear(IN_FLIGHT)
        work.in_flight = False
    work.state = await _write_state(work, writing=bool(work.unresolved))
    await work.target.clear_temporary("")


async def remember(work: Work) -> None:
    """Make what the server knows of the disk durable. After the last flush, before the unmount. What is written after this
    has the disk say again that a run is under way."""
    work.record = replace(work.record, adopt=False, fingerprint=await work.target.fingerprint())
    await work.manifest.save(work.record)
    await work.manifest.commit()
    work.writing = False
