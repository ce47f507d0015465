"""From what a run noticed to how it ended."""

from __future__ import annotations

from collections.abc import Iterable

from immich_usb_backup.errors import BackupError, DiskGone, Interrupted
from immich_usb_backup.model import Finding, Outcome, Severity
from immich_usb_backup.policy.text import printable, sentence

ITEMS_KEPT = 200
"""How many file names a finding carries; ``count`` has them all."""

_AGAIN = "It may well succeed when the disk is plugged in again"

_ORDER = (
    (Severity.INTERRUPTED, Outcome.INTERRUPTED),
    (Severity.FAILED, Outcome.FAILED),
    (Severity.PARTIAL, Outcome.PARTIAL),
)


def conclude(findings: Iterable[Finding]) -> Outcome:
    """The outcome: the worst finding decides; only a run with nothing but notes is ``ok``."""
    severities = {finding.severity for finding in findings}
    return next((outcome for severity, outcome in _ORDER if severity in severities), Outcome.OK)


def finding_of(error: BackupError) -> Finding:
    """The finding that an error which ended a run becomes."""
    stopped = isinstance(error, DiskGone | Interrupted)
    return Finding(
        code=error.code,
        severity=Severity.INTERRUPTED if stopped else Severity.FAILED,
        message=error.message,
        hint=sentence(error.hint, _AGAIN if error.retryable and "again" not in error.hint else ""),
    )


def listing(paths: Iterable[tuple[bytes, str]]) -> tuple[tuple[str, ...], int]:
    """File names with their reasons, harmless and bounded, and how many there are in all."""
    everything = [f"{printable(path)}: {reason}" if reason else printable(path) for path, reason in paths]
    return tuple(everything[:ITEMS_KEPT]), len(everything)


def about_files(
    code: str, severity: Severity, message: str, entries: Iterable[tuple[bytes, str]], *, hint: str = ""
) -> Finding:
    """A finding that names the files that it is about."""
    items, count = listing(entries)
    return Finding(code=code, severity=severity, message=message, hint=hint, items=items, count=count)
