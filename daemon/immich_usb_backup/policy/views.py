"""Disks and runs as the service tells of them on D-Bus: values out of ``a{sv}``, whatever was in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from immich_usb_backup.model import Outcome, RunReport

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskView:
    """A disk of ``GetDisks``. Times are None where there is none; ``history`` has a letter for each of the newest runs, the
    oldest first; texts may be hostile."""

    uuid: str
    name: str
    label: str = ""
    model: str = ""
    size: int = 0
    device: str = ""
    known: bool = False
    state: str = ""
    eligible: bool = True
    reasons: tuple[str, ...] = ()
    last_run: str = ""
    last_outcome: str = ""
    last_ended: datetime | None = None
    last_good: datetime | None = None
    due: datetime | None = None
    late: bool = False
    restorable: str = ""
    verdict: str = ""
    held_deletions: int = 0
    next_run: datetime | None = None
    trusted: bool = True
    history: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """A run of ``GetHistory``; ``ended`` is None while it goes on. ``body`` and ``todo`` only where they were asked for."""

    run: str
    disk: str = ""
    name: str = ""
    started: datetime | None = None
    ended: datetime | None = None
    outcome: str = ""
    safe_to_unplug: bool = False
    headline: str = ""
    files: int = 0
    bytes: int = 0
    findings: tuple[str, ...] = ()
    mode: str = ""
    trigger: str = ""
    verdict: str = ""
    body: str = ""
    todo: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Going:
    """A run that goes on, from ``GetState`` and ``RunProgress``. ``percent``, ``rate`` (bytes in a second) and
    ``seconds_left`` are None where nothing is known of them."""

    run: str
    disk: str
    uuid: str = ""
    headline: str = ""
    stage: str = ""
    line: str = ""
    done: int = 0
    total: int = 0
    percent: int | None = None
    rate: float | None = None
    seconds_left: float | None = None


def disk_view(values: Values) -> DiskView:
    """From what ``GetDisks`` has of one disk."""
    return DiskView(
        uuid=_text(values, "Uuid"),
        name=_text(values, "Name") or _text(values, "Label") or _text(values, "Uuid"),
        label=_text(values, "Label"),
        model=_text(values, "Model"),
        size=_number(values, "Size"),
        device=_text(values, "Device"),
        known=_truth(values, "Known"),
        state=_text(values, "State"),
        eligible=_truth(values, "Eligible", default=True),
        reasons=_texts(values, "Reasons"),
        last_run=_text(values, "LastRun"),
        last_outcome=_text(values, "LastOutcome"),
        last_ended=_time(values, "LastEnded"),
        last_good=_time(values, "LastGood"),
        due=_time(values, "Due"),
        late=_truth(values, "Late"),
        restorable=_text(values, "Restorable"),
        verdict=_text(values, "Verdict"),
        held_deletions=_number(values, "HeldDeletions"),
        next_run=_time(values, "NextRun"),
        trusted=_truth(values, "Trusted", default=True),
        history=_text(values, "History"),
    )


def run_view(values: Values) -> RunView:
    """From what ``GetHistory``, or the object of a run, has of it."""
    return RunView(
        run=_text(values, "Run"),
        disk=_text(values, "Disk"),
        name=_text(values, "Name"),
        started=_time(values, "Started"),
        ended=_time(values, "Ended"),
        outcome=_text(values, "Outcome"),
        safe_to_unplug=_truth(values, "SafeToUnplug"),
        headline=_text(values, "Headline"),
        files=_number(values, "Files"),
        bytes=_number(values, "Bytes"),
        findings=_texts(values, "Findings"),
        mode=_text(values, "Mode"),
        trigger=_text(values, "Trigger"),
        verdict=_text(values, "Verdict"),
        body=_text(values, "Body"),
        todo=_text(values, "Todo"),
    )


def finished_view(values: Values) -> RunView:
    """From ``RunFinished``."""
    return RunView(
        run=_text(values, "run"),
        disk=_text(values, "uuid"),
        name=_text(values, "disk"),
        outcome=_text(values, "outcome"),
        safe_to_unplug=_truth(values, "safe_to_unplug"),
        headline=_text(values, "headline"),
        body=_text(values, "body"),
        todo=_text(values, "todo"),
    )


def view_of(report: RunReport, headline: str) -> RunView:
    """The same from a report that was read without the service."""
    return RunView(
        run=report.run_id,
        disk=report.disk.uuid,
        name=report.disk.name,
        started=report.started,
        ended=report.ended,
        outcome=report.outcome.value,
        safe_to_unplug=report.safe_to_unplug,
        headline=headline,
        files=sum(stage.files for stage in report.stages),
        bytes=sum(stage.bytes for stage in report.stages),
        findings=tuple(finding.code for finding in report.findings),
        mode=report.mode.value if report.mode else "",
        trigger=report.trigger.value,
    )


def going(values: Values) -> Going | None:
    """From ``GetState``, ``RunStarted`` or ``RunProgress``; None where no run goes on."""
    if not _text(values, "run"):
        return None
    percent, rate, seconds = (_number(values, key, default=-1) for key in ("percent", "rate", "seconds_left"))
    return Going(
        run=_text(values, "run"),
        disk=_text(values, "disk"),
        uuid=_text(values, "uuid"),
        headline=_text(values, "headline"),
        stage=_text(values, "stage"),
        line=_text(values, "line"),
        done=_number(values, "done"),
        total=_number(values, "total"),
        percent=min(100, percent) if percent >= 0 else None,
        rate=rate if rate >= 0 else None,
        seconds_left=seconds if seconds >= 0 else None,
    )


def letter(outcome: str) -> str:
    """How the strip of runs writes an outcome; empty for one that is not known."""
    return outcome[:1] if outcome in set(Outcome) else ""


def _text(values: Values, key: str) -> str:
    value = values.get(key)
    return value if isinstance(value, str) else ""


def _texts(values: Values, key: str) -> tuple[str, ...]:
    value = values.get(key)
    return tuple(str(item) for item in value) if isinstance(value, list | tuple) else ()


def _number(values: Values, key: str, *, default: int = 0) -> int:
    value = values.get(key)
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else default


def _truth(values: Values, key: str, *, default: bool = False) -> bool:
    value = values.get(key)
    return value if isinstance(value, bool) else default


def _time(values: Values, key: str) -> datetime | None:
    """Seconds since 1970; 0, and what is no date, is none."""
    seconds = _number(values, key)
    try:
        return datetime.fromtimestamp(seconds, UTC) if seconds > 0 else None
    except (OverflowError, ValueError, OSError):
        return None
