"""What the copying of a library folder means to the user."""

from __future__ import annotations

from immich_usb_backup.model import Finding, Severity, Stage
from immich_usb_backup.policy.mirror import CopyCheck, MirrorPlan, Tree
from immich_usb_backup.policy.outcome import listing
from immich_usb_backup.policy.text import counted


def of_plan(stage: Stage, source: Tree, on_disk: Tree, plan: MirrorPlan) -> tuple[Finding, ...]:
    """What is known before the copying: names that do not fit, a source that is not whole."""
    found = []
    if plan.doubted:
        found.append(
            Finding(
                code="copied-again",
                severity=Severity.NOTE,
                message=f"{counted(plan.doubted, 'file')} in {stage.value} of a run that was cut off "
                f"{'is' if plan.doubted == 1 else 'are'} copied again, to be sure of the content",
                count=plan.doubted,
            )
        )
    if plan.skipped:
        items, count = listing(plan.skipped)
        found.append(
            Finding(
                code="name-not-storable",
                severity=Severity.PARTIAL,
                message=f"{counted(count, 'file')} in {stage.value} cannot be stored on exFAT and "
                f"{'is' if count == 1 else 'are'} NOT backed up",
                hint="Rename them on the server (in Immich: by the storage template), then plug the disk in again.",
                items=items,
                count=count,
            )
        )
    if source.unreadable:
        items, count = listing(source.unreadable)
        found.append(
            Finding(
                code="source-unreadable",
                severity=Severity.PARTIAL,
                message=f"{counted(count, 'folder or file', 'folders or files')} in {stage.value} could not be read on the server",
                hint="Look at the server's disk and at the permissions, then plug the disk in again.",
                items=items,
                count=count,
            )
        )
    if plan.kept_reason:
        found.append(
            Finding(
                code="deletions-refused",
                severity=Severity.PARTIAL,
                message=f"Nothing was removed from {stage.value} on the disk: {plan.kept_reason}",
                hint="Check that Immich's storage is mounted and that Immich starts, then plug the disk in again.",
            )
        )
    if on_disk.unreadable:
        items, count = listing(on_disk.unreadable)
        found.append(
            Finding(
                code="disk-failing",
                severity=Severity.PARTIAL,
                message=f"{counted(count, 'folder or file', 'folders or files')} in {stage.value} could not be read on the disk",
                hint="Check the disk's file system on a computer (Windows: chkdsk, Linux: sudo fsck.exfat).",
                items=items,
                count=count,
            )
        )
    return tuple(found)


def of_copy(stage: Stage, check: CopyCheck) -> tuple[Finding, ...]:
    """What the copying left undone."""
    found = []
    if check.again:
        items, count = listing(check.again)
        found.append(
            Finding(
                code="files-failed",
                severity=Severity.PARTIAL,
                message=f"{counted(count, 'file')} in {stage.value} could not be copied",
                hint="Plug the disk in again: the next run tries them once more.",
                items=items,
                count=count,
            )
        )
    if check.vanished:
        items, count = listing((path, "") for path in check.vanished)
        found.append(
            Finding(
                code="files-vanished",
                severity=Severity.NOTE,
                message=f"{counted(count, 'file')} in {stage.value} went away while it was copied (Immich moved or deleted them)",
                items=items,
                count=count,
            )
        )
    return tuple(found)


def of_removal(stage: Stage, moved: int, into: str) -> tuple[Finding, ...]:
    """What was moved aside because the source no longer has it."""
    if not moved:
        return ()
    return (
        Finding(
            code="moved-aside",
            severity=Severity.NOTE,
            message=f"{counted(moved, 'file')} that Immich no longer has in {stage.value} went to {into} on the disk",
            count=moved,
        ),
    )
