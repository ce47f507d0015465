"""What in a disk's verdict a person must be told, and how loudly.

What the next plug-in may mend is said each time. A fact that lasts is said loudly once for each disk, and stands in the
notes from then on: a warning that always comes is no warning. ``before`` is the last report on the same disk that has a
verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Set

from immich_usb_backup.model import DiskVerdict, Finding, RunReport, Severity
from immich_usb_backup.policy.external import Coverage, Names
from immich_usb_backup.policy.outcome import about_files
from immich_usb_backup.policy.text import counted
from immich_usb_backup.policy.verdict import Tally

GONE, LOST, EXTERNAL = "photos-gone", "photos-lost", "external-not-covered"

_LOST_HINT = "Look for them on your other disks and in the folder deleted on this one. What Immich cannot show any more, delete there."
_EXTERNAL_HINT = "They belong into the extra folders of the configuration. Does the server still have them?"
_LINES_HINT = "Put the lines into the configuration, or leave it at that: this is said loudly only once."
_CONTAINER_HINT = (
    "Put the lines into the configuration, each with the server's folder in the place of the container's: in "
    "docker-compose.yml, under volumes, it stands before the colon. Or leave it at that: this is said "
    "loudly only once."
)


def of_rotten(rotten: Set[bytes]) -> tuple[Finding, ...]:
    """Files that are damaged on the disk, and stayed so."""
    if not rotten:
        return ()
    message = f"{counted(len(rotten), 'file')} {_are(len(rotten))} damaged on the disk and could not be mended"
    hint = (
        "The disk may be failing: back up to another one, and look at these files in Immich while the server has them."
    )
    return (
        about_files("rotten-on-disk", Severity.PARTIAL, message, ((path, "") for path in sorted(rotten)), hint=hint),
    )


def of_verdict(
    tally: Tally, outside: Coverage, verdict: DiskVerdict, before: RunReport | None, *, container: bool
) -> tuple[Finding, ...]:
    """All findings. ``container``: Immich sees its files under other paths than the server."""
    return (
        *of_rotten(tally.rotten),
        *_absent(tally.absent),
        *_gone(tally.gone, verdict, before),
        *_external(outside, before, container=container),
        *_changed(tally.changed, before),
    )


def _absent(absent: Names) -> Iterator[Finding]:
    if not absent.count:
        return
    message = (
        f"{counted(absent.count, 'photo')} of the database dump {_are(absent.count)} not on the disk, though the server has "
        f"{'it' if absent.count == 1 else 'them'}"
    )
    hint = "Plug the disk in again. If this comes back, look for the reason in the other lines of this message."
    yield Finding(
        code="photos-missing",
        severity=Severity.PARTIAL,
        message=message,
        hint=hint,
        items=tuple(absent.items),
        count=absent.count,
    )


def _gone(gone: Names, verdict: DiskVerdict, before: RunReport | None) -> Iterator[Finding]:
    """The first time they may have been deleted since the dump was made; where a later dump still has them, they are lost."""
    told = _items(before, LOST)
    known = told | _items(before, GONE) if _of_another_dump(before, verdict) else told
    lost = tuple(item for item in gone.items if item in known)
    number = gone.count if len(lost) == len(gone.items) else len(lost)
    if number:
        severity = Severity.NOTE if told.issuperset(lost) else Severity.PARTIAL
        message = (
            f"{counted(number, 'photo')} that Immich's database still {'has' if number == 1 else 'have'} {_are(number)} "
            "neither on the server nor on this disk"
        )
        yield Finding(code="photos-lost", severity=severity, message=message, hint=_LOST_HINT, items=lost, count=number)
    if rest := gone.count - number:
        message = (
            f"{counted(rest, 'photo')} of the database dump {_are(rest)} neither on the server nor on the disk: deleted in "
            "Immich after the dump was made, or lost. The next dump tells"
        )
        items = tuple(item for item in gone.items if item not in known)
        yield Finding(code="photos-gone", severity=Severity.NOTE, message=message, items=items, count=rest)


def _of_another_dump(before: RunReport | None, verdict: DiskVerdict) -> bool:
    return before is not None and before.verdict is not None and before.verdict.dump != verdict.dump


def _external(outside: Coverage, before: RunReport | None, *, container: bool) -> Iterator[Finding]:
    if not (number := outside.missing.count):
        return
    lines = before.verdict.extra_folders if before is not None and before.verdict is not None else ()
    told = EXTERNAL in _codes(before) and set(lines) >= set(outside.lines)
    severity = Severity.NOTE if told else Severity.PARTIAL
    message = f"{counted(number, 'photo')} of external libraries {_are(number)} not on the disk"
    hint, items, count = _EXTERNAL_HINT, tuple(outside.missing.items), number
    if outside.lines:  # else they belong into folders that are configured
        message += "; to have them backed up, put before the first [section] of the configuration"
        hint, items, count = _CONTAINER_HINT if container else _LINES_HINT, outside.lines, len(outside.lines)
    yield Finding(code="external-not-covered", severity=severity, message=message, hint=hint, items=items, count=count)


def _changed(changed: Names, before: RunReport | None) -> Iterator[Finding]:
    """Said only when there are more than last time; the number is in every verdict."""
    known = before.verdict.changed if before is not None and before.verdict is not None else 0
    if changed.count <= known:
        return
    message = (
        f"{counted(changed.count, 'photo')} {'does' if changed.count == 1 else 'do'} not have the content that was uploaded to "
        "Immich: another program changed it on the server, or it was damaged there before it came onto the disk"
    )
    yield Finding(
        code="changed-after-upload",
        severity=Severity.NOTE,
        message=message,
        items=tuple(changed.items),
        count=changed.count,
    )


def _codes(report: RunReport | None) -> set[str]:
    return {finding.code for finding in report.findings} if report is not None else set()


def _items(report: RunReport | None, code: str) -> set[str]:
    findings = report.findings if report is not None else ()
    return {item for finding in findings if finding.code == code for item in finding.items}


def _are(number: int) -> str:
    return "is" if number == 1 else "are"
