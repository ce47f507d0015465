"""The originals from beginning to end: what lies on the disk, what is to be done, the verdicts, and the doing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace

from immich_usb_backup.events import Event
from immich_usb_backup.model import Finding, Mode, Stage, StageReport
from immich_usb_backup.policy import inventory_findings, library_findings
from immich_usb_backup.policy.names import fold
from immich_usb_backup.stages import library, room
from immich_usb_backup.stages.context import Work
from immich_usb_backup.stages.inventory import take_stock
from immich_usb_backup.stages.library import Copying
from immich_usb_backup.stages.planning import Decision, decide
from immich_usb_backup.stages.rearrange import deleted_folder, rearrange
from immich_usb_backup.stages.state import ROOT, begin_writing

PASSES = 2
"""A file that Immich moves while it is to be copied is met in the second."""


async def mirror(work: Work, tell: Callable[[StageReport], None]) -> None:
    """Make the disk's copy equal to the server. ``tell`` is given the report of each folder.

    Raises ``SourceUnreadable``, ``DiskFull``, ``ManifestUnusable`` and what the disk answers.
    """
    await take_stock(work)
    for number in range(PASSES):
        decision = await decide(work)
        vanished = await _carry_out(work, decision, tell, first=number == 0)
        if not vanished:
            break
    await room.purge_old(work)


async def heal(work: Work, suspects: Iterable[bytes], tell: Callable[[StageReport], None]) -> Decision:
    """One more pass after the first one was flushed, for files on the disk (by its paths) that did not read back as they
    were written: both sides are compared, what is wrong on the disk is set aside and copied again. Raises like ``mirror``."""
    work.suspects = frozenset(suspects)
    work.doubtful, work.altered = frozenset(work.unresolved), frozenset()
    try:
        decision = await decide(work, mode=Mode.QUICK)
        await _carry_out(work, decision, tell, first=False)
    finally:
        work.suspects = frozenset()
    return decision


async def _carry_out(work: Work, decision: Decision, tell: Callable[[StageReport], None], *, first: bool) -> bool:
    """One pass. Returns whether files went away under it."""
    run = work.run
    plan, steps = decision.plan, decision.steps
    run.ports.log.say(
        Event.PLAN_MADE, summary=library_findings.plan_line(plan, steps), **library_findings.counts(plan, steps)
    )
    _note_plan(work, decision, first=first)
    work.rotten_on_server.update(steps.suspicious)
    await _hold(work, decision)
    _resolve(work, decision)
    await room.make_room(work, decision)
    left = await rearrange(work, decision)
    work.unsettled = False
    copying = await library.copy_everything(work, decision)
    return _note_results(work, decision, copying, left, tell, first=first)


def _note_plan(work: Work, decision: Decision, *, first: bool) -> None:
    """The verdicts. Of a second pass only those that are new; what it says of contents is of other files."""
    known = {finding.code for finding in work.run.findings} - library_findings.OF_CONTENT
    work.run.note(*[finding for finding in _verdicts(work, decision) if first or finding.code not in known])


def _verdicts(work: Work, decision: Decision) -> list[Finding]:
    run = work.run
    found = [*_of_unfinished(work, decision), *decision.findings]
    found += library_findings.of_plan(decision.plan, decision.steps)
    if decision.held:
        found.append(library_findings.held(run.disk, decision.removals, decision.held, decision.approval))
    else:
        found += library_findings.unmarked(decision.plan, {s.name for s in decision.sources if s.immichs})
    extra = work.manifest.folder(b"extra")
    gone = [os.fsdecode(name) for name in extra.folders if os.fsdecode(name) not in run.config.extra] if extra else []
    return [*found, *([library_findings.not_configured(sorted(gone))] if gone else [])]


def _of_unfinished(work: Work, decision: Decision) -> Iterable[Finding]:
    doubtful = {fold(path) for path in work.doubtful}
    compared = sum(fold(pair.present.stored) in doubtful for pair in decision.plan.compare) if doubtful else 0
    lost = len(decision.steps.discard)
    return inventory_findings.of_unfinished(work.state, work.unfinished, compared=compared, lost=lost)


async def _hold(work: Work, decision: Decision) -> None:
    """Remember what is held, for an approval to refer to; and which folders are mount points, to miss one that is not."""
    await _use_up_approval_files(work, decision)
    if decision.held or work.record.approved or await work.manifest.held():
        await work.manifest.hold(decision.removals if decision.held else ())
        work.record = replace(work.record, approved=False)
        await work.manifest.save(work.record)  # together: an approval never holds for what is held now
    if not decision.held:
        read = {source.name for source in decision.sources}
        others = tuple(name for name in work.record.mount_points if name not in read)
        work.record = replace(work.record, mount_points=(*others, *decision.mount_points))


def _resolve(work: Work, decision: Decision) -> None:
    """What was in doubt has had its turn, unless its folder could not be read, or it is held."""
    if not work.unresolved:
        return
    read = tuple(source.name.encode() + b"/" for source in decision.sources)
    stuck = {path for path, _ in decision.steps.unreadable}
    waiting = {fold(p.stored) for p in decision.plan.deleted} if decision.held else set()
    waiting |= {fold(pair.present.stored) for pair in decision.plan.compare if pair.item.path in stuck}
    work.unresolved = {path for path in work.unresolved if not path.startswith(read) or fold(path) in waiting}


def _note_results(
    work: Work,
    decision: Decision,
    copying: Copying,
    left: tuple[tuple[bytes, str], ...],
    tell: Callable[[StageReport], None],
    *,
    first: bool,
) -> bool:
    failed = [entry for copied in copying.totals.values() for entry in copied.failed]
    vanished = [path for copied in copying.totals.values() for path in copied.vanished]
    work.run.note(*library_findings.of_copy(failed, vanished))
    work.run.note(*library_findings.of_removal(work.aside, left, deleted_folder(work)))
    work.aside = 0
    for report in library.reports(decision, copying):
        if first or report.files or report.stage is Stage.COMPARE:
            tell(report)
    return bool(vanished or copying.moved_on)


async def _use_up_approval_files(work: Work, decision: Decision) -> None:
    """A file that approves is used up before anything is done, whether there was something to approve or not."""
    if not work.approval_files:
        return
    await begin_writing(work)
    for name in work.approval_files:
        await work.target.remove(ROOT, name)
    if not (decision.approval.given or decision.approval.too_big):
        work.run.note(library_findings.unused_approval(work.approval_files))
    work.approval_files = ()
