"""What the copying of a library folder means to the user."""

from __future__ import annotations

from immich_usb_backup.model import Finding, Severity, Stage
from immich_usb_backup.policy.mirror import CopyCheck, MirrorPlan, Tree
from immich_usb_backup.policy.outcome import about_files
from immich_usb_backup.policy.text import counted


def of_plan(stage: Stage, source: Tree, on_disk: Tree, plan: MirrorPlan) -> tuple[Finding, ...]:
    """What is known before the copying: doubt, names that do not fit, a source or a disk that is not whole."""
    found = (
        _doubted(stage, plan),
        _changed(stage, plan),
        _skipped(stage, plan),
        _unreadable_source(stage, source),
        _kept(stage, plan),
        _unreadable_disk(stage, on_disk),
    )
    return tuple(finding for finding in found if finding is not None)


def of_copy(stage: Stage, check: CopyCheck) -> tuple[Finding, ...]:
    """What the copying left undone."""
    return tuple(finding for finding in (_failed(stage, check), _vanished(stage, check)) if finding is not None)


def of_removal(stage: Stage, moved: int, wanted: int, into: str) -> tuple[Finding, ...]:
    """What was moved aside because the source no longer has it, and what could not be."""
    if moved < wanted:
        message = f"{counted(wanted - moved, 'file')} in {stage.value} on the disk could not be moved to {into}"
        hint = "Look at the folder deleted on the disk: does a file stand where a folder must be?"
        return (
            Finding(
                code="not-moved-aside", severity=Severity.PARTIAL, message=message, hint=hint, count=wanted - moved
            ),
        )
    if not moved:
        return ()
    message = f"{counted(moved, 'file')} that Immich no longer has in {stage.value} went to {into} on the disk"
    return (Finding(code="moved-aside", severity=Severity.NOTE, message=message, count=moved),)


def _doubted(stage: Stage, plan: MirrorPlan) -> Finding | None:
    if not plan.doubted:
        return None
    verb = "is" if len(plan.doubted) == 1 else "are"
    message = (
        f"{counted(len(plan.doubted), 'file')} in {stage.value} of a run that was cut off {verb} copied again, "
        "to be sure of the content"
    )
    return Finding(code="copied-again", severity=Severity.NOTE, message=message, count=len(plan.doubted))


def _changed(stage: Stage, plan: MirrorPlan) -> Finding | None:
    if not plan.changed:
        return None
    message = f"{counted(len(plan.changed), 'original')} in {stage.value} changed in size, which Immich never does"
    emptied = f", {plan.emptied:,} of them to nothing" if plan.emptied else ""
    return about_files(
        "originals-changed",
        Severity.PARTIAL if plan.emptied else Severity.NOTE,
        f"{message}{emptied}; the disk's old copies are kept in deleted/",
        ((path, "") for path in plan.changed),
        hint="Look at these files on the server: are they damaged? The old copies are on the disk.",
    )


def _skipped(stage: Stage, plan: MirrorPlan) -> Finding | None:
    if not plan.skipped:
        return None
    count = len(plan.skipped)
    return about_files(
        "name-not-storable",
        Severity.PARTIAL,
        f"{counted(count, 'file')} in {stage.value} cannot be stored on exFAT and "
        f"{'is' if count == 1 else 'are'} NOT backed up",
        plan.skipped,
        hint="Rename them on the server (in Immich: by the storage template), then plug the disk in again.",
    )


def _unreadable_source(stage: Stage, source: Tree) -> Finding | None:
    if not source.unreadable:
        return None
    return about_files(
        "source-unreadable",
        Severity.PARTIAL,
        f"{_places(source)} in {stage.value} could not be read on the server",
        source.unreadable,
        hint="Look at the server's disk and at the permissions, then plug the disk in again.",
    )


def _kept(stage: Stage, plan: MirrorPlan) -> Finding | None:
    if not plan.kept_reason:
        return None
    return Finding(
        code="deletions-refused",
        severity=Severity.PARTIAL,
        message=f"Nothing was removed from {stage.value} on the disk: {plan.kept_reason}",
        hint="Check that Immich's storage is mounted and that Immich starts, then plug the disk in again.",
    )


def _unreadable_disk(stage: Stage, on_disk: Tree) -> Finding | None:
    if not on_disk.unreadable:
        return None
    return about_files(
        "disk-failing",
        Severity.PARTIAL,
        f"{_places(on_disk)} in {stage.value} could not be read on the disk",
        on_disk.unreadable,
        hint="Check the disk's file system on a computer (Windows: chkdsk, Linux: sudo fsck.exfat).",
    )


def _failed(stage: Stage, check: CopyCheck) -> Finding | None:
    if not check.again:
        return None
    return about_files(
        "files-failed",
        Severity.PARTIAL,
        f"{counted(len(check.again), 'file')} in {stage.value} could not be copied",
        check.again,
        hint="Plug the disk in again: the next run tries them once more.",
    )


def _vanished(stage: Stage, check: CopyCheck) -> Finding | None:
    if not check.vanished:
        return None
    return about_files(
        "files-vanished",
        Severity.NOTE,
        f"{counted(len(check.vanished), 'file')} in {stage.value} went away while being copied "
        "(Immich moved or deleted them)",
        ((path, "") for path in check.vanished),
    )


def _places(tree: Tree) -> str:
    return counted(len(tree.unreadable), "folder or file", "folders or files")
