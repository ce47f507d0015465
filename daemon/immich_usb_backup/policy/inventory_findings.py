"""What a walk over the disk means to the user."""

from __future__ import annotations

from collections.abc import Iterable

from immich_usb_backup.model import Finding, RunReport, Severity
from immich_usb_backup.policy.disk_state import DiskState
from immich_usb_backup.policy.outcome import about_files
from immich_usb_backup.policy.reconcile import Walked
from immich_usb_backup.policy.text import counted, moment


def of_walk(walked: Walked) -> tuple[Finding, ...]:
    """What was found that the manifest did not say."""
    found = (_missing(walked), _altered(walked), _unreadable(walked))
    return tuple(finding for finding in found if finding is not None)


def of_unfinished(state: DiskState | None, run: RunReport | None, *, compared: int, lost: int) -> tuple[Finding, ...]:
    """What the last run left undone: ``state`` is what the disk says, ``run`` what the history knows of it."""
    if state is None or not state.writing:
        return ()
    pulled = run is not None and any(finding.code == "disk-gone" for finding in run.findings)
    when = f"The disk was unplugged too early {moment(run.ended)}" if run and pulled else _left(state)
    again = f": {counted(compared, 'file')} checked again, {_lost(lost)}" if compared else ": nothing lost"
    return (Finding(code="last-run-unfinished", severity=Severity.NOTE, message=f"{when}{again}", count=compared),)


def _lost(number: int) -> str:
    if not number:
        return "nothing lost"
    return f"{number:,} of them {'was' if number == 1 else 'were'} not whole and {'is' if number == 1 else 'are'} copied again"


def _left(state: DiskState) -> str:
    return f"The last backup to this disk, of {moment(state.since)}, was not finished"


def _missing(walked: Walked) -> Finding | None:
    if not walked.missing:
        return None
    return _files(
        "files-missing",
        walked.missing,
        f"{counted(len(walked.missing), 'file')} of the backup had gone from the disk and {_verb(walked.missing)} copied again "
        "where the server still has them",
    )


def _altered(walked: Walked) -> Finding | None:
    if not walked.altered:
        return None
    return _files(
        "files-altered",
        walked.altered,
        f"{counted(len(walked.altered), 'file')} of the backup had been changed on the disk and {_verb(walked.altered)} "
        "compared with the server's",
    )


def _verb(files: list[bytes]) -> str:
    return "is" if len(files) == 1 else "are"


def _files(code: str, paths: Iterable[bytes], message: str) -> Finding:
    return about_files(code, Severity.NOTE, message, ((path, "") for path in paths))


def _unreadable(walked: Walked) -> Finding | None:
    if not walked.unreadable:
        return None
    return about_files(
        "disk-failing",
        Severity.PARTIAL,
        f"{counted(len(walked.unreadable), 'folder or file', 'folders or files')} could not be read on the disk",
        walked.unreadable,
        hint="Check the disk's file system on a computer (Windows: chkdsk, Linux: sudo fsck.exfat).",
    )
