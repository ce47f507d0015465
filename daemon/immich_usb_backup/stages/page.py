"""The page and the readme on the disk, for whoever holds it in their hands. Written last, when all else is known."""

from __future__ import annotations

import hashlib
import os

from immich_usb_backup.errors import DeadlineMissed, DiskFull, StateDamaged
from immich_usb_backup.model import Finding, RunReport, Severity
from immich_usb_backup.policy.dumps import DumpName, newest_first
from immich_usb_backup.policy.outcome import conclude
from immich_usb_backup.policy.page import PAGE, page, past_runs
from immich_usb_backup.policy.page_facts import PageFacts, PastRun, ProvenFile, in_order
from immich_usb_backup.policy.readme_text import README, readme
from immich_usb_backup.ports import Sink
from immich_usb_backup.stages import config_files, database
from immich_usb_backup.stages.context import Work
from immich_usb_backup.stages.proofs import sha256_on_disk, write_proven
from immich_usb_backup.stages.state import ROOT

_RUNS_LOOKED_AT = 100


async def write_page(work: Work) -> None:
    """Bring both up to date. Every run writes the page, also one that had nothing to copy: it tells when the last backup
    was and what that found, and would else be wrong. Raises what the disk answers; a full one is only a note."""
    if work.copied:  # it must not tell of what has not reached the medium
        await work.target.flush(work.run.show_flush)
        work.copied = False
    content = page(await _facts(work)).encode()
    try:
        await _write(work, README, readme())
        await _write(work, PAGE, content)
    except DiskFull:
        work.run.note(_NO_ROOM)


_NO_ROOM = Finding(
    code="page-not-written",
    severity=Severity.NOTE,
    message=f"There was no room on the disk for {PAGE}: the page that lies there, if any, tells of an earlier backup",
    hint="Make room on the disk, or use a larger one.",
)


async def _write(work: Work, name: str, content: bytes) -> None:
    if await sha256_on_disk(work, ROOT, name) == hashlib.sha256(content).hexdigest():
        return

    def produce(sink: Sink) -> None:
        sink.write(content)

    await write_proven(work, ROOT, name, produce)


async def _facts(work: Work) -> PageFacts:
    run, now, outcome = work.run, work.run.ports.clock.now(), conclude(work.run.findings)
    dump = await _dump(work)
    files, taken = await work.manifest.totals()
    return PageFacts(
        disk=run.disk.name,
        server=run.ports.server,
        written=now,
        outcome=outcome,
        findings=tuple(run.findings),
        copied_files=sum(stage.files for stage in run.stages),
        copied_bytes=sum(stage.bytes for stage in run.stages),
        files=files,
        bytes=taken,
        size=run.disk.size,
        free=run.free_bytes if run.free_bytes is not None else await work.target.free_bytes(),
        dump=dump.name if dump else "",
        dump_time=dump.time if dump else None,
        cluster=work.assets.facts.cluster if work.assets else None,
        verdict=run.verdict,
        runs=past_runs(await _runs(work), uuid=run.disk.uuid, this=PastRun(now, outcome)),
        proofs=in_order(await _proofs(work)),
        folders=_folders(work, b""),
        extra=_folders(work, b"extra"),
        private=_private(work),
    )


async def _dump(work: Work) -> DumpName | None:
    """The dump that a restore from this disk would take: this run's, else the newest that lies there."""
    run = work.run
    if run.dump and run.dump_time:
        return DumpName(run.dump_time, run.dump)
    return next(iter(newest_first(await work.target.names(database.FOLDER))), None)


async def _runs(work: Work) -> tuple[RunReport, ...]:
    """Without a history the page has no more to tell than this run."""
    try:
        return await work.run.ports.history.runs(_RUNS_LOOKED_AT)
    except (StateDamaged, DeadlineMissed):
        return ()


async def _proofs(work: Work) -> list[ProvenFile]:
    found: list[ProvenFile] = []
    for folder in (database.FOLDER, config_files.FOLDER):
        known = {path: proof for path, proof in work.record.proofs.items() if path.startswith(f"{folder}/")}
        names = [os.fsencode(path.partition("/")[2]) for path in known]
        if work.believed and all(size for size, _ in known.values()):
            found += [ProvenFile(path, *proof) for path, proof in known.items()]
            continue
        there = await work.target.facts(folder, names)
        sizes = {f"{folder}/{os.fsdecode(name)}": fact.size for name, fact in there.items()}
        found += [ProvenFile(path, sizes[path], sha256) for path, (_, sha256) in known.items() if path in sizes]
    return found


def _folders(work: Work, path: bytes) -> tuple[str, ...]:
    known = work.manifest.folder(path)
    return tuple(sorted(os.fsdecode(name) for name in known.folders)) if known else ()


def _private(work: Work) -> tuple[str, ...]:
    config = work.run.config
    return tuple(map(str, (config.media_location, config.dumps, *config.config_files, *config.extra.values())))
