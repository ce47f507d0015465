"""The newest good database dump, proven to its last byte, onto the disk."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace

from immich_usb_backup.errors import SourceUnreadable
from immich_usb_backup.model import Finding, Severity, Stage, StageReport
from immich_usb_backup.policy.dumps import DumpName, newest_first, superfluous
from immich_usb_backup.policy.outcome import about_files, finding_of
from immich_usb_backup.policy.text import moment, size
from immich_usb_backup.stages.context import Work
from immich_usb_backup.stages.proofs import remove, sha256_on_disk, write_proven

FOLDER = "database"


@dataclass(frozen=True, slots=True)
class _Choice:
    """The newest good dump, and the newer ones that are bad, with the reason."""

    good: DumpName | None
    bad: tuple[tuple[str, str], ...] = field(default=())


async def back_up_database(work: Work) -> StageReport:
    """Copy the newest good routine dump. Without one the files still go, and the run says so loudly."""
    run = work.run
    run.show(Stage.DATABASE)
    choice = await _choose(work)
    run.note(*_judge(choice, str(run.config.dumps)))
    if choice.good is None:
        return StageReport(stage=Stage.DATABASE, seconds=0.0, summary="No good database dump was found")
    try:
        report = await _copy(work, choice.good)
    except SourceUnreadable as error:
        run.note(replace(finding_of(error), severity=Severity.PARTIAL))
        return StageReport(stage=Stage.DATABASE, seconds=0.0, summary="The database dump could not be copied")
    run.dump, run.dump_time = choice.good.name, choice.good.time
    if report.files or not work.believed:  # else nothing has come since the last time, and the folder is not read
        await _prune(work, choice.good.name)
    return report


async def _choose(work: Work) -> _Choice:
    source, folder = work.run.ports.source, work.run.config.dumps
    bad: list[tuple[str, str]] = []
    try:
        candidates = newest_first(await source.names(folder))
    except SourceUnreadable as error:
        return _Choice(None, ((str(folder), error.message),))
    for dump in candidates:
        try:
            problem = await source.dump_problem(folder / dump.name)
        except SourceUnreadable as error:
            problem = error.message
        if problem is None:
            return _Choice(dump, tuple(bad))
        bad.append((dump.name, problem))
    return _Choice(None, tuple(bad))


def _judge(choice: _Choice, folder: str) -> tuple[Finding, ...]:
    bad = [(os.fsencode(name), reason) for name, reason in choice.bad]
    if choice.good is None:
        message = f"No good database dump was found in {folder}: the photos alone do not bring Immich back"
        hint = "Switch database dumps on in Immich (Administration, Settings, Backup), run one, and plug the disk in again."
        return (about_files("no-good-dump", Severity.PARTIAL, message, bad, hint=hint),)
    if not bad:
        return ()
    message = f"The newest database dump is damaged; the one of {moment(choice.good.time)} was copied instead"
    hint = "Look at Immich's log and at the room on the server's disk, and make a new dump in Immich."
    return (about_files("newer-dump-bad", Severity.PARTIAL, message, bad, hint=hint),)


async def _copy(work: Work, dump: DumpName) -> StageReport:
    path = work.run.config.dumps / dump.name
    source, clock = work.run.ports.source, work.run.ports.clock
    began = clock.monotonic()
    if await sha256_on_disk(work, FOLDER, dump.name) == await source.sha256(path):
        seconds = clock.monotonic() - began
        text = f"Database dump of {moment(dump.time)}: already on the disk, read back and equal"
        return StageReport(stage=Stage.DATABASE, seconds=seconds, summary=text)
    written = await write_proven(work, FOLDER, dump.name, lambda sink: source.copy_into(path, sink))
    await _prove(work, dump, written.sha256)
    work.run.bytes_copied += written.size
    return StageReport(
        stage=Stage.DATABASE,
        seconds=clock.monotonic() - began,
        files=1,
        bytes=written.size,
        summary=f"Database dump of {moment(dump.time)}: copied and read back ({size(written.size)})",
    )


async def _prove(work: Work, dump: DumpName, copied: str) -> None:
    """The copy must be the file that was judged good, not one that changed in between."""
    if await work.run.ports.source.sha256(work.run.config.dumps / dump.name) != copied:
        await remove(work, FOLDER, dump.name)
        raise SourceUnreadable(
            f"{dump.name} changed while it was copied", hint="Plug the disk in again when Immich's backup job is over."
        )


async def _prune(work: Work, proven: str) -> None:
    """Let go of the oldest dumps, now that a good one is safely there."""
    for name in superfluous(await work.target.names(FOLDER), keep=work.run.config.database.keep, never=proven):
        await remove(work, FOLDER, name)
