"""When a backup that failed is tried again, and what can be done about it now: one line for every channel."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from immich_usb_backup.errors import BackupError
from immich_usb_backup.model import Outcome, RunReport, Severity
from immich_usb_backup.policy.schedule import next_run, shown
from immich_usb_backup.policy.text import moment, sentence

_FIRST = "As things are it would fail again: do that first"


def again_line(report: RunReport) -> str:
    """Empty for a run that brought everything to the disk, or nearly."""
    if report.outcome not in {Outcome.FAILED, Outcome.INTERRUPTED}:
        return ""
    return sentence(_FIRST if _is_stuck(report) else "", *_when(report))


def _is_stuck(report: RunReport) -> bool:
    """Whether something must be put right before another try can help."""
    failed = {finding.code for finding in report.findings if finding.severity is Severity.FAILED}
    return bool(failed & set(_hopeless_codes(BackupError)))


def _hopeless_codes(kind: type[BackupError]) -> Iterator[str]:
    for narrower in kind.__subclasses__():
        if not narrower.retryable:
            yield narrower.code
        yield from _hopeless_codes(narrower)


def _when(report: RunReport) -> Iterator[str]:
    retry = f"sudo immich-usb-backup retry {report.run_id}"
    scheduled = _scheduled(report.schedule, report.ended)
    if report.plugged_in is None:
        yield f"It is tried again when the disk is plugged in again{f', or {scheduled}' if scheduled else ''}"
        yield f"Where it still is plugged in, now: {retry}"
    elif not report.plugged_in:
        yield "It is tried again as soon as the disk is plugged in"
    elif scheduled:
        yield f"It is tried again {scheduled}"
        yield f"Now: {retry}"
    else:
        yield "It is not tried again by itself while the disk stays plugged in: unplug it and plug it in again"
        yield f"Or leave it there, now: {retry}"


def _scheduled(schedule: str, after: datetime) -> str:
    """``by its schedule on 22 November 2026, 03:00``."""
    if not schedule:
        return ""
    when = next_run(schedule, after)
    return f"by its schedule on {moment(when)}" if when is not None else f"by its schedule ({shown(schedule)})"
