"""Disks and runs as the service tells of them, for the commands that show them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from immich_usb_backup.messages import headline
from immich_usb_backup.model import (
    DiskVerdict,
    Finding,
    Mode,
    Outcome,
    Restorable,
    RunReport,
    Severity,
    Stage,
    StageReport,
    Trigger,
)
from immich_usb_backup.policy.views import DiskView, Going, RunView, view_of
from tests.support.telling import make_report

NOW = datetime(2026, 11, 21, 15, tzinfo=UTC)
_VERDICT = (
    "41,203 of 41,203 photos in the dump of 18 November 2026, 02:00 are on 'Blue'; all re-read since 3 March 2026."
)


def disk(name: str = "Blue", *, days: float | None = 3, **changes: Any) -> DiskView:
    """A disk whose last good backup is so many days old, and whose due age is 30 days."""
    good = None if days is None else NOW - timedelta(days=days)
    view = DiskView(
        uuid=f"{len(name):04}-ABCD",
        name=name,
        label=name.upper(),
        model="Portable SSD",
        size=2_000_398_934_016,
        known=True,
        state="absent",
        last_run="20261118T140211Z-1",
        last_outcome="ok" if good else "failed",
        last_ended=good or NOW - timedelta(hours=5),
        last_good=good,
        due=good + timedelta(days=30) if good else None,
        late=days is not None and days > 30,
        restorable="yes" if good else "",
        verdict=_VERDICT.replace("Blue", name) if good else "",
        history="oooooooooooooooooooo" if good else "f",
    )
    return replace(view, **changes)


def going(**changes: Any) -> Going:
    """A run in the middle of copying."""
    view = Going(
        run="20261121T144500Z-7",
        disk="Blue",
        uuid="0004-ABCD",
        headline="Backing up to 'Blue': please leave it plugged in",
        stage="upload",
        line="copying photos (upload), 150.2 GB of 312.0 GB, 48 %",
        done=150_200_000_000,
        total=312_000_000_000,
        percent=48,
        rate=98_000_000.0,
        seconds_left=1651.0,
    )
    return replace(view, **changes)


def failed_report(**changes: Any) -> RunReport:
    """A run that went wrong in several ways."""
    items = ("upload/93c1/aa/bb/Straße 12:30.jpg: cannot be read", "library/admin/2024/家族の写真/写真 01.jpg: changed")
    findings = (
        Finding(code="names-changed", severity=Severity.NOTE, message="1 file is stored under another name", count=1),
        Finding(
            code="files-failed",
            severity=Severity.PARTIAL,
            message="12 files could not be copied",
            hint="Look at them on the server, then back up again.",
            items=items,
            count=12,
        ),
        Finding(
            code="disk-failing",
            severity=Severity.FAILED,
            message="The disk answers with errors",
            hint="Try another cable or port and plug the disk in again. If this comes back, replace the disk.",
        ),
    )
    verdict = DiskVerdict(
        restorable=Restorable.EXCEPT,
        dump="immich-db-backup-20261121T020000-v2.sql.gz",
        dump_time=NOW - timedelta(hours=13),
        assets=41_215,
        present=41_203,
        proven=40_000,
        files=82_000,
        files_proven=80_000,
        reasons=("12 photos are not on the disk",),
        exceptions=("upload/93c1/aa/bb/Straße 12:30.jpg: not on the disk",),
        exception_count=12,
    )
    stages = (
        StageReport(
            stage=Stage.DATABASE,
            seconds=2.1,
            files=1,
            bytes=17_700_000,
            summary="Database dump: copied and read back (17.7 MB)",
        ),
        StageReport(
            stage=Stage.UPLOAD,
            seconds=351,
            files=1200,
            bytes=34_400_000_000,
            summary="upload: 1,200 files copied (34.4 GB), 40,003 unchanged",
        ),
        StageReport(stage=Stage.FLUSH, seconds=12, summary="Everything is written out to the disk (12 s)"),
    )
    report = make_report(
        "20261121T120000Z-3",
        outcome=Outcome.FAILED,
        findings=findings,
        verdict=verdict,
        stages=stages,
        mode=Mode.QUICK,
        trigger=Trigger.ASKED,
    )
    return replace(report, **changes)


def runs() -> list[RunView]:
    """A week of runs, the newest first, one of which goes on."""
    outcomes = [Outcome.FAILED, Outcome.OK, Outcome.PARTIAL, Outcome.INTERRUPTED, Outcome.OK, Outcome.OK]
    over = []
    for number, outcome in enumerate(outcomes):
        began = NOW - timedelta(days=number, hours=3)
        name = "Blue" if number % 3 else "家族のバックアップ用ディスク"
        report = replace(make_report(f"{began:%Y%m%dT%H%M%SZ}-{number}", outcome=outcome, name=name), started=began)
        over.append(replace(view_of(report, headline(report)), disk=f"{len(name):04}-ABCD"))
    now = RunView(run="20261121T144500Z-7", disk="0004-ABCD", name="Blue", started=NOW - timedelta(minutes=15))
    return [now, *over]
