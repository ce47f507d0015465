"""The newest good database dump, proven to its last byte, onto the disk."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import datetime

from immich_usb_backup.errors import FreshDumpFailed, SourceUnreadable
from immich_usb_backup.model import Finding, Severity, Stage, StageReport
from immich_usb_backup.policy.dumps import superfluous, too_old
from immich_usb_backup.policy.outcome import about_files, finding_of
from immich_usb_backup.policy.text import counted, moment, size
from immich_usb_backup.stages.context import Work
from immich_usb_backup.stages.dump_choice import Choice, ServerDump, choose
from immich_usb_backup.stages.proofs import remove, sha256_on_disk, write_proven

FOLDER = "database"


async def back_up_database(work: Work) -> StageReport:
    """Copy a dump that is made now, or the newest good one. Without any the files still go, and the run says so loudly."""
    run = work.run
    run.show(Stage.DATABASE)
    choice = await choose(run)
    run.note(*_judge(choice, str(run.config.dumps)))
    if choice.good is None:
        return StageReport(stage=Stage.DATABASE, seconds=0.0, summary="No good database dump was found")
    run.note(*_age(choice.good, run.started, hours=run.config.database.warn_after_hours))
    try:
        report = await _copy(work, choice.good)
    except SourceUnreadable as error:
        run.note(replace(finding_of(error), severity=Severity.PARTIAL))
        return StageReport(stage=Stage.DATABASE, seconds=0.0, summary="The database dump could not be copied")
    run.dump, run.dump_time, run.dump_path = choice.good.dump.name, choice.good.time, choice.good.path
    if report.files or not work.believed:  # else nothing has come since the last time, and the folder is not read
        await _prune(work, choice.good.dump.name)
    return report


def _judge(choice: Choice, folder: str) -> tuple[Finding, ...]:
    findings = [] if choice.not_made is None else [_not_made(choice.not_made, choice.good)]
    bad = [(os.fsencode(name), reason) for name, reason in choice.bad]
    if choice.good is None:
        bad += [(os.fsencode(name), reason) for name, reason in choice.unreadable]
        message = f"No good database dump was found in {folder}: the photos alone do not bring Immich back"
        hint = "Switch database dumps on in Immich (Administration, Settings, Backup), run one, and plug the disk in again."
        findings.append(about_files("no-good-dump", Severity.PARTIAL, message, bad, hint=hint))
    elif bad:
        message = f"The newest database dump is damaged; the one of {moment(choice.good.time)} was copied instead"
        hint = "Look at Immich's log and at the room on the server's disk, and make a new dump in Immich."
        findings.append(about_files("newer-dump-bad", Severity.PARTIAL, message, bad, hint=hint))
    return tuple(findings)


def _not_made(reason: str, instead: ServerDump | None) -> Finding:
    """Partial: what was asked for is a database of now."""
    older = f"; the one of {moment(instead.time)} is used instead" if instead else ""
    error = FreshDumpFailed(f"No fresh database dump could be made ({reason.rstrip('.')}){older}")
    return replace(finding_of(error), severity=Severity.PARTIAL)


def _age(dump: ServerDump, now: datetime, *, hours: int) -> tuple[Finding, ...]:
    if not too_old(dump.time, now, hours=hours):
        return ()
    age = counted((now - dump.time).days, "day") if (now - dump.time).days > 1 else f"more than {hours} hours"
    message = (
        f"The newest database dump is {age} old (of {moment(dump.time)}): what changed in Immich since then "
        "is not in it, and photos that came since are on the disk as files only"
    )
    hint = (
        "See in Immich whether its dumps are still made (Administration, Settings, Backup; Job Queues), or have a fresh one "
        "made for each backup: docs/how-to/fresh-dumps.md."
    )
    return (Finding(code="dump-old", severity=Severity.PARTIAL, message=message, hint=hint),)


async def _copy(work: Work, dump: ServerDump) -> StageReport:
    source, clock = work.run.ports.source, work.run.ports.clock
    began, name = clock.monotonic(), dump.dump.name
    words = f"Database dump of {moment(dump.time)}{', made for this backup' if dump.fresh else ''}"
    if await sha256_on_disk(work, FOLDER, name) == await source.sha256(dump.path):
        text = f"{words}: already on the disk, read back and equal"
        return StageReport(stage=Stage.DATABASE, seconds=clock.monotonic() - began, summary=text)
    written = await write_proven(work, FOLDER, name, lambda sink: source.copy_into(dump.path, sink))
    await _prove(work, dump, written.sha256)
    work.run.bytes_copied += written.size
    return StageReport(
        stage=Stage.DATABASE,
        seconds=clock.monotonic() - began,
        files=1,
        bytes=written.size,
        summary=f"{words}: copied and read back ({size(written.size)})",
    )


async def _prove(work: Work, dump: ServerDump, copied: str) -> None:
    """The copy must be the file that was judged good, not one that changed in between."""
    if await work.run.ports.source.sha256(dump.path) != copied:
        await remove(work, FOLDER, dump.dump.name)
        raise SourceUnreadable(
            f"{dump.dump.name} changed while it was copied",
            hint="Plug the disk in again when Immich's backup job is over.",
        )


async def _prune(work: Work, proven: str) -> None:
    """Let go of the oldest dumps, now that a good one is safely there."""
    for name in superfluous(await work.target.names(FOLDER), keep=work.run.config.database.keep, never=proven):
        await remove(work, FOLDER, name)
